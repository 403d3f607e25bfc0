"""tinyleak: Deep Leakage from Gradients, from scratch.

An autograd engine of any order on NumPy or CuPy, and on it the attack that recovers training data
from the gradients a client shares (Zhu, Liu, Han, NeurIPS 2019).
"""

__version__ = "0.1.0"

"""The images of a batch, recovered from its gradient layer by layer, the last layer first."""

from tinyleak.attacks.recursion.inversion import recursion
from tinyleak.attacks.recursion.layers import layers_of

__all__ = ["layers_of", "recursion"]

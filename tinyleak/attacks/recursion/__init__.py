"""The images of a batch out of its gradient layer by layer, from the last to the first."""

from tinyleak.attacks.recursion.inversion import recursion
from tinyleak.attacks.recursion.layers import layers_of

__all__ = ["layers_of", "recursion"]

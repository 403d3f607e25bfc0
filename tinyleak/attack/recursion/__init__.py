"""The images of a batch out of its gradient layer by layer, from the last to the first."""

from tinyleak.attack.recursion.layers import layers_of
from tinyleak.attack.recursion.recursion import recursion

__all__ = ["layers_of", "recursion"]

"""Which element of each window is the largest: what max pooling is made of.

The positions are whole numbers and have no gradient. The pooled values are those elements, taken at
the positions, so all their derivatives are those of `take`; and padding needs no number to stand
for it, since a place outside the image is never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tinyleak.backend import Array
from tinyleak.ops.gather import _take
from tinyleak.ops.shape import reshape
from tinyleak.tensor import Tensor, primitive


class Windows(NamedTuple):
    """Where windows lie along an axis: the i-th begins at i·stride − padding."""

    number: int
    size: int
    stride: int
    padding: int
    dilation: int

    def overlap(self, place: int, length: int) -> tuple[slice, slice]:
        """Return the windows whose `place`-th element lies in the axis, and where it lies."""
        offset = place * self.dilation - self.padding
        first = max(0, -(offset // self.stride))
        stop = max(first, min(self.number, (length - 1 - offset) // self.stride + 1))
        start = first * self.stride + offset
        return slice(first, stop), slice(start, start + (stop - first) * self.stride, self.stride)


@primitive(arithmetic=False)
def winners(xp: Any, x: Array, *, down: Windows, across: Windows) -> Array:
    """The flat position in x, (…, H, W, C), of the first largest element of each window: (n,)."""
    best, found, wins = window_buffers(xp, x, down, across)
    best.fill(-xp.inf)
    for inside, values, places in elements_of_windows(xp, x, down, across):
        xp.logical_not(values <= best[inside], out=wins[inside])  # NaN wins too, and stays
        xp.logical_and(wins[inside], best[inside] == best[inside], out=wins[inside])
        xp.copyto(best[inside], values, where=wins[inside])
        xp.copyto(found[inside], places, where=wins[inside])
    return found.reshape(-1)


winners.rule(lambda g, out, x, *, down, across: (None,))


def window_buffers(xp: Any, x: Array, down: Windows, across: Windows) -> tuple[Array, Array, Array]:
    """Return arrays (…, oH, oW, C) for the largest values, their positions, and a mask.

    The positions are of some element of each window, in case that all are −∞.
    """
    *leading, height, width, channels = x.shape
    shape = (*leading, down.number, across.number, channels)
    found = xp.zeros(shape, dtype=xp.int64)
    for inside, _, places in elements_of_windows(xp, x, down, across):
        found[inside] = places
    return xp.empty(shape, dtype=x.dtype), found, xp.empty(shape, dtype=bool)


def elements_of_windows(
    xp: Any, x: Array, down: Windows, across: Windows
) -> Iterator[tuple[tuple[Any, ...], Array, Array]]:
    """Yield, for each place in a window, which windows have it, its values and positions."""
    positions = xp.arange(x.size).reshape(x.shape)
    for row in range(down.size):
        windows_down, rows = down.overlap(row, x.shape[-3])
        for column in range(across.size):
            windows_across, columns = across.overlap(column, x.shape[-2])
            inside = (..., windows_down, windows_across, slice(None))
            here = (..., rows, columns, slice(None))
            yield inside, x[here], positions[here]


def largest_of_windows(x: Tensor, down: Windows, across: Windows) -> Tensor:
    """Return the largest element of each window: (…, H, W, C) → (…, oH, oW, C).

    The first one, where several are equal, has the gradient.
    """
    flat = _take(reshape(x, (-1,)), winners(x, down=down, across=across), axis=0)
    return reshape(flat, (*x.shape[:-3], down.number, across.number, x.shape[-1]))

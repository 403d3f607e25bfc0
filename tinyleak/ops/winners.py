"""Which element of each window is the largest: what max pooling is made of.

The positions are whole numbers and have no gradient. The pooled values are those elements, taken at
the positions, so all their derivatives are those of `take`; and padding needs no number to stand
for it, since a place outside the image is never looked at.
"""

import math
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyleak.backend import Array
from tinyleak.ops.gather import _take
from tinyleak.ops.shape import reshape
from tinyleak.tensor import Tensor, primitive

Place: TypeAlias = "tuple[Any, ...]"
"""An index: slices of all axes."""


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
    starts, steps, first, slices = elements_of_windows(xp, x.shape, down, across)
    which = first.copy()
    best = xp.full(which.shape, -xp.inf, dtype=x.dtype)
    for number, (inside, here) in enumerate(slices):
        values, record = xp.ascontiguousarray(x[here]), best[inside]
        wins = ~(values <= record) & ~xp.isnan(record)  # NaN wins too, and stays
        xp.maximum(record, values, out=record)
        # A branch for each element would take longer: of all that won, the last has the number.
        xp.maximum(which[inside], wins * which.dtype.type(number), out=which[inside])
    return (xp.take(steps, which) + starts).reshape(-1)


winners.rule(lambda g, out, x, *, down, across: (None,))


@lru_cache(maxsize=16)
def elements_of_windows(
    xp: Any, shape: tuple[int, ...], down: Windows, across: Windows
) -> tuple[Array, Array, Array, list[tuple[Place, Place]]]:
    """Return where the elements of the windows of images (…, H, W, C) lie, numbered row by row.

    Returns:
        The flat positions at which windows begin, (…, oH, oW, C), some of them outside the image;
        the steps from there to each element; the number of each window's first element that is in
        the image; and for each number which windows have it there, and where it lies.
    """
    *leading, height, width, channels = shape
    number = down.size * across.size
    # The smallest numbers are the quickest to compare and move.
    first = xp.zeros((*leading, down.number, across.number, channels), np.min_scalar_type(number))
    rows = xp.arange(down.size)[:, None] * (down.dilation * width * channels)
    steps = (rows + xp.arange(across.size) * (across.dilation * channels)).ravel()
    slices = []
    for row, column in product(range(down.size), range(across.size)):
        windows_down, rows = down.overlap(row, height)
        windows_across, columns = across.overlap(column, width)
        inside = (..., windows_down, windows_across, slice(None))
        slices.append((inside, (..., rows, columns, slice(None))))
    positions, starts = xp.arange(math.prod(shape)).reshape(shape), xp.zeros(first.shape, xp.int64)
    for k, (inside, here) in reversed([*enumerate(slices)]):
        first[inside], starts[inside] = k, positions[here] - steps[k]
    return starts, steps, first, slices


def largest_of_windows(x: Tensor, down: Windows, across: Windows) -> Tensor:
    """Return the largest element of each window: (…, H, W, C) → (…, oH, oW, C).

    The first one, where several are equal, has the gradient.
    """
    flat = _take(reshape(x, (-1,)), winners(x, down=down, across=across), axis=0)
    return reshape(flat, (*x.shape[:-3], down.number, across.number, x.shape[-1]))

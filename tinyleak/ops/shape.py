"""Primitives that move elements and never change them: linear maps, each with its adjoint.

`reshape ⇄ reshape` and `transpose ⇄ transpose`: each is the rule of the other. What takes a Tensor
apart, or joins several, is in ops/indexing.py.

Lesson: lessons/03_broadcasting.py
"""

import math
import operator
from collections.abc import Sequence
from functools import cache
from typing import Any, SupportsIndex

import numpy as np

from tinyleak.backend import Array
from tinyleak.tensor import Tensor, primitive


@primitive(arithmetic=False)
def _reshape(xp: Any, x: Array, *, shape: tuple[int, ...]) -> Array:
    """The elements of `x` in row-major order in another shape."""
    return x.reshape(shape)


_reshape.rule(lambda g, out, x, *, shape: (reshape(g, x.shape),))


def reshape(x: Tensor, shape: int | Sequence[int]) -> Tensor:
    """Give the elements of `x`, in row-major order, another shape; one length may be −1.

    Raises:
        ValueError: the shape has another number of elements.
    """
    full = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if full.count(-1) == 1:
        known = -math.prod(full)
        left = math.prod(x.shape) // known if known else -1
        full = tuple(left if length == -1 else length for length in full)
    return x if full == x.shape else _reshape(x, shape=full)


@primitive(arithmetic=False)
def _transpose(xp: Any, x: Array, *, axes: tuple[int, ...]) -> Array:
    """`x` with its axes in another order."""
    return x.transpose(axes)


@cache
def inverse_order(axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the order that brings axes put in the order `axes` back to 0, 1, 2, …."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


_transpose.rule(lambda g, out, x, *, axes: (_transpose(g, axes=inverse_order(axes)),))


def transpose(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Put the last `len(axes)` axes of `x` in another order; the leading ones stay.

    `axes` numbers those last axes from 0: `transpose(x, (1, 0))` swaps the last two. What is no
    permutation, or of more axes than `x` has, is a ValueError.
    """
    return _transpose(x, axes=_order_of_all_axes(x.shape, tuple(axes)))


@cache
def _order_of_all_axes(shape: tuple[int, ...], last: tuple[int, ...]) -> tuple[int, ...]:
    leading = len(shape) - len(last)
    if leading < 0 or sorted(last) != list(range(len(last))):
        raise ValueError(
            f"transpose of {shape} was given axes {last}; give a permutation of 0 … k−1 for the "
            f"last k axes, k at most {len(shape)}"
        )
    return (*range(leading), *[leading + axis for axis in last])


def swap_last_axes(x: Tensor) -> Tensor:
    """Return the transposed matrices: `(…, n, m)` from `(…, m, n)`."""
    return transpose(x, (1, 0))


def normalise_axis(axis: SupportsIndex, ndim: int) -> int:
    """Return the axis counted from the front; a ValueError if there is none."""
    if not hasattr(axis, "__index__") or not -ndim <= operator.index(axis) < ndim:
        raise ValueError(f"axis {axis!r} was given for a Tensor of {ndim} axes")
    return operator.index(axis) % ndim

"""Primitives that move elements and never change them: linear maps, in adjoint pairs.

`reshape ⇄ reshape`, `transpose ⇄ transpose`, `pad ⇄ crop`, `concatenate ⇄ split`. Of each pair
either one is the rule of the other. Indexing is a crop, and a reshape that drops axes.

Lesson: lessons/03_broadcasting.py
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import cache
from typing import Any, SupportsIndex

import numpy as np

from tinyleak.backend import Array
from tinyleak.tensor import Tensor, primitive

Window = tuple[tuple[int, int, int], ...]
"""Where a part lies in a whole: start, stop and positive step along each axis."""


@primitive(arithmetic=False)
def _reshape(xp: Any, x: Array, *, shape: tuple[int, ...]) -> Array:
    """The elements of `x` in row-major order in another shape."""
    return x.reshape(shape)


@_reshape.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, shape: tuple[int, ...]) -> tuple[Tensor]:
    return (reshape(g, x.shape),)


def reshape(x: Tensor, shape: int | Sequence[int]) -> Tensor:
    """Give the elements of `x`, in row-major order, another shape; one length may be −1.

    Raises:
        ValueError: the shape has another number of elements.
    """
    full = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    if full.count(-1) == 1:
        known = -math.prod(full)
        left = math.prod(x.shape) // known if known else -1
        full = tuple(left if length == -1 else length for length in full)
    return x if full == x.shape else _reshape(x, shape=full)


@primitive(arithmetic=False)
def _transpose(xp: Any, x: Array, *, axes: tuple[int, ...]) -> Array:
    """`x` with its axes in another order."""
    return x.transpose(axes)


@_transpose.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, axes: tuple[int, ...]) -> tuple[Tensor]:
    return (_transpose(g, axes=inverse_order(axes)),)


def transpose(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Put the last `len(axes)` axes of `x` in another order; the leading ones stay.

    `axes` numbers those last axes from 0: `transpose(x, (1, 0))` swaps the last two.

    Raises:
        ValueError: `axes` is not a permutation of 0, 1, …, or `x` has too few axes.
    """
    order = _order_of_all_axes(tuple(axes), x.ndim)
    if order is None:
        raise ValueError(
            f"transpose of {x.shape} was given axes {tuple(axes)}; give a permutation of "
            f"0 … k−1 for the last k axes, k at most {x.ndim}"
        )
    return _transpose(x, axes=order)


@cache
def _order_of_all_axes(last: tuple[int, ...], ndim: int) -> tuple[int, ...] | None:
    """Return the order of `ndim` axes in which the last ones are permuted, if it is an order."""
    leading = ndim - len(last)
    if leading < 0 or sorted(last) != list(range(len(last))):
        return None
    return (*range(leading), *[leading + axis for axis in last])


@cache
def inverse_order(axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the order that brings axes put in the order `axes` back to 0, 1, 2, …."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def swap_last_axes(x: Tensor) -> Tensor:
    """Return the transposed matrices: `(…, n, m)` from `(…, m, n)`."""
    return transpose(x, (1, 0))


@primitive(arithmetic=False)
def _crop(xp: Any, x: Array, *, window: Window) -> Array:
    """The part of `x` that lies in the window."""
    return x[slices(window)]


@_crop.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, window: Window) -> tuple[Tensor]:
    return (_pad(g, window=window, shape=x.shape),)


@primitive(arithmetic=False)
def _pad(xp: Any, x: Array, *, window: Window, shape: tuple[int, ...]) -> Array:
    """Zeros of the given shape with `x` laid into the window."""
    whole = xp.zeros(shape, dtype=x.dtype)
    whole[slices(window)] = x
    return whole


@_pad.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, window: Window, shape: Any) -> tuple[Tensor]:
    return (_crop(g, window=window),)


def slices(window: Window) -> tuple[Any, ...]:
    """Return the index that takes the window out of an array, as a view even without axes."""
    return (*(slice(*bounds) for bounds in window), ...)


def pad(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Surround `x` with zeros: `widths` are (before, after) for each of the last axes.

    Raises:
        ValueError: a negative width, or more widths than axes.
    """
    full = _widths(x, widths, "pad")
    window = tuple((a, a + n, 1) for n, (a, b) in zip(x.shape, full, strict=True))
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, full, strict=True))
    return _pad(x, window=window, shape=shape)


def crop(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Cut a margin off `x`, the reverse of `pad`: (before, after) for each of the last axes.

    Raises:
        ValueError: a negative width, more widths than axes, or margins wider than `x`.
    """
    full = _widths(x, widths, "crop")
    return _crop(x, window=tuple((a, n - b, 1) for n, (a, b) in zip(x.shape, full, strict=True)))


def _widths(x: Tensor, widths: Sequence[tuple[int, int]], name: str) -> list[tuple[int, ...]]:
    """Return the checked widths for every axis of `x`, zero for the leading ones."""
    full = [(0, 0)] * (x.ndim - len(widths)) + [tuple(pair) for pair in widths]
    fits = name == "pad" or all(n >= sum(w) for n, w in zip(x.shape, full, strict=False))
    if len(full) != x.ndim or not fits or any(width < 0 for pair in full for width in pair):
        raise ValueError(
            f"{name} of {x.shape} was given {tuple(widths)}; give non-negative (before, after) "
            "widths for the last axes, no wider than they are"
        )
    return full


def index(x: Tensor, key: Any) -> Tensor:
    """Return `x[key]`, for whole numbers, slices with positive steps, `...` and None (a new axis).

    Raises:
        ValueError: anything else among them, or more of them than axes.
        IndexError: a number out of range.
    """
    parts = key if isinstance(key, tuple) else (key,)
    named = sum(part is not None and part is not ... for part in parts)
    place = next((n for n, part in enumerate(parts) if part is ...), len(parts))
    parts = (*parts[:place], *(slice(None),) * (x.ndim - named), *parts[place + 1 :])
    if named > x.ndim or not all(_is_plain(part) for part in parts):
        raise ValueError(
            f"a Tensor of shape {x.shape} was indexed with {key!r}; give at most {x.ndim} whole "
            "numbers and slices with positive steps, None or ... (arrays of indices go to ops.take)"
        )
    lengths, window, shape = iter(x.shape), [], []
    for part in parts:
        if part is None:
            shape.append(1)
        elif isinstance(part, slice):
            window.append(part.indices(next(lengths)))
            shape.append(len(range(*window[-1])))
        else:
            length = next(lengths)
            if not -length <= part < length:
                raise IndexError(f"index {part} was given for an axis of length {length}")
            window.append((int(part) % length, int(part) % length + 1, 1))
    whole = tuple((0, length, 1) for length in x.shape)
    return reshape(x if tuple(window) == whole else _crop(x, window=tuple(window)), shape)


def _is_plain(part: object) -> bool:
    """Whether this part of an index is a whole number, None or a slice with a positive step."""
    if isinstance(part, slice):
        return part.step is None or part.step > 0
    return part is None or (isinstance(part, int | np.integer) and not isinstance(part, bool))


@primitive(arithmetic=False)
def _concatenate(xp: Any, *arrays: Array, axis: int) -> Array:
    """The arrays one after another along an axis."""
    return xp.concatenate(arrays, axis=axis)


@_concatenate.rule
def _(g: Tensor, out: Tensor, *inputs: Tensor, axis: int) -> tuple[Tensor, ...]:
    return split(g, [x.shape[axis] for x in inputs], axis)


def concatenate(tensors: Sequence[Tensor], axis: SupportsIndex = 0) -> Tensor:
    """Join Tensors along an axis; the other axes must agree."""
    return _concatenate(*tensors, axis=operator.index(axis))


def stack(tensors: Sequence[Tensor], axis: SupportsIndex = 0) -> Tensor:
    """Join Tensors of one shape along a new axis.

    Raises:
        ValueError: the shapes differ, or the result would not have such an axis.
    """
    tensors = list(tensors)
    axis = normalise_axis(axis, tensors[0].ndim + 1 if tensors else 1)
    return concatenate([x[(slice(None),) * axis + (None,)] for x in tensors], axis)


def split(x: Tensor, lengths: Sequence[int], axis: SupportsIndex = 0) -> tuple[Tensor, ...]:
    """Cut `x` along an axis into pieces of the given lengths, the reverse of `concatenate`.

    Raises:
        ValueError: the lengths do not add up to the axis; `x` does not have the axis.
    """
    axis = normalise_axis(axis, x.ndim)
    if sum(lengths) != x.shape[axis]:
        raise ValueError(
            f"split of {x.shape} along axis {axis} was given lengths {list(lengths)}; "
            f"they must add up to {x.shape[axis]}"
        )
    whole = tuple((0, length, 1) for length in x.shape)
    pieces, stop = [], 0
    for length in lengths:
        start, stop = stop, stop + int(length)
        pieces.append(_crop(x, window=(*whole[:axis], (start, stop, 1), *whole[axis + 1 :])))
    return tuple(pieces)


def normalise_axis(axis: SupportsIndex, ndim: int) -> int:
    """Return the axis counted from the front.

    Raises:
        ValueError: there is no such axis.
    """
    number = operator.index(axis)
    if not -ndim <= number < ndim:
        raise ValueError(f"axis {number} was given for a Tensor of {ndim} axes")
    return number % ndim

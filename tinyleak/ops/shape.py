"""Primitives that move elements and never change them: linear maps, in adjoint pairs.

`reshape ⇄ reshape`, `transpose ⇄ transpose`, `pad ⇄ crop`, `concatenate ⇄ split`. Of each pair
either one is the rule of the other.

Lesson: lessons/03_broadcasting.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tinyleak.backend import Array, join_into
from tinyleak.tensor import Step, Tensor, primitive


@primitive(view=True)
def _reshape(xp: Any, x: Array, out: Array | None = None, *, shape: tuple[int, ...]) -> Array:
    """The elements of `x` in row-major order in another shape."""
    if out is None:
        return x.reshape(shape)
    if out.flags.c_contiguous:
        xp.copyto(out.reshape(x.shape), x)
    else:
        # Reshaping `out` would give a copy, and the result would be written there.
        xp.copyto(out, x.reshape(shape))
    return out


@_reshape.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, shape: tuple[int, ...]) -> tuple[Tensor]:
    return (reshape(g, x.shape),)


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Give the elements of `x`, in row-major order, another shape; one length may be −1.

    Raises:
        ValueError: the shape has another number of elements.
    """
    full = tuple(shape)
    if -1 in full:
        known = math.prod(length for length in full if length != -1)
        left = math.prod(x.shape) // known if known else -1
        full = tuple(left if length == -1 else length for length in full)
    return x if full == x.shape else _reshape(x, shape=full)


@primitive(view=True)
def _transpose(xp: Any, x: Array, out: Array | None = None, *, axes: tuple[int, ...]) -> Array:
    """`x` with its axes in another order."""
    if out is None:
        return x.transpose(axes)
    xp.copyto(out, x.transpose(axes))
    return out


@_transpose.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, axes: tuple[int, ...]) -> tuple[Tensor]:
    return (_transpose(g, axes=inverse_order(axes)),)


def transpose(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Put the last `len(axes)` axes of `x` in another order; the leading ones stay.

    `axes` numbers those last axes from 0: `transpose(x, (1, 0))` swaps the last two.

    Raises:
        ValueError: `axes` is no permutation of 0, 1, …, or `x` has too few axes.
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
    """Return the order of `ndim` axes in which the last ones are permuted; None if it is none."""
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


@primitive(view=True)
def _crop(
    xp: Any, x: Array, out: Array | None = None, *, window: tuple[tuple[int, int, int], ...]
) -> Array:
    """The part of `x` that starts, stops and steps as `window` says, axis by axis."""
    part = x[tuple(slice(*bounds) for bounds in window)]
    if out is None:
        return part
    xp.copyto(out, part)
    return out


@_crop.rule
def _(
    g: Tensor, out: Tensor, x: Tensor, *, window: tuple[tuple[int, int, int], ...]
) -> tuple[Tensor]:
    return (_pad(g, window=window, shape=x.shape),)


@primitive()
def _pad(
    xp: Any,
    x: Array,
    out: Array | None = None,
    *,
    window: tuple[tuple[int, int, int], ...],
    shape: tuple[int, ...],
) -> Array:
    """Zeros of the given shape with `x` laid into the given window."""
    if out is None:
        out = xp.zeros(shape, dtype=x.dtype)
    else:
        out.fill(0)
    xp.copyto(out[tuple(slice(*bounds) for bounds in window)], x)
    return out


@_pad.rule
def _(
    g: Tensor,
    out: Tensor,
    x: Tensor,
    *,
    window: tuple[tuple[int, int, int], ...],
    shape: tuple[int, ...],
) -> tuple[Tensor]:
    return (_crop(g, window=window),)


def pad(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Surround `x` with zeros: `widths` are (before, after) for each of the last axes.

    Raises:
        ValueError: a negative width, or more widths than axes.
    """
    window, shape = _margins(x, widths, grow=True)
    return _pad(x, window=window, shape=shape)


def crop(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Cut a margin off `x`, the reverse of `pad`: (before, after) for each of the last axes.

    Raises:
        ValueError: a negative width, more widths than axes, or margins wider than `x`.
    """
    window, _ = _margins(x, widths, grow=False)
    return _crop(x, window=window)


def _margins(
    x: Tensor, widths: Sequence[tuple[int, int]], *, grow: bool
) -> tuple[tuple[tuple[int, int, int], ...], tuple[int, ...]]:
    full = ((0, 0),) * (x.ndim - len(widths)) + tuple(widths)
    fits = grow or all(n >= a + b for n, (a, b) in zip(x.shape, full, strict=False))
    if len(full) != x.ndim or not fits or any(width < 0 for pair in full for width in pair):
        raise ValueError(
            f"{'pad' if grow else 'crop'} of {x.shape} was given {tuple(widths)}; give "
            "non-negative (before, after) widths for the last axes, no wider than they are"
        )
    if grow:
        shape = tuple(n + a + b for n, (a, b) in zip(x.shape, full, strict=True))
        return tuple((a, a + n, 1) for n, (a, b) in zip(x.shape, full, strict=True)), shape
    window = tuple((a, n - b, 1) for n, (a, b) in zip(x.shape, full, strict=True))
    return window, tuple(stop - start for start, stop, _ in window)


Key = tuple[int | tuple[int, int, int], ...]


@primitive(view=True)
def _index(xp: Any, x: Array, out: Array | None = None, *, key: Key) -> Array:
    """`x[key]`, for whole numbers and (start, stop, step) with positive steps."""
    places = tuple(slice(*part) if isinstance(part, tuple) else part for part in key)
    # Without the ellipsis NumPy would copy a single element out, and no view of it remain.
    part = x[(*places, ...)]
    if out is None:
        return part
    xp.copyto(out, part)
    return out


@_index.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, key: Key) -> tuple[Tensor]:
    window = []
    for axis, length in enumerate(x.shape):
        part = key[axis] if axis < len(key) else (0, length, 1)
        if isinstance(part, tuple):
            window.append(part)
        else:
            window.append((part % length, part % length + 1, 1))
    kept = tuple(len(range(*bounds)) for bounds in window)
    return (_pad(reshape(g, kept), window=tuple(window), shape=x.shape),)


@primitive()
def _concatenate(xp: Any, *arrays: Array, out: Array | None = None, axis: int) -> Array:
    """The arrays one after another along an axis."""
    return xp.concatenate(arrays, axis=axis, out=out)


@_concatenate.steps
def _(xp: Any, *arrays: Array, out: Array, axis: int) -> list[Step]:
    return join_into(xp, arrays, axis, out)


@_concatenate.rule
def _(g: Tensor, out: Tensor, *inputs: Tensor, axis: int) -> tuple[Tensor, ...]:
    return split(g, [x.shape[axis] for x in inputs], axis)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join Tensors along an axis; the other axes must agree."""
    return _concatenate(*tensors, axis=axis)


def split(x: Tensor, lengths: Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
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
    stops = np.cumsum(lengths).tolist()
    pieces = []
    for stop, length in zip(stops, lengths, strict=True):
        window = tuple(
            (stop - length, stop, 1) if i == axis else (0, n, 1) for i, n in enumerate(x.shape)
        )
        pieces.append(_crop(x, window=window))
    return tuple(pieces)


def normalise_axis(axis: int, ndim: int) -> int:
    """Return the axis counted from the front.

    Raises:
        ValueError: there is no such axis.
    """
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis {axis} was given for a Tensor of {ndim} axes")
    return axis % ndim

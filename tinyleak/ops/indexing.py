"""Parts of a Tensor, and Tensors made of parts: crops, pads, joins and reshapes.

Two adjoint pairs, in which each is the rule of the other: `crop_to ⇄ pad_to` and
`concatenate ⇄ split`.
"""

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from tinyleak.backend import Array
from tinyleak.ops.shape import normalise_axis, reshape
from tinyleak.tensor import Tensor, primitive

Window = tuple[tuple[int, int, int], ...]
"""Where a part lies in a whole: start, stop and positive step along each axis."""


@primitive(arithmetic=False)
def crop_to(xp: Any, x: Array, *, window: Window) -> Array:
    """The part of `x` that lies in the window."""
    return x[slices(window)]


@primitive(arithmetic=False)
def pad_to(xp: Any, x: Array, *, window: Window, shape: tuple[int, ...]) -> Array:
    """Zeros of the given shape with `x` laid into the window."""
    whole = xp.zeros(shape, dtype=x.dtype)
    whole[slices(window)] = x
    return whole


crop_to.rule(lambda g, out, x, *, window: (pad_to(g, window=window, shape=x.shape),))
pad_to.rule(lambda g, out, x, *, window, shape: (crop_to(g, window=window),))


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
    return pad_to(x, window=window, shape=shape)


def crop(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Cut a margin off `x`, the reverse of `pad`: (before, after) for each of the last axes.

    Raises:
        ValueError: a negative width, more widths than axes, or margins wider than `x`.
    """
    full = _widths(x, widths, "crop")
    return crop_to(x, window=tuple((a, n - b, 1) for n, (a, b) in zip(x.shape, full, strict=True)))


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
    return reshape(x if tuple(window) == whole else crop_to(x, window=tuple(window)), shape)


def _is_plain(part: object) -> bool:
    """Whether this part of an index is a whole number, None or a slice with a positive step."""
    if isinstance(part, slice):
        return part.step is None or part.step > 0
    return part is None or (isinstance(part, int | np.integer) and not isinstance(part, bool))


@primitive(arithmetic=False)
def _concatenate(xp: Any, *arrays: Array, axis: int) -> Array:
    """The arrays one after another along an axis."""
    return xp.concatenate(arrays, axis=axis)


_concatenate.rule(lambda g, out, *xs, axis: split(g, [x.shape[axis] for x in xs], axis))


def concatenate(tensors: Sequence[Tensor], axis: SupportsIndex = 0) -> Tensor:
    """Join Tensors along an axis; the other axes must agree.

    No Tensors, an axis that they lack, or shapes that do not agree, are a ValueError.
    """
    tensors = list(tensors)
    if not tensors:
        raise ValueError("concatenate cannot combine no Tensors at all; give at least one array")
    return _concatenate(*tensors, axis=operator.index(axis))


def split(x: Tensor, lengths: Sequence[int], axis: SupportsIndex = 0) -> tuple[Tensor, ...]:
    """Cut `x` along an axis into pieces of the given lengths, the reverse of `concatenate`.

    Lengths that do not add up to the axis, or an axis that `x` lacks, are a ValueError.
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
        pieces.append(crop_to(x, window=(*whole[:axis], (start, stop, 1), *whole[axis + 1 :])))
    return tuple(pieces)


def stack(tensors: Sequence[Tensor], axis: SupportsIndex = 0) -> Tensor:
    """Join Tensors of one shape along a new axis.

    No Tensors, other shapes, or an axis that the result would not have, are a ValueError.
    """
    tensors = list(tensors)
    axis = normalise_axis(axis, tensors[0].ndim + 1 if tensors else 1)
    return concatenate([x[(slice(None),) * axis + (None,)] for x in tensors], axis)

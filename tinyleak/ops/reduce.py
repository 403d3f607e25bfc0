"""Reductions, all built on one adjoint pair: `broadcast_to ⇄ sum_to`.

`broadcast_to` copies an element to many places; its adjoint `sum_to` adds those places up. Each is
the other's rule, which makes both right to every order. `sum` is `sum_to` and a reshape.

Lesson: lessons/03_broadcasting.py
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, SupportsIndex

import numpy as np

from tinyleak.backend import Array
from tinyleak.ops.shape import normalise_axis, reshape
from tinyleak.tensor import Tensor, primitive

Shape = tuple[int, ...]
Axes = int | np.integer[Any] | Sequence[SupportsIndex] | None


@primitive(arithmetic=False)
def broadcast_to(xp: Any, x: Array, *, shape: tuple[int, ...]) -> Array:
    """`x` repeated along new axes and along axes of length 1, as NumPy broadcasts."""
    return x if x.shape == shape else xp.broadcast_to(x, shape)


@primitive()
def sum_to(xp: Any, x: Array, *, shape: tuple[int, ...]) -> Array:
    """`x` summed over every axis along which `shape` would broadcast to it."""
    axes, _ = summed_axes(x.shape, tuple(shape))
    return x.sum(axis=axes, keepdims=True).reshape(shape)


broadcast_to.rule(lambda g, out, x, *, shape: (sum_to(g, shape=x.shape),))
sum_to.rule(lambda g, out, x, *, shape: (broadcast_to(g, shape=x.shape),))


@cache
def summed_axes(shape: Shape, target: Shape) -> tuple[Shape, Shape]:
    """Return the axes over which to sum, and the target's shape with those axes kept as 1.

    A target that does not broadcast to the shape is a ValueError.
    """
    kept = (1,) * (len(shape) - len(target)) + target
    axes = tuple(i for i, (a, b) in enumerate(zip(kept, shape, strict=False)) if a != b)
    if len(kept) != len(shape) or any(kept[axis] != 1 for axis in axes):
        raise ValueError(f"{target} does not broadcast to {shape}")
    return axes, kept


def sum(x: Tensor, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """Sum over the given axes (all, if None).

    Raises:
        ValueError: an axis that `x` does not have, or one given twice.
    """
    reduced = normalise_axes(axes, x.ndim)
    kept = tuple(1 if axis in reduced else length for axis, length in enumerate(x.shape))
    total = sum_to(x, shape=kept)
    return total if keepdims else drop_axes(total, reduced)


def normalise_axes(axes: Axes, ndim: int) -> tuple[int, ...]:
    """Return the axes counted from the front, in order, each once; None is all of them."""
    if axes is None:
        return tuple(range(ndim))
    given = tuple(axes) if isinstance(axes, Iterable) else (axes,)
    normalised = tuple(sorted(normalise_axis(axis, ndim) for axis in given))
    if len(set(normalised)) < len(normalised):
        raise ValueError(f"axes {given} name one axis of a Tensor of {ndim} axes twice")
    return normalised


def drop_axes(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return `x` without these axes, which have length 1."""
    return reshape(x, tuple(n for axis, n in enumerate(x.shape) if axis not in axes))

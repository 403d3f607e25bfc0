"""Reductions, all built on one adjoint pair: `broadcast_to ⇄ sum_to`.

`broadcast_to` copies an element to many places; its adjoint `sum_to` adds those places up. Each is
the other's rule, which makes both right to every order. `sum` is `sum_to` and a reshape.

Lesson: lessons/03_broadcasting.py
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any

from tinyleak.backend import Array, call_into, largest_into
from tinyleak.ops.elementwise import exp, log, stop_gradient
from tinyleak.ops.shape import normalise_axis, reshape
from tinyleak.tensor import Step, Tensor, primitive

Axes = int | tuple[int, ...] | None


@primitive(view=True)
def broadcast_to(xp: Any, x: Array, out: Array | None = None, *, shape: tuple[int, ...]) -> Array:
    """`x` repeated along new axes and along axes of length 1, as NumPy broadcasts."""
    if out is None:
        return xp.broadcast_to(x, shape)
    xp.copyto(out, x)
    return out


@broadcast_to.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, shape: tuple[int, ...]) -> tuple[Tensor]:
    return (sum_to(g, shape=x.shape),)


@primitive()
def sum_to(xp: Any, x: Array, out: Array | None = None, *, shape: tuple[int, ...]) -> Array:
    """`x` summed over every axis along which `shape` would broadcast to it."""
    axes, kept = _summed_axes(x.shape, tuple(shape))
    if out is None:
        return x.sum(axis=axes, keepdims=True).reshape(shape)
    xp.sum(x, axis=axes, keepdims=True, out=out.reshape(kept))
    return out


@sum_to.steps
def _(xp: Any, x: Array, out: Array, *, shape: tuple[int, ...]) -> list[Step]:
    axes, kept = _summed_axes(x.shape, tuple(shape))
    if axes == (x.ndim - 2,):
        # Adding up rows or columns is a product with ones, and far quicker so.
        ones = xp.ones((1, x.shape[-2]), dtype=x.dtype)
        return [call_into(xp, "matmul", ones, x, out=out.reshape(kept))]
    if axes == (x.ndim - 1,) and x.ndim > 1:
        ones = xp.ones((x.shape[-1], 1), dtype=x.dtype)
        return [call_into(xp, "matmul", x, ones, out=out.reshape(kept))]
    return [partial(xp.sum, x, axis=axes, keepdims=True, out=out.reshape(kept))]


@cache
def _summed_axes(
    shape: tuple[int, ...], target: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the axes over which to sum, and the target's shape with those axes kept as 1."""
    kept = (1,) * (len(shape) - len(target)) + target
    axes = tuple(i for i, (a, b) in enumerate(zip(kept, shape, strict=False)) if a != b)
    if len(kept) != len(shape) or any(kept[axis] != 1 for axis in axes):
        raise ValueError(f"{target} does not broadcast to {shape}")
    return axes, kept


@sum_to.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, shape: tuple[int, ...]) -> tuple[Tensor]:
    return (broadcast_to(g, shape=x.shape),)


def sum(x: Tensor, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """Sum over the given axes (all, if None).

    Raises:
        ValueError: an axis that `x` does not have, or one given twice.
    """
    reduced = _normalise(axes, x.ndim)
    kept = tuple(1 if axis in reduced else length for axis, length in enumerate(x.shape))
    total = sum_to(x, shape=kept)
    return total if keepdims else _drop(total, reduced)


def mean(x: Tensor, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """Average over the given axes (all, if None)."""
    count = math.prod(x.shape[axis] for axis in _normalise(axes, x.ndim))
    return sum(x, axes, keepdims=keepdims) * (1.0 / count)


@primitive()
def _amax(xp: Any, x: Array, out: Array | None = None, *, axes: tuple[int, ...]) -> Array:
    """The largest element along the axes, which are kept with length 1."""
    return xp.amax(x, axis=axes, keepdims=True, out=out)


@_amax.steps
def _(xp: Any, x: Array, out: Array, *, axes: tuple[int, ...]) -> list[Step]:
    return [largest_into(xp, x, axes, out)]


@_amax.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, axes: tuple[int, ...]) -> tuple[Tensor]:
    # Elements that share the largest value share the gradient equally.
    winners = _equal(x, out)
    return (g * (winners / sum(winners, axes, keepdims=True)),)


@primitive()
def _equal(xp: Any, a: Array, b: Array, out: Array | None = None) -> Array:
    """1 where `a = b`, else 0, in the dtype of `a`: a constant."""
    if out is None:
        return (a == b).astype(a.dtype)
    xp.copyto(out, a == b)
    return out


@_equal.rule
def _(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[None, None]:
    return None, None


def max(x: Tensor, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """Return the largest element along the given axes (all, if None)."""
    reduced = _normalise(axes, x.ndim)
    largest = _amax(x, axes=reduced)
    return largest if keepdims else _drop(largest, reduced)


def logsumexp(x: Tensor, axis: int = -1) -> Tensor:
    """Return `log Σ eˣ` along an axis, which is kept with length 1; large `x` do not overflow."""
    # The shift cancels, so holding it constant changes no derivative of any order.
    shift = stop_gradient(max(x, axis, keepdims=True))
    return log(sum(exp(x - shift), axis, keepdims=True)) + shift


def _normalise(axes: Axes, ndim: int) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(ndim))
    given = (axes,) if isinstance(axes, int) else axes
    normalised = tuple(sorted(normalise_axis(axis, ndim) for axis in given))
    if len(set(normalised)) < len(normalised):
        raise ValueError(f"axes {given} name one axis of a Tensor of {ndim} axes twice")
    return normalised


def _drop(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return reshape(x, tuple(n for axis, n in enumerate(x.shape) if axis not in axes))

"""Primitives that compare and choose: masks, the larger of two, the largest of many."""

from typing import Any

from tinyleak.backend import Array
from tinyleak.ops.dtypes import floating
from tinyleak.ops.elementwise import library_primitive
from tinyleak.ops.reduce import Axes, drop_axes, normalise_axes, sum
from tinyleak.tensor import Tensor, TensorLike, as_tensor, primitive

greater, greater_equal, equal, not_equal = (
    library_primitive(
        name, f"Whether `a {sign} b`: a mask.", lambda g, out, a, b: (None, None), arithmetic=False
    )
    for name, sign in [("greater", ">"), ("greater_equal", "≥"), ("equal", "="), ("not_equal", "≠")]
)


def less(a: TensorLike, b: TensorLike) -> Tensor:
    """Return whether `a < b`: a mask."""
    return greater(b, a)


def less_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """Return whether `a ≤ b`: a mask."""
    return greater_equal(b, a)


@primitive(arithmetic=False)
def _where(xp: Any, mask: Array, a: Array, b: Array) -> Array:
    """`a` where the mask is true, else `b`."""
    return xp.where(mask, a, b)


_where.rule(
    lambda g, out, mask, a, b: (None, lambda: where(mask, g, 0.0), lambda: where(mask, 0.0, g))
)


def where(mask: TensorLike, a: TensorLike, b: TensorLike) -> Tensor:
    """Choose elementwise: `a` where the boolean `mask` is true, else `b`; all broadcast."""
    like = a if isinstance(a, Tensor) else b if isinstance(b, Tensor) else None
    return _where(mask, as_tensor(a, like), as_tensor(b, like))


maximum = library_primitive(
    "maximum",
    "The larger of `a` and `b`; where they are equal, `b` has the gradient.",
    lambda g, out, a, b: (lambda: where(a > b, g, 0.0), lambda: where(a > b, 0.0, g)),
)


def relu(x: Tensor) -> Tensor:
    """Return `max(x, 0)`; its gradient at 0 is taken to be 0."""
    return maximum(x, 0.0)


def clip(x: Tensor, lowest: float, highest: float) -> Tensor:
    """Return `x` held between two numbers; its gradient at them, and beyond, is taken to be 0."""
    return -maximum(-maximum(x, lowest), -highest)


@primitive()
def _amax(xp: Any, x: Array, *, axes: tuple[int, ...]) -> Array:
    """The largest element along the axes, which are kept with length 1."""
    return xp.amax(x, axis=axes, keepdims=True)


@_amax.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, axes: tuple[int, ...]) -> tuple[Tensor]:
    # Elements that share the largest value share the gradient equally.
    winners = floating(equal(x, out), dtype=x.dtype.name)
    return (g * (winners / sum(winners, axes, keepdims=True)),)


def max(x: Tensor, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """Return the largest element along the given axes (all, if None)."""
    reduced = normalise_axes(axes, x.ndim)
    largest = _amax(x, axes=reduced)
    return largest if keepdims else drop_axes(largest, reduced)

"""Matrix products."""

import math
from typing import Any

from tinyleak.backend import Array
from tinyleak.ops.shape import reshape, swap_last_axes
from tinyleak.tensor import Gradients, Tensor, primitive


@primitive()
def matmul(xp: Any, a: Array, b: Array) -> Array:
    """The products `a @ b` over broadcast leading axes: (…, n, k) @ (…, k, m) → (…, n, m)."""
    if a.ndim < 2 or b.ndim < 2:
        raise ValueError("matmul needs two axes or more; reshape a vector to a matrix first")
    return xp.matmul(a, b)


matmul.rule(lambda g, out, a, b: (lambda: g @ swap_last_axes(b), lambda: swap_last_axes(a) @ g))


@primitive()
def _inner(xp: Any, a: Array, b: Array, *, axes: int) -> Array:
    """The sum of the products of the elements over the last axes."""
    # One row times one column: a single pass over both, with no array of products between.
    leading, length = a.shape[: a.ndim - axes], math.prod(a.shape[a.ndim - axes :])
    products = xp.matmul(a.reshape((*leading, 1, length)), b.reshape((*leading, length, 1)))
    return products.reshape(leading)


@_inner.rule
def _(g: Tensor, out: Tensor, a: Tensor, b: Tensor, *, axes: int) -> Gradients:
    g = reshape(g, (*g.shape, *(1,) * axes))
    if a is b:  # a sum of squares: what both inputs have coming to them, at once
        return (g + g) * a, None
    return lambda: g * b, lambda: g * a


def inner(a: Tensor, b: Tensor, axes: int) -> Tensor:
    """Sum the products of the elements over the last `axes` axes: (…) from (…, n₁, …, nₖ).

    Raises:
        ValueError: `a` and `b` differ in shape, or have fewer axes.
    """
    if a.shape != b.shape or not 0 <= axes <= a.ndim:
        given = f"inner over {axes} axes was given {a.shape} and {b.shape}"
        raise ValueError(f"{given}; it needs two Tensors of one shape with that many axes")
    return _inner(a, b, axes=int(axes))

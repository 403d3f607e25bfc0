"""Matrix products."""

from __future__ import annotations

from functools import partial
from typing import Any

from tinyleak.backend import Array, call_into, shares_memory
from tinyleak.ops.shape import reshape, swap_last_axes
from tinyleak.tensor import Later, Step, Tensor, primitive


@primitive()
def matmul(xp: Any, a: Array, b: Array, out: Array | None = None) -> Array:
    """The products `a @ b` over broadcast leading axes: (…, n, k) @ (…, k, m) → (…, n, m)."""
    if a.ndim < 2 or b.ndim < 2:
        raise ValueError("matmul needs two axes or more; reshape a vector to a matrix first")
    return xp.matmul(a, b, out=out)


@matmul.steps
def _(xp: Any, a: Array, b: Array, out: Array) -> list[Step]:
    return [call_into(xp, "matmul", a, b, out=out)]


@matmul.rule
def _(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[Later, Later]:
    return lambda: g @ swap_last_axes(b), lambda: swap_last_axes(a) @ g


@primitive()
def _inner(xp: Any, a: Array, b: Array, out: Array | None = None, *, axes: int) -> Array:
    """The sum of the products of the elements over the last axes."""
    # One row times one column: a single pass over both, with no array of products between.
    leading = a.shape[: a.ndim - axes]
    row = a.reshape((*leading, 1, -1))
    column = b.reshape((*leading, -1, 1))
    if out is None:
        return xp.matmul(row, column).reshape(leading)
    xp.matmul(row, column, out=out.reshape((*leading, 1, 1)))
    return out


@_inner.steps
def _(xp: Any, a: Array, b: Array, out: Array, *, axes: int) -> list[Step]:
    leading = a.shape[: a.ndim - axes]
    steps: list[Step] = []
    rows = []
    for x in (a, b):
        row = x.reshape((*leading, 1, -1))
        if not shares_memory(xp, row, x):
            # Memory in another order makes the row a copy, which is to be made anew each time.
            steps.append(partial(xp.copyto, row.reshape(x.shape), x))
        rows.append(row)
    column = rows[1].swapaxes(-1, -2)
    return [*steps, call_into(xp, "matmul", rows[0], column, out=out.reshape((*leading, 1, 1)))]


@_inner.rule
def _(g: Tensor, out: Tensor, a: Tensor, b: Tensor, *, axes: int) -> tuple[Tensor, Tensor | None]:
    g = reshape(g, (*g.shape, *(1,) * axes))
    if a is b:  # a sum of squares: what both inputs have coming to them, at once
        return (g + g) * a, None
    return g * b, g * a


def inner(a: Tensor, b: Tensor, axes: int) -> Tensor:
    """Sum the products of the elements over the last `axes` axes: (…) from (…, n₁, …, nₖ).

    Raises:
        ValueError: `a` and `b` differ in shape, or have fewer axes.
    """
    if a.shape != b.shape or a.ndim < axes:
        raise ValueError(
            f"inner over {axes} axes was given {a.shape} and {b.shape}; it needs two Tensors of "
            "one shape with that many axes"
        )
    return _inner(a, b, axes=axes)

"""Matrix products."""

from __future__ import annotations

from typing import Any

from tinyleak.backend import Array
from tinyleak.ops.shape import reshape, swap_last_axes
from tinyleak.tensor import Tensor, primitive


@primitive()
def matmul(xp: Any, a: Array, b: Array, out: Array | None = None) -> Array:
    """The products `a @ b` over broadcast leading axes: (…, n, k) @ (…, k, m) → (…, n, m)."""
    if a.ndim < 2 or b.ndim < 2:
        raise ValueError("matmul needs two axes or more; reshape a vector to a matrix first")
    return xp.matmul(a, b, out=out)


@matmul.rule
def _(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return g @ swap_last_axes(b), swap_last_axes(a) @ g


def inner(a: Tensor, b: Tensor, axes: int) -> Tensor:
    """Sum the products of the elements over the last `axes` axes: (…) from (…, n₁, …, nₖ).

    As a matrix product of one row and one column it is a single pass over both.

    Raises:
        ValueError: `a` and `b` differ in shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"inner needs two Tensors of one shape, not {a.shape} and {b.shape}")
    leading = a.shape[: a.ndim - axes]
    row = reshape(a, (*leading, 1, -1))
    column = reshape(b, (*leading, -1, 1))
    return reshape(row @ column, leading)

"""Primitives that look entries up by number, and the adjoint pair that they make.

`take ⇄ scatter_add`: either one is the rule of the other. The numbers themselves have no gradient.
"""

from typing import Any, SupportsIndex

from tinyleak.backend import Array
from tinyleak.interop import as_array
from tinyleak.ops.shape import normalise_axis
from tinyleak.tensor import Tensor, primitive


@primitive(arithmetic=False)
def _take(xp: Any, x: Array, indices: Array, *, axis: int) -> Array:
    """The entries of `x` along `axis` that the whole numbers `indices` name."""
    return xp.take(x, indices, axis=axis)


@primitive(arithmetic=False)
def _scatter_add(xp: Any, x: Array, indices: Array, *, axis: int, length: int) -> Array:
    """Zeros, of `length` along `axis`, to which each entry of `x` is added where it was taken."""
    total = xp.zeros(x.shape[:axis] + (length,) + x.shape[axis + indices.ndim :], dtype=x.dtype)
    xp.add.at(total, (slice(None),) * axis + (indices,), x)
    return total


_take.rule(
    lambda g, out, x, indices, *, axis: (
        _scatter_add(g, indices, axis=axis, length=x.shape[axis]),
        None,
    )
)
_scatter_add.rule(lambda g, out, x, indices, *, axis, length: (_take(g, indices, axis=axis), None))


def take(x: Tensor, indices: Tensor | Array, axis: SupportsIndex = 0) -> Tensor:
    """Pick entries along an axis: rows of a table, for axis 0.

    Args:
        x: any shape.
        indices: whole numbers in [0, length of the axis), any shape, which replaces the axis.
        axis: the axis they index.

    Raises:
        ValueError: an index out of range, indices that are not whole numbers, or an axis that `x`
            does not have.
    """
    chosen = indices if isinstance(indices, Tensor) else Tensor(as_array(indices))
    axis = normalise_axis(axis, x.ndim)
    _check_indices(chosen, x.shape[axis])
    return _take(x, chosen, axis=axis)


def scatter_add(x: Tensor, indices: Tensor | Array, axis: SupportsIndex, length: int) -> Tensor:
    """Add the entries of `x` into zeros where `indices` says: the adjoint of `take`.

    `x` is as `take` returns it, of these whole numbers in [0, length), which index an axis of that
    length in the result. A ValueError if one is out of range, or they are not whole, or their shape
    is not that of the axes of `x` which they stand for.
    """
    chosen = indices if isinstance(indices, Tensor) else Tensor(as_array(indices))
    axis = normalise_axis(axis, x.ndim - chosen.ndim + 1)
    if x.shape[axis : axis + chosen.ndim] != chosen.shape:
        raise ValueError(
            f"scatter_add of {x.shape} along axis {axis} was given indices of shape "
            f"{chosen.shape}; they need the shape of the axes of x from there on"
        )
    _check_indices(chosen, length)
    return _scatter_add(x, chosen, axis=axis, length=length)


def _check_indices(indices: Tensor, length: int) -> None:
    values = indices.numpy()
    if values.dtype.kind not in "iu":
        raise ValueError(f"indices of dtype {values.dtype} were given; whole numbers are needed")
    if values.size and (values.min() < 0 or values.max() >= length):
        raise ValueError(
            f"indices from {values.min()} to {values.max()} were given for an axis of length "
            f"{length}; they must lie in [0, {length})"
        )

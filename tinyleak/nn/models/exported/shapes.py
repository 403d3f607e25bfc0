"""PyTorch's operations that move numbers and never change them, and constants, by their names."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyleak import nn, ops
from tinyleak.backend import Array, to_numpy
from tinyleak.nn.models.exported.values import Ints, Value, require_room
from tinyleak.tensor import Tensor

KINDS = {**dict.fromkeys((1, 2, 3, 4, 5), "i"), **dict.fromkeys((7, 8), "f"), 12: "b"}
"""NumPy's kind of number by PyTorch's number of a dtype, …"""

HALVES = (6, 13)  # … and those of 16 bits


def same(**arguments: Any) -> Tensor:
    """Return the first input: dropout without its mask, a copy, another dtype."""
    x: Value = arguments.get("self") or arguments["input"]
    return x.tensor


def _held(self: Value) -> Tensor:
    """Return a constant as it is; what is cut off from a gradient is refused."""
    if self.tensor.primitive is not None:
        raise ValueError("a gradient that stops inside of a network is not known here")
    return self.tensor


def _view(self: Value, size: Ints = (), shape: Ints = ()) -> Tensor:
    full, total = list(size or shape), math.prod(self.shape)
    if -1 in full:
        full[full.index(-1)] = total // max(1, -math.prod(full))
    return self.reshaped(tuple(full))


def _flatten(self: Value, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    start, end = self.axis(start_dim), self.axis(end_dim)
    inside = self.shape[start : end + 1 or None]
    return self.reshaped(
        (*self.shape[:start], math.prod(inside), *self.shape[end + 1 or self.rank :])
    )


def _unflatten(self: Value, dim: int, sizes: Ints) -> Tensor:
    axis = self.axis(dim) + self.rank
    return _view(self, (*self.shape[:axis], *sizes, *self.shape[axis + 1 :]))


def _permute(self: Value, dims: Ints) -> Tensor:
    return ops.transpose(self.tensor, [self.axis(axis) + self.rank for axis in dims])


def _transpose(self: Value, dim0: int = 0, dim1: int = 1, **named: int) -> Tensor:
    order = list(range(self.rank))
    one, other = self.axis(named.get("axis0", dim0)), self.axis(named.get("axis1", dim1))
    order[one], order[other] = order[other], order[one]
    return ops.transpose(self.tensor, order)


def _unsqueeze(self: Value, dim: int) -> Tensor:
    at = self.axis(dim, new=1) + self.rank + 1
    return self.reshaped((*self.shape[:at], 1, *self.shape[at:]))


def _squeeze(self: Value, dim: int | Ints | None = None) -> Tensor:
    axes = range(self.rank) if dim is None else (dim,) if isinstance(dim, int) else dim
    gone = {self.axis(axis) + self.rank for axis in axes}
    kept = [n for axis, n in enumerate(self.shape) if n != 1 or axis not in gone]
    return self.reshaped(tuple(kept))


def part(x: Value, axis: int, key: Any) -> Tensor:
    """Return what `key` picks along an axis that the graph knows."""
    return x.tensor[(..., key, *(slice(None),) * (-x.axis(axis) - 1))]


def _select(self: Value, dim: int, index: int) -> Tensor:
    return part(self, dim, index)


def _cut(
    self: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    return part(self, dim, slice(start, end, step))


def _narrow(self: Value, dim: int, start: int, length: int) -> Tensor:
    start = start % self.shape[self.axis(dim)]
    return part(self, dim, slice(start, start + length))


def _expand(self: Value, size: Ints) -> Tensor:
    shape = (*(1,) * (len(size) - self.rank), *self.shape)
    full = [m if n == -1 else n for n, m in zip(size, shape, strict=True)]
    return ops.broadcast_to(self.lifted(len(size)), shape=(*self.lead, *full))


def _cat(tensors: Sequence[Value], dim: int = 0) -> Tensor:
    rank, axis = tensors[0].rank, tensors[0].axis(dim)
    lead = np.broadcast_shapes(*(one.lead for one in tensors))
    full = [ops.broadcast_to(one.tensor, shape=(*lead, *one.shape)) for one in tensors]
    if any(one.rank != rank for one in tensors):
        raise ValueError("arrays of different numbers of axes are to be joined")
    return ops.concatenate(full, axis)


def _stack(tensors: Sequence[Value], dim: int = 0) -> Tensor:
    return _cat([Value(_unsqueeze(one, dim), one.rank + 1) for one in tensors], dim)


def _split(
    self: Value, split_size: int | Ints = 1, dim: int = 0, split_sizes: Ints = ()
) -> tuple[Tensor, ...]:
    axis, sizes = self.axis(dim), split_sizes or split_size
    if isinstance(sizes, int):
        length = self.shape[axis]
        sizes = tuple([min(sizes, length - start) for start in range(0, length, sizes)])
    return ops.split(self.tensor, sizes, axis)


def _chunk(self: Value, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    return _split(self, -(-self.shape[self.axis(dim)] // chunks), dim)


def _unbind(self: Value, dim: int = 0) -> tuple[Tensor, ...]:
    return tuple([_select(self, dim, n) for n in range(self.shape[self.axis(dim)])])


def _convert(self: Value, dtype: int | None = None, **_: Any) -> Tensor:
    """Return it as another kind of number; floating point is always in the input's dtype."""
    if dtype in HALVES:
        raise ValueError("16 bits of floating point inside of a network are not known here")
    kind, wanted = self.tensor.dtype.kind, KINDS.get(dtype or 0)
    if wanted is None or wanted == kind:
        return self.tensor
    if wanted == "b":
        return self.tensor != 0
    if self.tensor.primitive is not None:
        if kind == "f":
            why = "numbers that depend on others are to be rounded, which has no gradient"
            raise ValueError(why)
        return self.tensor  # a mask, which arithmetic takes for 1 and 0
    return Tensor(self.tensor._array.astype({"i": "int64", "f": "float64"}[wanted]))


def triangle(kept: Callable[..., Array]) -> Callable[..., Tensor]:
    """Make an operation that keeps what NumPy's `tril` or `triu` keeps of each matrix."""

    def operation(self: Value, diagonal: int = 0) -> Tensor:
        mask = kept(np.ones(self.shape[-2:], bool), diagonal)
        return ops.where(Tensor(mask), self.tensor, False)

    return operation


def filled(number: float) -> Callable[..., Tensor]:
    """Make an operation that returns an array of one number."""

    def operation(**arguments: Any) -> Tensor:
        like = arguments.get("self")
        shape = arguments.get("size")
        shape = like.shape if shape is None and like is not None else shape
        require_room(*(shape or ()))
        return Tensor(np.full(shape or (), float(arguments.get("fill_value", number))))

    return operation


def _arange(end: float, start: float = 0, step: float = 1, **_: Any) -> Tensor:
    require_room(int((end - start) / step))
    return Tensor(np.arange(start, end, step))


def _linspace(start: float, end: float, steps: int, **_: Any) -> Tensor:
    require_room(steps)
    return Tensor(np.linspace(start, end, steps))


def _eye(n: int, m: int | None = None, **_: Any) -> Tensor:
    require_room(n, n if m is None else m)
    return Tensor(np.eye(n, m))


def _embedding(
    weight: Value, indices: Value, padding_idx: int = -1, scale_grad_by_freq: bool = False, **_: Any
) -> Tensor:
    if scale_grad_by_freq:
        raise ValueError("a gradient that is divided by how often a row is looked up is not known")
    if (to_numpy(indices.tensor._array) == padding_idx).any():
        raise ValueError(
            f"row {padding_idx}, which is looked up, has no gradient, which is not known here"
        )
    return nn.embedding(weight.weight, indices.tensor)


SHAPES: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "clone", "contiguous"), same),
    **{"alias": same, "detach": _held, "lift_fresh_copy": same},
    **{"to": _convert, "_to_copy": _convert},
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _view),
    **dict.fromkeys(("view_as", "reshape_as"), lambda self, other: self.reshaped(other.shape)),
    **{"flatten": _flatten, "ravel": _flatten, "unflatten": _unflatten},
    **{"unsqueeze": _unsqueeze, "squeeze": _squeeze, "permute": _permute},
    **dict.fromkeys(("transpose", "t", "swapaxes", "swapdims"), _transpose),
    "mT": lambda self: _transpose(self, -2, -1),
    **{"select": _select, "slice": _cut, "narrow": _narrow},
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    **{"chunk": _chunk, "unbind": _unbind},
    **{"expand": _expand, "broadcast_to": _expand},
    "expand_as": lambda self, other: _expand(self, other.shape),
    **dict.fromkeys(("cat", "concat"), _cat),
    "hstack": lambda tensors: _cat(tensors, min(1, tensors[0].rank - 1)),
    "stack": _stack,
    "embedding": _embedding,
    **{"tril": triangle(np.tril), "triu": triangle(np.triu)},
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros", "full", "full_like"), filled(0.0)),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), filled(1.0)),
    **{"arange": _arange, "linspace": _linspace, "eye": _eye},
}
"""By PyTorch's name."""

VIEWS = {"view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "unsqueeze"}
VIEWS |= {"squeeze", "select", "slice", "expand", "split", "split_with_sizes", "chunk", "unbind"}
VIEWS |= {"alias", "detach", "contiguous", "dropout", "to", "broadcast_to", "narrow", "ravel"}
VIEWS |= {"view_as", "reshape_as", "swapaxes", "swapdims", "mT", "movedim", "diagonal", "unfold"}
VIEWS |= {"expand_as"}
"""Those whose result may look at the memory of their input."""

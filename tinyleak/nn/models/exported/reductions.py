"""PyTorch's sums, extremes, norms and products over axes, by the names in an exported graph."""

import math
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from tinyleak import nn, ops
from tinyleak.backend import array_module
from tinyleak.nn.models.exported.elementwise import absolute, aligned, along, binary
from tinyleak.nn.models.exported.shapes import part
from tinyleak.nn.models.exported.values import Value, require_room
from tinyleak.tensor import Tensor

Axes: TypeAlias = "int | tuple[int, ...] | None"


def reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make an operation of a function that takes axes and `keepdims`."""

    def operation(
        self: Value, dim: Axes = None, keepdim: bool = False, dtype: Any = None, **settings: Any
    ) -> Tensor:
        axes = (dim,) if isinstance(dim, int) else dim or tuple(range(self.rank))
        counted = tuple([self.axis(axis) for axis in axes])
        return function(self.tensor, counted, keepdims=keepdim, **settings)

    return operation


def root(x: Tensor) -> Tensor:
    """Return `√x`; at 0 its derivatives are taken to be 0, as PyTorch does in its norms."""
    zero = x == 0.0
    return ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, x)))


def norm(x: Tensor, axes: Any, *, keepdims: bool = False, ord: float = 2.0) -> Tensor:
    """Return (Σ|x|ᵖ)^(1/p) over axes, for p = `ord` from 1 to infinity."""
    if ord == 2:
        return root(ops.sum(x * x, axes, keepdims=keepdims))
    if ord == 1:
        return ops.sum(absolute(x), axes, keepdims=keepdims)
    if ord == math.inf:
        return ops.max(absolute(x), axes, keepdims=keepdims)
    if ord < 1:
        raise ValueError(f"the norm of order {ord} is not known here")
    total = ops.sum(ops.power(root(x * x), ord), axes, keepdims=keepdims)
    zero = total == 0.0
    return ops.where(zero, 0.0, ops.power(ops.where(zero, 1.0, total), 1.0 / ord))


def variance(
    x: Tensor,
    axes: Any,
    *,
    keepdims: bool = False,
    unbiased: bool = True,
    correction: float | None = None,
) -> Tensor:
    """Return Σ(x − mean)² / (n − c) over axes; c is the correction, or 1 where it is unbiased."""
    taken_off = float(unbiased) if correction is None else correction
    count = math.prod(x.shape[axis] for axis in axes) - taken_off
    if count <= 0:
        raise ValueError(f"a variance of {count + taken_off:g} numbers is not told")
    apart = x - ops.mean(x, axes, keepdims=True)
    return ops.sum(apart * apart, axes, keepdims=keepdims) * (1.0 / count)


def deviation(x: Tensor, axes: Any, **settings: Any) -> Tensor:
    """Return the standard deviation over axes."""
    return root(variance(x, axes, **settings))


def logsumexp(x: Tensor, axes: Any, *, keepdims: bool) -> Tensor:
    """Return `log Σ eˣ` over axes."""
    return ops.sum(ops.logsumexp(x, axes), () if keepdims else axes)


def _with_mean(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Make an operation that returns the mean beside what it computes."""

    def operation(**arguments: Any) -> tuple[Tensor, Tensor]:
        plain = {name: arguments[name] for name in ("self", "dim", "keepdim") if name in arguments}
        return reduction(function)(**arguments), reduction(ops.mean)(**plain)

    return operation


def extreme(sign: float) -> Callable[..., Tensor]:
    """Make the largest, or with −1 the smallest: of all, along an axis, or of two arrays.

    Where an axis is named the first of several has the gradient; else all share it.
    """

    def largest(self: Value, dim: Axes = None, keepdim: bool = False, other: Any = None) -> Tensor:
        x = Value(self.tensor * sign, self.rank)
        if other is not None:
            return binary(ops.maximum)(x, Value(other.tensor * sign, other.rank)) * sign
        if not isinstance(dim, int):
            return reduction(ops.max)(x, dim, keepdim) * sign
        found = Value(along(_first_largest)(x, dim), self.rank)
        return (found.tensor if keepdim else part(found, dim, 0)) * sign

    return largest


def _first_largest(x: Tensor) -> Tensor:
    """Return the largest along the last axis, which is kept with length 1."""
    rows = ops.reshape(x, (math.prod(x.shape[:-1]), 1, 1, x.shape[-1]))
    return ops.reshape(nn.max_pool2d(rows, (1, x.shape[-1])), (*x.shape[:-1], 1))


def _total_so_far(x: Tensor) -> Tensor:
    triangle = np.tri(x.shape[-1], dtype=x.dtype).T
    return x @ Tensor(array_module(x._array).asarray(triangle))


def normalised(x: Tensor, axis: int, eps: float) -> Tensor:
    """Return x over its length along an axis, which is taken to be `eps` or more."""
    return x / ops.maximum(norm(x, (axis,), keepdims=True), eps)


def cosine(x1: Value, x2: Value, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Return the cosine of the angles between two arrays of vectors along an axis."""
    rank = max(x1.rank, x2.rank)
    axis = Value(x1.lifted(rank), rank).axis(dim)
    first, second = (normalised(x, axis, eps) for x in aligned(x1, x2))
    return ops.sum(first * second, (axis,))


def distances(x1: Value, x2: Value, p: float = 2.0, **_: Any) -> Tensor:
    """Return the distance of each row of one matrix from each of another."""
    require_room(*x1.shape, x2.shape[-2])
    a = x1.reshaped((*x1.shape[:-1], 1, x1.shape[-1]))
    b = x2.reshaped((*x2.shape[:-2], 1, *x2.shape[-2:]))
    return norm(a - b, (-1,), ord=p)


def einsum(equation: str, tensors: tuple[Value, ...], **_: Any) -> Tensor:
    """Return a sum of products, as a product of matrices wherever two arrays meet."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    names = inputs.split(",")
    fit = len(names) == len(tensors)
    if not arrow or not fit or any(len({*n}) != len(n) or "." in n for n in names):
        raise ValueError(f"the sum {equation!r} is not known here")
    pairs = list(zip(names, tensors, strict=True))
    found, letters = pairs[0][1], pairs[0][0]
    for number, (others, value) in enumerate(pairs[1:], start=2):
        kept = {*output, *chain(*names[number:])}
        found, letters = _contract(found, letters, value, others, kept)
    gone = tuple([n - len(letters) for n, letter in enumerate(letters) if letter not in output])
    total = ops.sum(found.tensor, gone) if gone else found.tensor
    left = [letter for letter in letters if letter in output]
    return ops.transpose(total, [left.index(letter) for letter in output])


def _contract(
    x: Value, x_letters: str, y: Value, y_letters: str, kept: set[str]
) -> tuple[Value, str]:
    """Return the sum over the letters that two arrays share and nothing else has."""
    sizes = dict(zip(x_letters, x.shape, strict=True)) | dict(zip(y_letters, y.shape, strict=True))
    both = [c for c in x_letters if c in y_letters]
    batch, summed = [c for c in both if c in kept], [c for c in both if c not in kept]
    rows = [c for c in x_letters if c not in both]
    columns = [c for c in y_letters if c not in both]

    def matrix(value: Value, letters: str, order: list[str], shape: list[list[str]]) -> Tensor:
        turned = Value(ops.transpose(value.tensor, [letters.index(c) for c in order]), value.rank)
        each = [math.prod(sizes[c] for c in part) for part in shape]
        return turned.reshaped((*[sizes[c] for c in batch], *each))

    left = matrix(x, x_letters, [*batch, *rows, *summed], [rows, summed])
    right = matrix(y, y_letters, [*batch, *summed, *columns], [summed, columns])
    product = Value(ops.matmul(left, right), len(batch) + 2)
    letters = "".join([*batch, *rows, *columns])
    return Value(product.reshaped(tuple([sizes[c] for c in letters])), len(letters)), letters


REDUCTIONS: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "mean": reduction(ops.mean),
    "sum": reduction(ops.sum),
    "amax": reduction(ops.max),
    "amin": reduction(lambda x, axes, keepdims: -ops.max(-x, axes, keepdims=keepdims)),
    "max": extreme(1.0),
    "min": extreme(-1.0),
    "logsumexp": reduction(logsumexp),
    "linalg_vector_norm": reduction(norm),
    "var": reduction(variance),
    "std": reduction(deviation),
    "var_mean": _with_mean(variance),
    "std_mean": _with_mean(deviation),
    "cumsum": along(_total_so_far),
    "softmax": along(nn.softmax),
    "log_softmax": along(nn.log_softmax),
    "cosine_similarity": cosine,
    "cdist": distances,
    "einsum": einsum,
}
"""By PyTorch's name."""

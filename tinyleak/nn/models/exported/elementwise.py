"""PyTorch's elementwise functions, sums and comparisons, by the names in an exported graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tinyleak import nn, ops
from tinyleak.nn import activations
from tinyleak.nn.models.exported.values import Value
from tinyleak.tensor import Tensor

Number: TypeAlias = "int | float"
Operation: TypeAlias = Callable[..., Tensor]


def unary(function: Callable[..., Tensor], **names: str) -> Operation:
    """Make an operation of a function of one Tensor, its settings renamed from PyTorch's."""

    def operation(**arguments: Any) -> Tensor:
        x = arguments.pop("self", None) or arguments.pop("input")
        settings = {names[name]: value for name, value in arguments.items() if value is not None}
        return function(x.tensor, **settings)

    return operation


def binary(function: Callable[[Any, Any], Tensor], *, reflected: bool = False) -> Operation:
    """Make an operation of a function of two Tensors, or of one and a number."""

    def operation(self: Value, other: Value | Number, alpha: Number = 1) -> Tensor:
        x, y = aligned(self, other)
        y = y if alpha == 1 else y * alpha
        return function(y, x) if reflected else function(x, y)

    return operation


def aligned(*values: Value | Number) -> list[Any]:
    """Return Tensors of equally many axes that the graph knows, and numbers as they are."""
    rank = max(value.rank for value in values if isinstance(value, Value))
    return [value.lifted(rank) if isinstance(value, Value) else value for value in values]


def reduction(function: Callable[..., Tensor]) -> Operation:
    """Make an operation of a function that takes axes and `keepdims`."""

    def operation(
        self: Value, dim: int | tuple[int, ...] = (), keepdim: bool = False, dtype: Any = None
    ) -> Tensor:
        axes = (dim,) if isinstance(dim, int) else dim
        axes = axes or tuple(range(self.rank))
        return function(self.tensor, tuple([self.axis(axis) for axis in axes]), keepdims=keepdim)

    return operation


def along(function: Callable[[Tensor], Tensor]) -> Operation:
    """Make an operation of a function along the last axis."""

    def operation(self: Value, dim: int = -1, dtype: Any = None) -> Tensor:
        axis = self.axis(dim)
        order = [n for n in range(-self.rank, 0) if n != axis] + [axis]
        swapped = [n + self.rank for n in order]
        back = sorted(range(self.rank), key=swapped.__getitem__)
        return ops.transpose(function(ops.transpose(self.tensor, swapped)), back)

    return operation


def softplus(x: Tensor, beta: Number = 1, threshold: Number = 20) -> Tensor:
    """Return `log(1 + e^(βx)) / β`; above its threshold PyTorch's is x, which differs by 2e-9."""
    scaled = x * beta
    return ops.where(scaled > threshold, x, ops.softplus(scaled) * (1.0 / beta))


def elu(x: Tensor, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> Tensor:
    """Return `scale · elu(x)`, whose negative part is of `input_scale · x`."""
    if input_scale != 1:
        raise ValueError("an input scale is not known here")
    return activations.elu(x, alpha) * scale


def clamp(x: Tensor, lowest: Number = -np.inf, highest: Number = np.inf) -> Tensor:
    """Return x held between two numbers, one of which may be missing."""
    return ops.clip(x, lowest, highest)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Return gelu, exactly or by tanh."""
    return activations.gelu(x) if approximate == "none" else activations.gelu_tanh(x)


def absolute(x: Tensor) -> Tensor:
    """Return |x|."""
    return x * ops.where(x > 0.0, 1.0, -1.0)


def prelu(self: Value, weight: Value) -> Tensor:
    """Return x where it is positive, else x times a slope that is learnt, one for each channel."""
    slopes = weight
    if self.rank > 1 and weight.shape != (1,):
        slopes = Value(weight.reshaped((-1, *(1,) * (self.rank - 2))), self.rank - 1)
    x, slope = aligned(self, slopes)
    return ops.relu(x) - ops.relu(-x) * slope


def choose(condition: Value, self: Value | Number, other: Value | Number) -> Tensor:
    """Return one where a condition is true, else the other."""
    return ops.where(*aligned(condition, self, other))


def masked_fill(self: Value, mask: Value, value: Value | Number) -> Tensor:
    """Return a number where a mask is true."""
    x, where, filling = aligned(self, mask, value)
    return ops.where(where, filling, x)


def power(self: Value, exponent: Number | Value) -> Tensor:
    """Return a power."""
    x, by = aligned(self, exponent)
    return ops.power(x, by)


def divide(self: Value, other: Value | Number, rounding_mode: str | None = None) -> Tensor:
    """Return a quotient that is not rounded."""
    if rounding_mode is not None:
        raise ValueError("division that rounds is not known here")
    x, y = aligned(self, other)
    return ops.divide(x, y)


def glu(self: Value, dim: int = -1) -> Tensor:
    """Return the first half of an axis times the sigmoid of the second."""
    return activations.glu(self.tensor, self.axis(dim))


def matmul(self: Value, other: Value | None = None, mat2: Value | None = None) -> Tensor:
    """Return a product of matrices, or of many."""
    second = other or mat2
    assert second is not None, "one of the two is given"
    if min(self.rank, second.rank) < 2:
        raise ValueError("a product with a vector is not known here")
    x, y = aligned(self, second)
    return ops.matmul(x, y)


def add_product(self: Value, beta: Number = 1, alpha: Number = 1, **factors: Value) -> Tensor:
    """Return `beta · self + alpha · (a product)`."""
    first, second = factors.values()
    product = Value(matmul(first, second) * alpha, max(first.rank, second.rank))
    x, y = aligned(self, product)
    return x * beta + y


ELEMENTWISE: dict[str, Operation] = {
    **{name: unary(getattr(ops, name)) for name in ("relu", "sigmoid", "tanh", "exp", "log")},
    **{name: unary(getattr(ops, name)) for name in ("sqrt", "erf")},
    **{
        name: unary(getattr(activations, name))
        for name in ("selu", "silu", "mish", "relu6", "hardswish", "hardsigmoid")
    },
    "neg": unary(ops.negate),
    "abs": unary(absolute),
    "rsqrt": unary(lambda x: 1.0 / ops.sqrt(x)),
    "reciprocal": unary(lambda x: 1.0 / x),
    "square": unary(lambda x: x * x),
    "log_sigmoid": unary(lambda x: -ops.softplus(-x)),
    "softsign": unary(lambda x: x / (1.0 + absolute(x))),
    "softplus": unary(softplus, beta="beta", threshold="threshold"),
    "elu": unary(elu, alpha="alpha", scale="scale", input_scale="input_scale"),
    "celu": unary(lambda x, a=1.0: activations.elu(x / a, 1.0) * a, alpha="a"),
    "leaky_relu": unary(activations.leaky_relu, negative_slope="slope"),
    "hardtanh": unary(activations.hardtanh, min_val="lowest", max_val="highest"),
    "clamp": unary(clamp, min="lowest", max="highest"),
    "gelu": unary(gelu, approximate="approximate"),
    "prelu": prelu,
    "glu": glu,
    "add": binary(ops.add),
    "sub": binary(ops.subtract),
    "rsub": binary(ops.subtract, reflected=True),
    "mul": binary(ops.multiply),
    "div": divide,
    "maximum": binary(ops.maximum),
    "minimum": binary(lambda x, y: -ops.maximum(-x, -y)),
    **{"gt": binary(ops.greater), "ge": binary(ops.greater_equal), "lt": binary(ops.less)},
    **{"le": binary(ops.less_equal), "eq": binary(ops.equal), "ne": binary(ops.not_equal)},
    "pow": power,
    "where": choose,
    "masked_fill": masked_fill,
    **dict.fromkeys(("matmul", "mm", "bmm"), matmul),
    **dict.fromkeys(("addmm", "baddbmm"), add_product),
    "mean": reduction(ops.mean),
    "sum": reduction(ops.sum),
    "amax": reduction(ops.max),
    "softmax": along(nn.softmax),
    "log_softmax": along(nn.log_softmax),
}
"""By PyTorch's name."""

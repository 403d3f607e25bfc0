"""PyTorch's elementwise functions, sums and comparisons, by the names in an exported graph."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tinyleak import ops
from tinyleak.nn import activations
from tinyleak.nn.models.exported.values import Value
from tinyleak.tensor import Tensor

Number: TypeAlias = int | float
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


def rrelu(
    self: Value, lower: Number = 1 / 8, upper: Number = 1 / 3, training: bool = False
) -> Tensor:
    """Return leaky relu with a slope between two, as when nothing is drawn at random."""
    if training:
        raise ValueError("slopes that are drawn at random are not known here")
    return activations.leaky_relu(self.tensor, 0.5 * (lower + upper))


def prelu(self: Value, weight: Value) -> Tensor:
    """Return x where it is positive, else x times a slope that is learnt, one for each channel."""
    slopes = weight
    if self.rank > 1 and weight.shape != (1,):
        slopes = Value(weight.reshaped((-1, *(1,) * (self.rank - 2))), self.rank - 1)
    x, slope = aligned(self, slopes)
    return ops.relu(x) - ops.relu(-x) * slope


def masked_fill(self: Value, mask: Value, value: Value | Number) -> Tensor:
    """Return a number where a mask is true."""
    x, where, filling = aligned(self, mask, value)
    return ops.where(where, filling, x)


def power(self: Value | Number, exponent: Number | Value) -> Tensor:
    """Return a power."""
    x, by = aligned(self, exponent)
    if not isinstance(x, Tensor):
        return ops.exp(by * math.log(x))
    return ops.power(x, by)


def divide(self: Value, other: Value | Number, rounding_mode: str | None = None) -> Tensor:
    """Return a quotient that is not rounded."""
    if rounding_mode is not None:
        raise ValueError("division that rounds is not known here")
    x, y = aligned(self, other)
    return ops.divide(x, y)


def plus(function: Operation) -> Operation:
    """Make an operation that adds a multiple of what two others make."""

    def operation(self: Value, tensor1: Value, tensor2: Value, value: Number = 1) -> Tensor:
        x, y, z = aligned(self, tensor1, tensor2)
        return x + function(y, z) * value

    return operation


def between(self: Value, end: Value, weight: Value | Number) -> Tensor:
    """Return what lies between two arrays: the first where the weight is 0, the second at 1."""
    x, y, share = aligned(self, end, weight)
    return x + (y - x) * share


def matmul(self: Value, **other: Value) -> Tensor:
    """Return a product of matrices, or of many, or with vectors."""
    (second,) = other.values()
    row, column = self.rank == 1, second.rank == 1
    left = Value(self.lifted(2), 2) if row else self
    right = Value(second.reshaped((*second.shape, 1)), 2) if column else second
    x, y = aligned(left, right)
    product = ops.matmul(x, y)
    gone = (-2,) * row + (-1,) * column
    return ops.sum(product, gone) if gone else product


def add_product(self: Value, beta: Number = 1, alpha: Number = 1, **factors: Value) -> Tensor:
    """Return `beta · self + alpha · (a product)`."""
    first, second = factors.values()
    product = Value(matmul(first, other=second) * alpha, max(first.rank, second.rank))
    x, y = aligned(self, product)
    return x * beta + y


ELEMENTWISE: dict[str, Operation] = {
    **{name: unary(getattr(ops, name)) for name in ("relu", "sigmoid", "tanh", "exp", "log")},
    **{name: unary(getattr(ops, name)) for name in ("sqrt", "erf", "sin", "cos")},
    **{
        name: unary(getattr(activations, name))
        for name in ("selu", "silu", "mish", "relu6", "hardswish", "hardsigmoid")
    },
    "neg": unary(ops.negate),
    "abs": unary(absolute),
    "rsqrt": unary(lambda x: 1.0 / ops.sqrt(x)),
    "reciprocal": unary(lambda x: 1.0 / x),
    "square": unary(lambda x: x * x),
    "log1p": unary(lambda x: ops.log(1.0 + x)),
    "expm1": unary(lambda x: ops.exp(x) - 1.0),
    "log2": unary(lambda x: ops.log(x) * (1.0 / math.log(2.0))),
    "log10": unary(lambda x: ops.log(x) * (1.0 / math.log(10.0))),
    "sign": unary(lambda x: ops.where(x > 0.0, 1.0, ops.where(x < 0.0, -1.0, 0.0))),
    "hardshrink": unary(lambda x, at=0.5: ops.where(absolute(x) > at, x, 0.0), lambd="at"),
    "softshrink": unary(lambda x, at=0.5: x - clamp(x, -at, at), lambd="at"),
    "threshold": unary(
        lambda x, at, below: ops.where(x > at, x, below), threshold="at", value="below"
    ),
    "log_sigmoid": unary(lambda x: -ops.softplus(-x)),
    "softsign": unary(lambda x: x / (1.0 + absolute(x))),
    "softplus": unary(softplus, beta="beta", threshold="threshold"),
    "elu": unary(elu, alpha="alpha", scale="scale", input_scale="input_scale"),
    "celu": unary(lambda x, a=1.0: activations.elu(x / a, 1.0) * a, alpha="a"),
    "leaky_relu": unary(activations.leaky_relu, negative_slope="slope"),
    "hardtanh": unary(activations.hardtanh, min_val="lowest", max_val="highest"),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), unary(clamp, min="lowest", max="highest")),
    "gelu": unary(gelu, approximate="approximate"),
    "prelu": prelu,
    "rrelu": rrelu,
    "glu": lambda self, dim=-1: activations.glu(self.tensor, self.axis(dim)),
    "add": binary(ops.add),
    "sub": binary(ops.subtract),
    "rsub": binary(ops.subtract, reflected=True),
    "mul": binary(ops.multiply),
    "div": divide,
    **{"addcmul": plus(ops.multiply), "addcdiv": plus(ops.divide), "lerp": between},
    "maximum": binary(ops.maximum),
    "minimum": binary(lambda x, y: -ops.maximum(-x, -y)),
    **{"gt": binary(ops.greater), "ge": binary(ops.greater_equal), "lt": binary(ops.less)},
    **{"le": binary(ops.less_equal), "eq": binary(ops.equal), "ne": binary(ops.not_equal)},
    **dict.fromkeys(
        ("logical_and", "bitwise_and", "__and__"), binary(lambda x, y: ops.where(x, y, False))
    ),
    **dict.fromkeys(
        ("logical_or", "bitwise_or", "__or__"), binary(lambda x, y: ops.where(x, True, y))
    ),
    **dict.fromkeys(("logical_not", "bitwise_not"), unary(lambda x: ops.equal(x, False))),
    "pow": power,
    "where": lambda condition, self, other: ops.where(*aligned(condition, self, other)),
    "masked_fill": masked_fill,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot"), matmul),
    **dict.fromkeys(("addmm", "baddbmm"), add_product),
}
"""By PyTorch's name."""

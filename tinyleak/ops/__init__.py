"""The primitives, one family a file; each is a forward function and a rule."""

from tinyleak.ops.elementwise import (
    add,
    divide,
    equal,
    exp,
    floating,
    greater,
    greater_equal,
    log,
    maximum,
    multiply,
    negate,
    not_equal,
    relu,
    sigmoid,
    sqrt,
    stop_gradient,
    subtract,
    tanh,
    where,
)
from tinyleak.ops.gather import scatter_add, take
from tinyleak.ops.indexing import crop, index, pad, stack
from tinyleak.ops.linalg import inner, matmul
from tinyleak.ops.reduce import broadcast_to, max, mean, sum, sum_to
from tinyleak.ops.shape import (
    concatenate,
    crop_to,
    pad_to,
    reshape,
    split,
    swap_last_axes,
    transpose,
)
from tinyleak.ops.special import erf, less, less_equal, logsumexp, power, softplus
from tinyleak.ops.window import fold, unfold
from tinyleak.tensor import OPERATIONS

__all__ = [
    "add",
    "broadcast_to",
    "concatenate",
    "crop",
    "crop_to",
    "divide",
    "equal",
    "erf",
    "exp",
    "floating",
    "fold",
    "greater",
    "greater_equal",
    "index",
    "inner",
    "less",
    "less_equal",
    "log",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "mean",
    "multiply",
    "negate",
    "not_equal",
    "pad",
    "pad_to",
    "power",
    "relu",
    "reshape",
    "scatter_add",
    "sigmoid",
    "softplus",
    "split",
    "sqrt",
    "stack",
    "stop_gradient",
    "subtract",
    "sum",
    "sum_to",
    "swap_last_axes",
    "take",
    "tanh",
    "transpose",
    "unfold",
    "where",
]

OPERATIONS.update({name: globals()[name] for name in __all__})

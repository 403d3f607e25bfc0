"""The primitives, one family a file; each is a forward function and a rule."""

from tinyleak.ops import dtypes, methods
from tinyleak.ops.choice import (
    clip,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    max,
    maximum,
    not_equal,
    relu,
    where,
)
from tinyleak.ops.dtypes import floating
from tinyleak.ops.elementwise import (
    add,
    divide,
    exp,
    log,
    multiply,
    negate,
    sigmoid,
    sqrt,
    stop_gradient,
    subtract,
    tanh,
)
from tinyleak.ops.gather import scatter_add, take
from tinyleak.ops.indexing import concatenate, crop, crop_to, index, pad, pad_to, split, stack
from tinyleak.ops.linalg import inner, matmul
from tinyleak.ops.reduce import broadcast_to, sum, sum_to
from tinyleak.ops.shape import reshape, swap_last_axes, transpose
from tinyleak.ops.special import cos, erf, logsumexp, mean, power, sin, softplus
from tinyleak.ops.window import fold, unfold
from tinyleak.ops.winners import largest_of_windows
from tinyleak.tensor import OPERATIONS

__all__ = [
    "add",
    "broadcast_to",
    "clip",
    "concatenate",
    "cos",
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
    "largest_of_windows",
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
    "sin",
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
OPERATIONS.update(
    methods.METHODS,
    as_floating=dtypes.as_floating,
    require_one_dtype=dtypes.require_one_dtype,
)

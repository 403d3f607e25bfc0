"""What a Tensor does besides the operators, and what it answers NumPy.

The methods of `Tensor` find these in `tinyleak.tensor.OPERATIONS`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyleak.ops.choice import equal
from tinyleak.ops.shape import reshape, transpose
from tinyleak.tensor import OPERATIONS, Tensor


def answer_ufunc(x: Tensor, function: Any, method: str, *inputs: Any, **settings: Any) -> Tensor:
    """Answer for NumPy, which Python asks first in `array * tensor`; refuse all but operators."""
    operation = OPERATIONS.get(function.__name__)
    if operation and function.nin == 2 and method == "__call__" and not settings:
        return operation(*inputs)
    return refuse_function(x, function)


def refuse_function(x: Tensor, function: Any, *details: Any) -> Tensor:
    """Refuse what NumPy was asked to compute: its result would have no graph behind it.

    The TypeError names the operation to use instead.
    """
    ours = {"negative": "negate", "amax": "max"}.get(function.__name__, function.__name__)
    raise TypeError(
        f"np.{function.__name__} was given a Tensor, which it cannot differentiate; use "
        + (f"tinyleak.ops.{ours}" if ours in OPERATIONS else "tinyleak.ops, or its .data")
    )


METHODS: dict[str, Callable[..., Any]] = {
    "reverse_axes": lambda x: transpose(x, range(x.ndim)[::-1]),
    # The lengths may be given one by one.
    "reshape_to": lambda x, *shape: reshape(x, shape[0] if len(shape) == 1 else shape),
    "length": lambda x: len(x._array),
    "as_float": lambda x: float(x.numpy().item()),
    "as_bool": lambda x: bool(x.numpy()),
    "contains": lambda x, value: bool(equal(x, value).numpy().any()),
    # As `np.asarray(tensor)` asks for them.
    "numbers": lambda x, dtype=None, copy=None: np.array(x.numpy(), dtype=dtype, copy=copy),
    "answer_ufunc": answer_ufunc,
    "refuse_function": refuse_function,
}
"""By the name under which a method of `Tensor` looks it up."""

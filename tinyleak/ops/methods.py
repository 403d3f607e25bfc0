"""What a Tensor does besides the operators, and what it answers NumPy.

The methods of `Tensor` find these in `tinyleak.tensor.OPERATIONS`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.ops.choice import equal
from tinyleak.ops.shape import reshape, transpose
from tinyleak.tensor import OPERATIONS, Tensor, TensorLike


def reverse_axes(x: Tensor) -> Tensor:
    """Return the same with all axes in reverse order."""
    return transpose(x, range(x.ndim)[::-1])


def reshape_to(x: Tensor, *shape: Any) -> Tensor:
    """Return `ops.reshape(x, shape)`; the lengths may be given one by one."""
    return reshape(x, shape[0] if len(shape) == 1 else shape)


def length(x: Tensor) -> int:
    """Return the length of the first axis."""
    return len(x._array)


def as_float(x: Tensor) -> float:
    """Return the only element as a number."""
    return float(x.numpy().item())


def as_bool(x: Tensor) -> bool:
    """Return whether the only element is other than 0."""
    return bool(x.numpy())


def contains(x: Tensor, value: TensorLike) -> bool:
    """Return whether an element equals the value."""
    return bool(equal(x, value).numpy().any())


def numbers(x: Tensor, dtype: Any = None, copy: bool | None = None) -> Array:
    """Return the numbers, as `np.asarray(tensor)` asks for them."""
    return np.array(x.numpy(), dtype=dtype, copy=copy)


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

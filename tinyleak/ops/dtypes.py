"""One dtype an operation: `tinyleak.tensor.apply` asks here when its inputs have several."""

from collections.abc import Sequence
from typing import Any

from tinyleak.backend import Array
from tinyleak.tensor import Primitive, Tensor, describe, primitive


@primitive(arithmetic=False)
def floating(xp: Any, x: Array, *, dtype: str) -> Array:
    """Whole numbers, or a mask as 1 and 0, in a floating dtype: constants, without a gradient."""
    return x.astype(dtype)


floating.rule(lambda g, out, x, *, dtype: (None,))


def as_floating(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Make whole numbers and masks floating, in the dtype of the others or else float64."""
    dtype = next((x.dtype.name for x in tensors if x.dtype.kind == "f"), "float64")
    return [x if x.dtype.kind == "f" else floating(x, dtype=dtype) for x in tensors]


def require_one_dtype(operation: Primitive, tensors: Sequence[Tensor], data: Array) -> None:
    """Refuse, with TypeError, inputs and a result of several floating dtypes.

    That is where floating dtypes were mixed, or whole numbers widened a floating one.
    """
    dtypes = {data.dtype, *(tensor.dtype for tensor in tensors)}
    if len([dtype for dtype in dtypes if dtype.kind == "f"]) > 1:
        raise TypeError(
            f"{operation.name} was given {describe(tensors)}; all inputs must have one floating "
            "dtype: convert them with .astype before making Tensors"
        )

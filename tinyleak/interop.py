"""The door: what a caller passes in becomes an array or a number, or is refused.

It stands beside the student's path: `Tensor(data)` and the files that take a caller's arrays come
through here.
"""

import operator
import sys
from collections.abc import Iterable
from dataclasses import fields
from numbers import Real
from typing import Any

import numpy as np

from tinyleak.backend import Array, owner

MOST_LETTERS = 100  # how many letters of a file's own text a message quotes


def as_array(value: Any, *, copy: bool = False) -> Array:
    """Return numbers, wherever they come from, as an array: the door for what a caller passes in.

    A number, nested lists, or an array of any library that offers `__array__` or `__dlpack__`, as
    PyTorch and JAX do, become floating or whole numbers or booleans in the processor's own byte
    order. CuPy's arrays stay on their GPU. With `copy` the caller cannot change them later.

    Raises:
        TypeError: anything else: None, text, complex numbers, a ragged list, a masked array; a
            PyTorch tensor that requires a gradient or has a dtype that NumPy lacks.
    """
    array, kind = value, called(value)
    if owner(value) is np or not isinstance(value, getattr(owner(value), "ndarray", ())):
        by_dlpack = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
        try:
            array = np.from_dlpack(value) if by_dlpack else np.asarray(value)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            reason = str(error).partition("\n")[0]
            raise TypeError(f"{kind} could not be read as numbers: {reason}") from error
    if array.dtype.kind not in "fiub" or isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{kind} of dtype {array.dtype} was given; pass floating or whole numbers, as an "
            "array without a mask or as nested lists"
        )
    native = np.dtype(array.dtype.type)
    return array.astype(native) if copy or array.dtype != native else array


def whole(number: Any, least: int, sentence: str) -> int:
    """Return a whole number of `least` or more, as a caller gave it.

    Otherwise `sentence`, with {} for the number, is a ValueError; of what is not whole, a
    TypeError.
    """
    try:
        found = operator.index(number)
    except TypeError:
        found = None
    if found is None or isinstance(number, bool):
        raise TypeError(f"{sentence.format(repr(number))} (a whole number is needed)")
    if found < least:
        raise ValueError(sentence.format(found))
    return found


def number(value: Any, least: float, sentence: str, most: float = sys.float_info.max) -> float:
    """Return a real number from `least` to `most`, finite unless they are said not to be.

    Otherwise `sentence`, with {} for the value, is a ValueError: of NaN too, or no number at all.
    """
    if isinstance(value, Real) and least <= float(value) <= most:
        return float(value)
    raise ValueError(sentence.format(value))


def called(value: Any) -> str:
    """Return what kind of thing a value is, for a message: "an int", "a list"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' or name.startswith('nd') else 'a'} {name}"


def quoted(text: object) -> str:
    """Return what a file says, as it can be printed: it may be long, or move a cursor."""
    said = str(text)
    return ascii(said if len(said) <= MOST_LETTERS else f"{said[:MOST_LETTERS]}...")


def as_leaf(data: Any, tensor_type: type) -> Array:
    """Return the array of a new Tensor: whole numbers written in Python become float64.

    Tensors, or a list of them, are a TypeError, and so is what `as_array` refuses.
    """
    if _holds(data, tensor_type):
        raise TypeError(
            "Tensor was given a Tensor, or a list of them; pass its .data for a fresh leaf, or "
            "join them with ops.stack"
        )
    array = as_array(data)
    written = isinstance(data, int | list | tuple) and array.dtype.kind == "i"
    return array.astype(float) if written else array


def _holds(data: Any, kind: type) -> bool:
    listed = isinstance(data, list | tuple)
    return any(_holds(part, kind) for part in data) if listed else isinstance(data, kind)


def require_fields(keywords: Iterable[str], kind: type, what: str) -> None:
    """Refuse, with TypeError, keywords that are not fields of a dataclass."""
    known = [field.name for field in fields(kind)]
    for name in keywords:
        if name not in known:
            raise TypeError(f"{name!r} is not known of {what}; choose from {', '.join(known)}")

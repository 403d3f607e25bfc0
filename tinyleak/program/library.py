"""Calls of the array library that write into memory which is there already, prepared once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from tinyleak.backend import Array

Call: TypeAlias = "Callable[[], object]"

LINE = 64
"""Bytes of a line of the processor's cache: what memory is aligned to."""


def call_into(module: Any, function: str, *arrays: Array, out: Array) -> Call:
    """Return the call of a library function on these very arrays into `out`.

    NumPy takes `out` quickest as one more argument, but for two functions where that is to mean
    something else; CuPy takes it by name alone.
    """
    if module is np and function not in ("maximum", "minimum"):
        return partial(getattr(np, function), *arrays, out)
    return partial(getattr(module, function), *arrays, out=out)


def take_into(module: Any, array: Array, indices: Array, axis: int, out: Array) -> Call:
    """Return the call that takes `array` along `axis` at `indices`, in range, into `out`."""
    if module is np:
        # NumPy copies through a hidden buffer unless it is told not to check the indices.
        return partial(array.take, indices, axis, out, "clip")
    return partial(module.take, array, indices, axis=axis, out=out)


def empty_bytes(module: Any, count: int) -> Array:
    """Return `count` bytes of memory, aligned for vector instructions."""
    if module is not np:
        return module.empty(count, dtype=np.uint8)
    raw = np.empty(count + LINE, dtype=np.uint8)
    start = -raw.__array_interface__["data"][0] % LINE
    return raw[start : start + count]


def shares_memory(module: Any, a: Array, b: Array) -> bool:
    """Whether two arrays look at some of the same memory."""
    return bool(module.may_share_memory(a, b))

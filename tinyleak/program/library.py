"""Calls of the array library that write into memory which is there already, prepared once."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from tinyleak.backend import Array

Call: TypeAlias = "Callable[[], object]"

LINE = 64  # bytes of a line of the processor's cache: what memory is aligned to
SCRATCH_BYTES = 2**20  # of scratch memory: as much as a usual second-level cache holds


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


class Scratch:
    """Memory that each instruction of a program works in, and forgets, after the one before.

    Where all have their own, none finds its own in the processor's cache any more.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._raw = empty_bytes(module, SCRATCH_BYTES)
        self._used = 0

    def free(self) -> None:
        """Begin anew, for the next instruction."""
        self._used = 0

    def like(self, array: Array, dtype: Any = None) -> Array:
        """Return an array of the shape and order of axes of the given one, and maybe its dtype."""
        made = self.module.empty_like(array, dtype=dtype)
        start, self._used = self._used, self._used + -(-made.nbytes // LINE) * LINE
        if self._used > SCRATCH_BYTES:
            return made  # too large to stay in the cache anyway
        return laid_over(self._raw[start : start + made.nbytes], made)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array of this shape and dtype."""
        return self.like(self.module.empty(shape, dtype=dtype))


def laid_over(raw: Array, like: Array) -> Array:
    """Return an array over raw bytes with the shape, dtype and order of axes of `like`."""
    if like.flags.c_contiguous:
        if type(raw) is np.ndarray:
            return np.ndarray(like.shape, like.dtype, raw)
        return raw[: like.nbytes].view(like.dtype).reshape(like.shape)
    order = sorted(range(like.ndim), key=lambda axis: -abs(like.strides[axis]))
    inverse = sorted(range(like.ndim), key=order.__getitem__)
    flat = raw[: like.nbytes].view(like.dtype)
    return flat.reshape([like.shape[axis] for axis in order]).transpose(inverse)

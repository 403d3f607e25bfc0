"""How each primitive is computed into a buffer: the library calls, prepared once.

A primitive's forward makes a new array each time. A program has a buffer for every value, and for
each primitive a kernel: a function that is given the very arrays to read and the one to write, and
returns the calls of the array library that do it, with all that depends on shapes done beforehand.
A primitive without a kernel is computed by its forward, and copied into the buffer.

Lesson: lessons/14_a_graph_is_a_program.py
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from tinyleak.backend import Array, error_function
from tinyleak.ops.elementwise import largest_exponent
from tinyleak.ops.indexing import Window, slices
from tinyleak.ops.reduce import summed_axes
from tinyleak.ops.window import Pair, windows_of
from tinyleak.ops.winners import Windows, elements_of_windows
from tinyleak.program.folding import fold_into
from tinyleak.program.library import Call, Scratch, call_into, shares_memory, take_into
from tinyleak.tensor import Primitive

Kernel: TypeAlias = "Callable[..., list[Call]]"

KERNELS: dict[str, Kernel] = {}
"""Kernels by the primitive's name: `(xp, *arrays, out, **params)` gives the calls that fill `out`.
They may be called again and again, and read the arrays anew each time."""

ELEMENTWISE = {
    "negate": "negative",
    **{name: name for name in ("add", "subtract", "multiply", "divide", "maximum")},
    **{name: name for name in ("exp", "log", "sqrt", "tanh", "sin", "cos")},
}
"""Primitives that are one elementwise function of the library, and its name."""

LIBRARY = {
    **ELEMENTWISE,
    **{name: name for name in ("greater", "greater_equal", "equal", "not_equal", "matmul")},
}
"""Primitives that are one function of the library, and its name; they have no other kernel."""

IN_PLACE = {*ELEMENTWISE, "power", "erf", "sigmoid"}
"""Primitives whose kernel may write over one of the arrays that it reads."""

VIEWS = {"broadcast_to", "crop_to", "reshape", "stop_gradient", "transpose"}
"""Primitives whose result is, where possible, only another view of the first input."""

WORKING = {"fold", "where", "winners"}
"""Primitives whose kernels work in scratch memory, which they are given as `scratch`."""


def prepare(
    primitive: Primitive,
    scratch: Scratch,
    arrays: tuple[Array, ...],
    out: Array,
    params: dict[str, Any],
) -> list[Call]:
    """Return the calls that compute the primitive from these very arrays into `out`."""
    name, xp = primitive.name, scratch.module
    scratch.free()
    if name in WORKING:
        params = {**params, "scratch": scratch}
    if name in LIBRARY:
        return [call_into(xp, LIBRARY[name], *arrays, out=out)]
    if name in KERNELS:
        return KERNELS[name](xp, *arrays, out=out, **params)
    return [lambda: xp.copyto(out, primitive.forward(xp, *arrays, **params))]


def kernel(name: str) -> Callable[[Kernel], Kernel]:
    """Put a function into the table as the kernel of the primitive of that name (a decorator)."""

    def register(function: Kernel) -> Kernel:
        KERNELS[name] = function
        return function

    return register


@kernel("power")
def _(xp: Any, x: Array, *, out: Array, exponent: float) -> list[Call]:
    if exponent == 2:
        return [call_into(xp, "square", x, out=out)]
    # Sent to the GPU once, beforehand: nothing can be sent while a CUDA graph is captured.
    return [call_into(xp, "power", x, xp.asarray(exponent, dtype=x.dtype), out=out)]


@kernel("erf")
def _(xp: Any, x: Array, *, out: Array) -> list[Call]:
    return [partial(error_function(xp), x, out=out)]


@kernel("sigmoid")
def _(xp: Any, x: Array, *, out: Array) -> list[Call]:
    limit = xp.asarray(largest_exponent(x.dtype), dtype=x.dtype)
    return [
        call_into(xp, "negative", x, out=out),
        call_into(xp, "minimum", out, limit, out=out),
        call_into(xp, "exp", out, out=out),
        call_into(xp, "add", out, xp.ones((), dtype=x.dtype), out=out),
        call_into(xp, "reciprocal", out, out=out),
    ]


@kernel("softplus")
def _(xp: Any, x: Array, *, out: Array) -> list[Call]:
    positive = xp.empty_like(x)
    return [
        call_into(xp, "maximum", x, xp.zeros((), dtype=x.dtype), out=positive),
        call_into(xp, "absolute", x, out=out),
        call_into(xp, "negative", out, out=out),
        call_into(xp, "exp", out, out=out),
        call_into(xp, "log1p", out, out=out),
        call_into(xp, "add", out, positive, out=out),
    ]


@kernel("where")
def _(xp: Any, mask: Array, a: Array, b: Array, *, out: Array, scratch: Scratch) -> list[Call]:
    if {a.dtype, b.dtype} != {out.dtype}:
        return [partial(xp.copyto, out, b), partial(xp.copyto, out, a, where=mask)]
    # Bit by bit, ((a ^ b) & mask) ^ b: a branch for each element, which the processor guesses wrong
    # every other time, takes six times as long.
    whole = f"i{out.itemsize}"
    bits = scratch.like(mask, whole)
    a, b, out = (x.view(whole) for x in (a, b, out))
    return [
        call_into(xp, "negative", mask.view("i1"), out=bits),  # true is −1: all its bits are set
        call_into(xp, "bitwise_xor", a, b, out=out),
        call_into(xp, "bitwise_and", out, bits, out=out),
        call_into(xp, "bitwise_xor", out, b, out=out),
    ]


@kernel("floating")
def _(xp: Any, x: Array, *, out: Array, dtype: str) -> list[Call]:
    return [partial(xp.copyto, out, x)]


@kernel("sum_to")
def _(xp: Any, x: Array, *, out: Array, shape: tuple[int, ...]) -> list[Call]:
    axes, kept = summed_axes(x.shape, tuple(shape))
    out = out.reshape(kept)  # a view: it has only more axes of length 1
    if axes == (x.ndim - 2,):
        # Adding up rows or columns is a product with ones, and far quicker so.
        ones = xp.ones((1, x.shape[-2]), dtype=x.dtype)
        return [call_into(xp, "matmul", ones, x, out=out)]
    if axes == (x.ndim - 1,) and x.ndim > 1:
        ones = xp.ones((x.shape[-1], 1), dtype=x.dtype)
        return [call_into(xp, "matmul", x, ones, out=out)]
    return [partial(xp.sum, x, axis=axes, keepdims=True, out=out)]


@kernel("amax")
def _(xp: Any, x: Array, *, out: Array, axes: tuple[int, ...]) -> list[Call]:
    if xp is np:
        return [partial(np.maximum.reduce, x, axes, None, out, True)]
    return [partial(xp.amax, x, axis=axes, out=out, keepdims=True)]


@kernel("inner")
def _(xp: Any, a: Array, b: Array, *, out: Array, axes: int) -> list[Call]:
    leading = a.shape[: a.ndim - axes]
    length = a.size // max(1, out.size)
    calls: list[Call] = []
    rows = []
    for x in (a, b):
        row = x.reshape((*leading, 1, length))
        if not shares_memory(xp, row, x):
            # Memory in another order makes the row a copy, which is to be made anew each time.
            calls.append(partial(xp.copyto, row.reshape(x.shape), x))
        rows.append(row)
    column = rows[1].swapaxes(-1, -2)
    return [*calls, call_into(xp, "matmul", rows[0], column, out=out.reshape((*leading, 1, 1)))]


@kernel("reshape")
def _(xp: Any, x: Array, *, out: Array, shape: tuple[int, ...]) -> list[Call]:
    # Seen in the shape of `x`, the buffer takes a plain copy; where its order in memory makes that
    # view impossible, `x` is reshaped each time.
    if out.flags.c_contiguous:
        return [partial(xp.copyto, out.reshape(x.shape), x)]
    return [lambda: xp.copyto(out, x.reshape(shape))]


@kernel("pad_to")
def _(xp: Any, x: Array, *, out: Array, window: Window, shape: tuple[int, ...]) -> list[Call]:
    return [partial(out.fill, 0), partial(xp.copyto, out[slices(window)], x)]


@kernel("concatenate")
def _(xp: Any, *arrays: Array, out: Array, axis: int) -> list[Call]:
    if xp is np:
        return [partial(np.concatenate, arrays, axis, out)]
    # CuPy's own function would send a list of the arrays to the GPU each time, if it is long.
    calls: list[Call] = []
    stop = 0
    for array in arrays:
        start, stop = stop, stop + array.shape[axis]
        part = out[(slice(None),) * (axis % out.ndim) + (slice(start, stop),)]
        calls.append(partial(xp.copyto, part, array))
    return calls


@kernel("take")
def _(xp: Any, x: Array, indices: Array, *, out: Array, axis: int) -> list[Call]:
    return [take_into(xp, x, indices, axis, out)]


@kernel("scatter_add")
def _(xp: Any, x: Array, indices: Array, *, out: Array, axis: int, length: int) -> list[Call]:
    return [
        partial(out.fill, 0),
        partial(xp.add.at, out, (slice(None),) * axis + (indices,), x),
    ]


@kernel("winners")
def _(
    xp: Any, x: Array, *, out: Array, down: Windows, across: Windows, scratch: Scratch
) -> list[Call]:
    starts, steps, first, slices = elements_of_windows(xp, x.shape, down, across)
    best, value = (scratch.empty(first.shape, x.dtype) for _ in range(2))
    wins, is_number = (scratch.empty(first.shape, bool) for _ in range(2))
    which, number = (scratch.empty(first.shape, first.dtype) for _ in range(2))
    calls: list[Call] = [partial(best.fill, -xp.inf), partial(xp.copyto, which, first)]
    for k, (inside, here) in enumerate(slices):
        values, record, mask = value[inside], best[inside], wins[inside]
        calls += [
            partial(xp.copyto, values, x[here]),
            call_into(xp, "less_equal", values, record, out=mask),
            call_into(xp, "logical_not", mask, out=mask),
            call_into(xp, "equal", record, record, out=is_number[inside]),
            call_into(xp, "logical_and", mask, is_number[inside], out=mask),
            call_into(xp, "maximum", record, values, out=record),
            call_into(xp, "multiply", mask, xp.asarray(k, first.dtype), out=number[inside]),
            call_into(xp, "maximum", which[inside], number[inside], out=which[inside]),
        ]
    out = out.reshape(first.shape)
    return [*calls, take_into(xp, steps, which, 0, out), call_into(xp, "add", out, starts, out=out)]


@kernel("unfold")
def _(xp: Any, x: Array, *, out: Array, kernel: Pair, stride: Pair, padding: Pair) -> list[Call]:
    if padding == (0, 0):
        return [partial(xp.copyto, out, windows_of(xp, x, kernel, stride))]
    *leading, height, width, channels = x.shape
    top, left = padding
    padded = xp.zeros((*leading, height + 2 * top, width + 2 * left, channels), dtype=x.dtype)
    middle = padded[..., top : top + height, left : left + width, :]
    return [
        partial(xp.copyto, middle, x),
        partial(xp.copyto, out, windows_of(xp, padded, kernel, stride)),
    ]


KERNELS["fold"] = fold_into

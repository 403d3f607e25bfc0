"""Elementwise primitives: each output element depends on one element of each input.

Inputs broadcast against each other as in NumPy. A rule answers in the broadcast shape and
`tinyleak.gradient` sums the answer back, so no rule here mentions shapes.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from tinyleak.backend import Array, call_into, error_function
from tinyleak.tensor import Later, Step, Tensor, TensorLike, as_tensor, library_primitive, primitive

add = library_primitive("add", "`a + b`.")


@add.rule
def _(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return g, g


subtract = library_primitive("subtract", "`a − b`.")


@subtract.rule
def _(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Later]:
    return g, lambda: -g


multiply = library_primitive("multiply", "`a · b`.")


@multiply.rule
def _(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[Later, Later]:
    return lambda: g * b, lambda: g * a


divide = library_primitive("divide", "`a / b`.")


@divide.rule
def _(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[Later, Later]:
    return lambda: g / b, lambda: -g * out / b


negate = library_primitive("negative", "`−x`.")


@negate.rule
def _(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
    return (-g,)


@primitive(in_place=True)
def power(xp: Any, x: Array, out: Array | None = None, *, exponent: float) -> Array:
    """`x ** exponent`, for a constant exponent."""
    if exponent == 2:
        return xp.square(x, out=out)
    return xp.power(x, xp.asarray(exponent, dtype=x.dtype), out=out)


@power.steps
def _(xp: Any, x: Array, out: Array, *, exponent: float) -> list[Step]:
    if exponent == 2:
        return [call_into(xp, "square", x, out=out)]
    # Sent to the GPU once, beforehand: nothing can be sent while a CUDA graph is captured.
    return [call_into(xp, "power", x, xp.asarray(exponent, dtype=x.dtype), out=out)]


@power.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, exponent: float) -> tuple[Tensor | None]:
    if exponent == 0:
        return (None,)
    if exponent == 1:
        return (g,)
    if exponent == 2:
        return (g * (2.0 * x),)
    return (g * (exponent * x ** (exponent - 1)),)


exp = library_primitive("exp", "`eˣ`.")


@exp.rule
def _(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
    return (g * out,)


log = library_primitive("log", "The natural logarithm of `x`, for x > 0.")


@log.rule
def _(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
    return (g / x,)


sqrt = library_primitive("sqrt", "`√x`, for x > 0 (at 0 the gradient is infinite).")


@sqrt.rule
def _(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
    return (0.5 * g / out,)


tanh = library_primitive("tanh", "The hyperbolic tangent of `x`.")


@tanh.rule
def _(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
    return (g * (1.0 - out * out),)


@primitive(in_place=True)
def erf(xp: Any, x: Array, out: Array | None = None) -> Array:
    """The error function, `2/√π · ∫₀ˣ e^−t² dt`."""
    return error_function(xp)(x, out=out)


@erf.steps
def _(xp: Any, x: Array, out: Array) -> list[Step]:
    return [partial(error_function(xp), x, out=out)]


@erf.rule
def _(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
    return (g * (exp(-(x * x)) * (2.0 / math.sqrt(math.pi))),)


@primitive(in_place=True)
def sigmoid(xp: Any, x: Array, out: Array | None = None) -> Array:
    """`1 / (1 + e⁻ˣ)`."""
    out = xp.empty_like(x) if out is None else out
    for step in _sigmoid_steps(xp, x, out):
        step()
    return out


@sigmoid.steps
def _sigmoid_steps(xp: Any, x: Array, out: Array) -> list[Step]:
    # e⁻ˣ would overflow for very negative x; held at the largest number, the quotient is still ~0.
    limit = xp.asarray(709.0 if x.dtype.itemsize == 8 else 88.0, dtype=x.dtype)
    return [
        call_into(xp, "negative", x, out=out),
        partial(xp.minimum, out, limit, out=out),
        call_into(xp, "exp", out, out=out),
        call_into(xp, "add", out, xp.ones((), dtype=x.dtype), out=out),
        call_into(xp, "reciprocal", out, out=out),
    ]


@sigmoid.rule
def _(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
    return (g * (out * (1.0 - out)),)


@primitive()
def softplus(xp: Any, x: Array, out: Array | None = None) -> Array:
    """`log(1 + eˣ)`, a smooth relu."""
    # As max(x, 0) + log(1 + e^−|x|), which cannot overflow.
    out = xp.empty_like(x) if out is None else out
    xp.log1p(xp.exp(xp.negative(xp.abs(x, out=out), out=out), out=out), out=out)
    return xp.add(out, xp.maximum(x, xp.zeros((), dtype=x.dtype)), out=out)


@softplus.rule
def _(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
    return (g * sigmoid(x),)


@primitive(in_place=True)
def relu(xp: Any, x: Array, out: Array | None = None) -> Array:
    """`max(x, 0)`; its gradient at 0 is taken to be 0."""
    return xp.maximum(x, xp.zeros((), dtype=x.dtype), out=out)


@relu.rule
def _(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
    return (where(x > 0, g, 0.0),)


@primitive()
def greater(xp: Any, a: Array, b: Array, out: Array | None = None) -> Array:
    """Whether `a > b`: a boolean mask, with no gradient."""
    return xp.greater(a, b, out=out)


@greater.rule
def _(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[None, None]:
    return None, None


@primitive()
def _where(xp: Any, mask: Array, a: Array, b: Array, out: Array | None = None) -> Array:
    """`a` where the mask is true, else `b`."""
    if out is None:
        return xp.where(mask, a, b)
    xp.copyto(out, b)
    xp.copyto(out, a, where=mask)
    return out


@_where.rule
def _(g: Tensor, out: Tensor, mask: Tensor, a: Tensor, b: Tensor) -> tuple[None, Tensor, Tensor]:
    return None, where(mask, g, 0.0), where(mask, 0.0, g)


def where(mask: Tensor, a: TensorLike, b: TensorLike) -> Tensor:
    """Choose elementwise: `a` where the boolean `mask` is true, else `b`; all broadcast."""
    like = a if isinstance(a, Tensor) else b if isinstance(b, Tensor) else None
    return _where(mask, as_tensor(a, like), as_tensor(b, like))


def maximum(a: Tensor, b: TensorLike) -> Tensor:
    """Return the larger of `a` and `b`, elementwise; where they are equal, `b` has the gradient."""
    return where(a > b, a, b)


@primitive(view=True)
def stop_gradient(xp: Any, x: Array, out: Array | None = None) -> Array:
    """`x` as a constant: the value passes, no gradient does."""
    if out is None:
        return x
    xp.copyto(out, x)
    return out


@stop_gradient.rule
def _(g: Tensor, out: Tensor, x: Tensor) -> tuple[None]:
    return (None,)

"""Elementwise functions, and two sums, that the way to the attack does not need."""

import math
from typing import Any

import numpy as np

from tinyleak.backend import Array, error_function
from tinyleak.ops.choice import max, where
from tinyleak.ops.elementwise import exp, library_primitive, log, sigmoid, stop_gradient
from tinyleak.ops.reduce import Axes, normalise_axes, sum
from tinyleak.tensor import NUMBERS, Later, Primitive, Tensor, TensorLike, primitive


@primitive()
def _power(xp: Any, x: Array, *, exponent: float) -> Array:
    """`x ** exponent`, for a constant exponent."""
    if exponent == 2:
        return xp.square(x)
    return xp.power(x, xp.asarray(exponent, dtype=x.dtype))


@_power.rule
def _(g: Tensor, out: Tensor, x: Tensor, *, exponent: float) -> tuple[Tensor | None]:
    if exponent == 0:
        return (None,)
    if exponent == 1:
        return (g,)
    if exponent == 2:
        return (g * (2.0 * x),)
    return (g * (exponent * x ** (exponent - 1)),)


@primitive()
def _raise_to(xp: Any, x: Array, exponent: Array) -> Array:
    """`x ** exponent`, elementwise, for an exponent that varies."""
    return xp.power(x, exponent)


@_raise_to.rule
def _(g: Tensor, out: Tensor, x: Tensor, exponent: Tensor) -> tuple[Later, Later]:
    # 0 ** b is 0 for every b > 0, so its slope along b is 0 and not 0 · log 0.
    return (
        lambda: g * (exponent * x ** (exponent - 1.0)),
        lambda: g * (out * log(where(x == 0.0, 1.0, x))),
    )


def power(x: TensorLike, exponent: TensorLike) -> Tensor:
    """Return `x ** exponent`: a number, or a Tensor which is differentiated too (for x ≥ 0)."""
    if isinstance(exponent, NUMBERS):
        return _power(x, exponent=float(exponent))
    return _raise_to(x, exponent)


@primitive()
def erf(xp: Any, x: Array) -> Array:
    """The error function, `2/√π · ∫₀ˣ e^−t² dt`."""
    return error_function(xp)(x)


erf.rule(lambda g, out, x: (g * (exp(-(x * x)) * (2.0 / math.sqrt(math.pi))),))


@primitive()
def softplus(xp: Any, x: Array) -> Array:
    """`log(1 + eˣ)`, a smooth relu."""
    # As max(x, 0) + log(1 + e^−|x|), which cannot overflow.
    return xp.log1p(xp.exp(-xp.abs(x))) + xp.maximum(x, 0.0)


softplus.rule(lambda g, out, x: (g * sigmoid(x),))


sin: Primitive = library_primitive("sin", "The sine of x.", lambda g, out, x: (g * cos(x),))
cos: Primitive = library_primitive("cos", "The cosine of x.", lambda g, out, x: (-g * sin(x),))


def mean(x: Tensor, axes: Axes = None, *, keepdims: bool = False) -> Tensor:
    """Average over the given axes (all, if None); errors as `sum`'s, or nothing to average."""
    count = math.prod(x.shape[axis] for axis in normalise_axes(axes, x.ndim))
    if count == 0:
        raise ValueError(f"mean of {x.shape} over axes {axes} has no elements to average")
    return sum(x, axes, keepdims=keepdims) * (1.0 / count)


def logsumexp(x: Tensor, axis: Axes = -1) -> Tensor:
    """Return `log Σ eˣ` along axes, which are kept with length 1; large `x` do not overflow."""
    # The shift cancels, so holding it constant changes no derivative of any order.
    largest = stop_gradient(max(x, axis, keepdims=True))
    # ∞ − ∞ would be NaN: an infinite maximum is taken off as the largest number there is.
    bound = float(np.finfo(largest.dtype).max)
    shift = where(largest > bound, bound, where(largest < -bound, -bound, largest))
    total = sum(exp(x - shift), axis, keepdims=True)
    with np.errstate(divide="ignore"):  # −∞ alone leaves a sum of 0, whose logarithm is right
        return log(total) + largest

"""Elementwise primitives: each output element depends on one element of each input.

Inputs broadcast against each other as in NumPy. A rule answers in the broadcast shape and
`tinyleak.gradient` sums the answer back, so no rule here mentions shapes.
"""

import math
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.tensor import Primitive, Rule, primitive


def library_primitive(
    name: str, doc: str, rule: Rule, *, function: str | None = None, arithmetic: bool = True
) -> Primitive:
    """Make a `Primitive` of a function that every array library has, by default of its name."""

    def forward(xp: Any, *arrays: Array) -> Any:
        return getattr(xp, function or name)(*arrays)

    forward.__name__, forward.__doc__ = name, doc
    made = primitive(arithmetic=arithmetic)(forward)
    made.rule(rule)
    return made


add = library_primitive("add", "`a + b`.", lambda g, out, a, b: (g, g))
subtract = library_primitive("subtract", "`a − b`.", lambda g, out, a, b: (g, lambda: -g))
multiply = library_primitive(
    "multiply", "`a · b`.", lambda g, out, a, b: (lambda: g * b, lambda: g * a)
)
divide = library_primitive(
    "divide", "`a / b`.", lambda g, out, a, b: (lambda: g / b, lambda: -g * out / b)
)
negate = library_primitive("negate", "`−x`.", lambda g, out, x: (-g,), function="negative")
exp = library_primitive("exp", "`eˣ`.", lambda g, out, x: (g * out,))
log = library_primitive("log", "The natural logarithm of x > 0.", lambda g, out, x: (g / x,))
sqrt = library_primitive(
    "sqrt", "`√x`, for x > 0 (at 0 the gradient is infinite).", lambda g, out, x: (0.5 * g / out,)
)
tanh = library_primitive(
    "tanh", "The hyperbolic tangent of x.", lambda g, out, x: (g * (1.0 - out * out),)
)


@primitive()
def sigmoid(xp: Any, x: Array) -> Array:
    """`1 / (1 + e⁻ˣ)`."""
    # e⁻ˣ would overflow for very negative x; held at the largest number, the quotient is still ~0.
    return xp.reciprocal(xp.exp(xp.minimum(-x, largest_exponent(x.dtype))) + 1.0)


sigmoid.rule(lambda g, out, x: (g * (out * (1.0 - out)),))


def largest_exponent(dtype: np.dtype[Any]) -> float:
    """Return the largest whole number whose exponential the dtype holds."""
    return float(math.floor(math.log(float(np.finfo(dtype).max))))


@primitive(arithmetic=False)
def stop_gradient(xp: Any, x: Array) -> Array:
    """`x` as a constant: the value passes, no gradient does."""
    return x


stop_gradient.rule(lambda g, out, x: (None,))

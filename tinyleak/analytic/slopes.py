"""Activations seen from behind: what their slope can be where their value is h.

A monotone activation's slope follows from its value: σ′ = h (1 − h), tanh′ = 1 − h². GELU, SiLU and
their like fall before they rise, so that a value below 0 has two slopes.
"""

from functools import cache

import numpy as np

from tinyleak.backend import Array
from tinyleak.gradient import grad
from tinyleak.nn import ACTIVATIONS
from tinyleak.ops import sum
from tinyleak.tensor import Tensor

KINKS = (1.0, 3.0, 6.0)
"""Where the activations of the library have corners, on both sides of 0 and beside 0 itself."""

FINE = 1e-3  # the relative distance of the numbers at which an activation is looked at; …

INTERPOLATION = 1e-7
"""… then a slope between two of them is this good: FINE² / 8 times a second derivative."""

Piece = tuple[Array, Array]


@cache
def pieces_of(name: str) -> list[Piece]:
    """Return the monotone pieces of an activation, the one around 0 first.

    Each is values, ascending, with the slope at each.
    """
    steps = np.exp(np.arange(np.log(1e-13), np.log(1e3), FINE))
    corners = np.outer(KINKS, 1.0 + np.array([-1e-13, 0.0, 1e-13])).ravel()
    positive = np.sort(np.concatenate([steps, corners]))
    z = np.concatenate([-positive[::-1], [0.0], positive])
    argument = Tensor(z)
    with np.errstate(over="ignore"):
        value = ACTIVATIONS[name](argument)
        (slope,) = grad(sum(value), [argument])
    values, slopes = value.data, slope.data
    lowest = int(np.argmin(values))
    # Those that fall first are the ones that are lower there than far to the left.
    turn = lowest if values[0] > values[lowest] + 1e-6 else 0
    rising = (np.maximum.accumulate(values[turn:]), slopes[turn:])
    if turn == 0:
        return [rising]
    falling = values[: turn + 1][::-1], slopes[: turn + 1][::-1]
    return [rising, (np.maximum.accumulate(falling[0]), falling[1])]


def range_of(name: str) -> tuple[float, float]:
    """Return the lowest and the highest value of an activation, of numbers up to 1,000."""
    values = pieces_of(name)[0][0]
    return float(values[0]), float(values[-1])


def slopes_at(name: str, h: Array) -> list[Array]:
    """Return the slope where an activation's value is h, for each of its pieces: (…) each.

    On a piece that does not reach h the slope of the first one stands in.
    """
    first, *others = (
        (np.interp(h, values, slopes), (h >= values[0]) & (h <= values[-1]))
        for values, slopes in pieces_of(name)
    )
    return [first[0], *(np.where(reached, slope, first[0]) for slope, reached in others)]

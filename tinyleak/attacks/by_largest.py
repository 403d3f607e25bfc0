"""An image by the largest elements of its windows, where it is sure which these are.

Values that come straight out of a max pooling (`known_maxima`) say how large the largest element of
each window is. All elements that are larger must become smaller. But where all are smaller one of
them must become larger, and which of them is a guess: if it is a wrong one, the pixels around it
come to fit that, and no search leaves it again. So such a window counts the more, the farther its
largest element is ahead of the second, and ever more windows count. At the client's image nothing
is left whatever they count, so that, unlike smoothing, it needs no correction.

Where an image is plain, as beside a digit, elements of a window are alike, and the gradient of the
largest knows of one. L-BFGS then creeps along a valley that bends at each kink, and ends where
features are off by 1e-11 and pixels at the border by 0.05. Exact steps by all elements, with less
weight on windows that are off, lead out of it in about ten (`exactly_by_largest`).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyleak.attacks.kinks import Choices, Kinks
from tinyleak.attacks.known_maxima import KnownMaxima, known_maxima
from tinyleak.attacks.shown import Below, in_a_row
from tinyleak.backend import Array
from tinyleak.ops import maximum, reshape
from tinyleak.optim.truncated import Traced, truncated_gauss_newton
from tinyleak.tensor import Tensor

DOUBTS = tuple(0.3 * 0.8**k for k in range(12))
"""How far ahead, in the spread of what is compared, the largest is where a window counts half."""

SEARCH: dict[str, Any] = {
    **{"steps": 2, "products": 200, "rough": 0.01, "damping": 1e-7},
    "scales": (1e-4,),
}
"""The steps at each doubt. What is farther off than the scale, as a share of the spread, in root
mean square, is an outlier."""

EXACT: dict[str, Any] = {
    **{"steps": 12, "damping": 1e-9, "progress": 0.7},
    "scales": (math.inf, 1e-5, 1e-6),
}
"""Exact steps. Squares alone leave three digits of eight of a trained network in the valley."""

ZERO, DOUBTFUL = 1e-5, 0.05
"""A ReLU's values below the first share of their mean are zero, and up to the second may be: the
largest elements of their windows may as well be far below that."""

BELOW = 3.0
"""Zero is, too, what is less than so many times the largest error that shows: that below zero."""


def by_largest(
    below: Below,
    values: Array,
    told: Array,
    start: Array,
    lowest: float,
    highest: float,
) -> Array | None:
    """Search for the image whose windows have these largest elements.

    Args:
        below: the network from images to values.
        values: those to be had, (n,).
        told: which of them are known, (n,).
        start: the image to begin with, (1, C, H, W), near the client's.
        lowest: what pixels are at least.
        highest: what they are at most.

    Returns:
        The pixels, (C·H·W,); None where values do not come straight out of a max pooling.
    """
    share = np.abs(values) / np.mean(np.abs(values))
    told = told & ((share <= ZERO) | (share >= DOUBTFUL))
    kinks, x = Kinks(below), start.ravel()
    maxima = _maxima(kinks, values, start)
    if maxima is None:
        return None
    residual = _residual(kinks, maxima, told, start)
    for doubt in DOUBTS:
        windows = _windows(kinks, Tensor(x.reshape(start.shape)))
        second, first = np.sort(windows.numbers(), axis=0)[-2:]
        gap = (first - second) / maxima.spread
        residual.held = (gap / (gap + doubt),)
        x = truncated_gauss_newton(residual, x, lowest=lowest, highest=highest, **SEARCH).x
    return x


def exactly_by_largest(
    below: Below, values: Array, like: Array, lowest: float, highest: float, goal: float
) -> Callable[[Array], Array] | None:
    """Return what brings pixels that have values nearly to where they have them, past all bends.

    Args:
        below: the network from images to values.
        values: those to be had, (n,), all of them known.
        like: an image, (1, C, H, W), to scale by.
        lowest: what pixels are at least.
        highest: what they are at most.
        goal: a squared distance, in the spread of what is compared, that is small enough.

    Returns:
        A function of pixels, (C·H·W,), with a squared relative distance of 1e-8 or less; None where
        values do not come straight out of a max pooling.
    """
    kinks = Kinks(below)
    maxima = _maxima(kinks, values, like)
    if maxima is None:
        return None
    residual = _residual(kinks, maxima, np.ones(values.shape), like)
    steps = {"products": like.size, "goal": goal, **EXACT}
    return lambda x: truncated_gauss_newton(residual, x, lowest=lowest, highest=highest, **steps).x


def _maxima(kinks: Kinks, values: Array, start: Array) -> KnownMaxima | None:
    """Return the windows that values, (n,), come out of, zero where they are but for errors."""
    _, opens = kinks.at(Tensor(start))
    zero = max(ZERO * np.mean(np.abs(values)), -BELOW * values.min()) if opens else 0.0
    return known_maxima(kinks, Tensor(start), np.where(np.abs(values) > zero, values, 0.0))


def _windows(kinks: Kinks, images: Tensor) -> Choices:
    """Return what the last kink chooses among, without the uppermost ReLU."""
    found = []

    def at_kink(_: int, choices: Choices) -> Tensor:
        found.append(choices)
        return choices.largest()

    kinks.replay(images, at_kink, open_top=True)
    return found[-1]


def _residual(kinks: Kinks, maxima: KnownMaxima, told: Array, start: Array) -> Traced:
    """Return r of pixels, (C·H·W,), and of what each window counts, (n,), where all is smaller."""
    count = len(maxima.largest)
    weight = told[maxima.order] / (maxima.spread * math.sqrt(count))

    def residual(z: Tensor, sure: Tensor) -> Tensor:
        windows = _windows(kinks, reshape(z, start.shape))
        ahead = windows.largest() - Tensor(maxima.largest)
        parts = [ahead * sure * Tensor(weight * maxima.active)]
        for element, inside in zip(windows.elements, windows.inside, strict=True):
            over = maximum(element - Tensor(maxima.largest), 0.0)
            parts.append(over * Tensor(weight * inside))
        return in_a_row(parts)

    return Traced(residual, start.size, np.ones(count))

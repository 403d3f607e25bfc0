"""An image by the largest elements of its windows, where it is sure which these are.

Values that come straight out of a max pooling (`known_maxima`) say how large the largest element of
each window is. An element that is larger must become smaller. But where all are smaller one of them
must become larger, and which of them is a guess: if it is a wrong one, the pixels around it come to
fit that, and no search leaves it again. So such a window counts the more, the farther its largest
element is ahead of the second, and ever more windows count. At the client's image nothing is left
whatever they count, so that, unlike smoothing, it needs no correction.
"""

import math

import numpy as np

from tinyleak.attacks.kinks import Choices, Kinks
from tinyleak.attacks.known_maxima import known_maxima
from tinyleak.attacks.shown import Below, in_a_row
from tinyleak.backend import Array
from tinyleak.ops import maximum, reshape
from tinyleak.optim.truncated import Traced, truncated_gauss_newton
from tinyleak.tensor import Tensor

DOUBTS = tuple(0.3 * 0.8**k for k in range(12))
"""How far ahead, in the spread of what is compared, the largest is where a window counts half."""

SCALE, STEPS, PRODUCTS, ROUGH, DAMPING = 1e-4, 2, 200, 0.01, 1e-7
"""What is farther off, as a share of the spread, in root mean square, is an outlier; and the steps
at each doubt, of how many products at most, solved to that share, and their λ at first."""

ZERO, DOUBTFUL = 1e-5, 0.05
"""A ReLU's values below the first share of their mean are zero, and up to the second may be: the
largest elements of their windows may as well be far below that."""


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
    kinks, shape, x = Kinks(below), start.shape, start.ravel()
    share = np.abs(values) / np.mean(np.abs(values))
    some = np.where(share > ZERO, values, 0.0)
    told = told & ((share <= ZERO) | (share >= DOUBTFUL))
    maxima = known_maxima(kinks, Tensor(start), some)
    if maxima is None:
        return None
    count = len(maxima.largest)
    weight = told[maxima.order] / (maxima.spread * math.sqrt(count))

    def ahead(x: Array) -> Array:
        gaps = []

        def at_kink(_: int, choices: Choices) -> Tensor:
            second, first = np.sort(choices.numbers(), axis=0)[-2:]
            gaps.append(first - second)
            return choices.largest()

        kinks.replay(Tensor(x.reshape(shape)), at_kink, open_top=True)
        return gaps[0] / maxima.spread

    def residual(z: Tensor, sure: Tensor) -> Tensor:
        parts = []

        def at_kink(_: int, choices: Choices) -> Tensor:
            largest = choices.largest()
            parts.append((largest - Tensor(maxima.largest)) * sure * Tensor(weight * maxima.active))
            for element, inside in zip(choices.elements, choices.inside, strict=True):
                over = maximum(element - Tensor(maxima.largest), 0.0)
                parts.append(over * Tensor(weight * inside))
            return largest

        kinks.replay(reshape(z, shape), at_kink, open_top=True)
        return in_a_row(parts)

    traced = Traced(residual, x.size, np.ones(count))
    for doubt in DOUBTS:
        gap = ahead(x)
        traced.held = (gap / (gap + doubt),)
        x = truncated_gauss_newton(
            traced,
            x,
            lowest=lowest,
            highest=highest,
            steps=STEPS,
            products=PRODUCTS,
            scales=[SCALE],
            rough=ROUGH,
            damping=DAMPING,
        ).x
    return x

"""Past the last wrong kinks by robust regression: most numbers agree, and a few are far off.

A search that has come near the client's image ends where some units are active, or largest, that
are not so at the client's: there the numbers that depend on them are off, and least squares spreads
that over the image. Σ log(r² + s²), the likelihood of errors with Cauchy's heavy tails (Huber and
Ronchetti 2009, "Robust statistics", chapter 7), leaves outliers alone: s falls from about what
numbers are off by to their rounding. In turn with features alone, whose distance has fewer kinks,
that brings ever more units to the right side. Each step is one of least squares with weights,
solved by conjugate gradients: L-BFGS took ten times as long, and ended farther away.
"""

import math

import numpy as np

from tinyleak.attacks.distances import Objective, search_in_range
from tinyleak.backend import Array
from tinyleak.optim.truncated import Reached, Traced, truncated_gauss_newton

LARGEST, SMALLEST = -7, -19
"""Powers of ten between which s² falls, relative to all numbers of a part together: of 4,096
features in float32 some 1e-18 each is rounding. It begins at the mean of r², if that is less."""

ALONE = 300  # iterations by features alone

STEPS, PRODUCTS, ROUGH = 2, 50, 0.01
"""Steps of Gauss and Newton at each s, of so many products at most, solved to that share."""

TURNS, PROGRESS = 12, 0.5
"""At most, and to what share of itself the distance must fall in one, while it is not NEAR."""

NEAR, PATIENCE = 1e-5, 3
"""Where the features' is below this, so many turns may pass without a new least one: the gradients
below jump at kinks, and say less of how near an image is."""


def without_outliers(
    residual: Traced,
    x: Array,
    lowest: float,
    highest: float,
    *,
    largest: int = LARGEST,
    products: int = PRODUCTS,
) -> Reached:
    """Return where robust regression from x, (n,), ends as s falls, and ‖r‖² there.

    Near the image squares come first: where no kink is wrong they arrive, and small s creep.

    Args:
        residual: r.
        x: where to begin, (n,).
        lowest: what unknowns are at least.
        highest: what they are at most.
        largest: the power of ten that s² is at most.
        products: of each step, at most.
    """
    r = residual.value(x)
    first = math.floor(math.log10(float(np.mean(r * r)) or 1.0))
    powers = range(min(largest, max(first, SMALLEST)), SMALLEST - 1, -1)
    return truncated_gauss_newton(
        residual,
        x,
        lowest=lowest,
        highest=highest,
        steps=STEPS,
        products=products,
        scales=[math.inf] * bool(r @ r < NEAR) + [10.0 ** (power / 2) for power in powers],
        rough=ROUGH,
    )


def in_turn_with_features(
    exact: Traced, alone: Objective | None, lowest: float, highest: float, goal: float, x: Array
) -> Reached:
    """Return where robust regression, in turn with features alone, ends, and ‖r‖² there.

    Args:
        exact: the residual r of pixels.
        alone: the distance of features alone; None where they are too few.
        lowest: what pixels are at least.
        highest: what they are at most.
        goal: a value of ‖r‖² that is small enough.
        x: the pixels of an image near the client's, (n,).
    """
    best = Reached(x, float(np.sum(exact.value(x) ** 2)))
    before, least, since = best.value, math.inf, 0
    for _ in range(TURNS):
        if alone is not None:
            x = search_in_range(alone, x, goal, lowest, highest, ALONE).x
        x, value = here = without_outliers(exact, x, lowest, highest)
        left, since = value if alone is None else alone(x)[0], since + 1
        if left < least or value <= goal:
            best, least, since = here, left, 0
        stuck = since >= PATIENCE if least < NEAR else value > PROGRESS * before
        if value <= goal or stuck:
            break
        before = value
    return best

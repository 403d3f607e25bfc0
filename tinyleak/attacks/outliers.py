"""Past the last wrong kinks by robust regression: most numbers agree, and a few are far off.

A search that has come near the client's image ends where some units are active, or largest, that
are not so at the client's: there the numbers that depend on them are off, and least squares spreads
that over the image. Σ log(r² + s²), the likelihood of errors with Cauchy's heavy tails (Huber and
Ronchetti 2009, "Robust statistics", chapter 7), leaves outliers alone: s falls from about what
numbers are off by to their rounding. In turn with features alone, whose distance has fewer kinks,
that brings ever more units to the right side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tinyleak.attacks.distances import Shape, objective_of, robust_objective_of, search_in_range
from tinyleak.attacks.shown import Shown
from tinyleak.backend import Array
from tinyleak.optim.truncated import Reached

VARIANCES = tuple(10.0**-k for k in range(7, 20))
"""s², relative to all numbers of a part together: of 4,096 features in float32 some 1e-18 each is
rounding."""

ALONE, EACH = 300, 200
"""Iterations by features alone, and at each s."""

TURNS, PROGRESS = 40, 0.7
"""At most, and to what share of its least the distance must fall in one, while it is not NEAR."""

NEAR, PATIENCE = 1e-5, 12
"""Where the distance is below this, so many turns may pass without a new least one: of three images
of 3,072 pixels one took ten, and two ended at squared errors of 6e-9 and 2e-6."""


def without_outliers(
    shape: Shape,
    shown: Shown,
    gradients: Mapping[str, Array],
    lowest: float,
    highest: float,
    goal: float,
) -> Callable[[Array], Reached]:
    """Return a search from an image near the client's, (n,): where it ends, and its distance.

    Args:
        shape: (1, C, H, W).
        shown: of what layer, and the network below it.
        gradients: the client's, by name.
        lowest: what pixels are at least.
        highest: what they are at most.
        goal: a distance that is small enough.
    """
    joint = objective_of(shape, shown, gradients)
    robust = robust_objective_of(shape, shown, gradients)
    enough = shown.features is not None and shown.features.size >= np.prod(shape)
    alone = objective_of(shape, shown, None) if enough else joint

    def search(x: Array) -> Reached:
        best, least, since = Reached(x, joint(x)[0]), alone(x)[0], 0
        for _ in range(TURNS):
            if enough:
                x = search_in_range(alone, x, goal, lowest, highest, ALONE).x
            for variance in VARIANCES:
                x = search_in_range(robust(variance), x, -np.inf, lowest, highest, EACH).x
            left, before, since = alone(x)[0], least, since + 1
            if left < least:  # the gradients below jump at kinks, and say less of how near it is
                best, least, since = Reached(x, joint(x)[0]), left, 0
            stuck = since >= PATIENCE if least < NEAR else left > PROGRESS * before
            if best.value <= goal or stuck:
                break
        return best

    return search

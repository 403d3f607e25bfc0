"""The last steps of a batch whose images are known but for a few digits, by their moving pixels."""

import math
from collections.abc import Generator
from dataclasses import replace

import numpy as np

from tinyleak.attacks.least_squares.last_layer import Indices
from tinyleak.attacks.least_squares.residual import GradientResidual
from tinyleak.backend import Array
from tinyleak.optim import Fit, levenberg_marquardt

DETERMINED = 1e-18
"""The distance that is enough once the features determine all images: from 1e-15 to 1e-21 pixels
changed by 1e-5, and a step of eight digits takes seconds."""

SLOW = 0.5  # a step that leaves more than this share of the distance ends a round of polishing
ROUNDS = 4  # rounds of polishing before all pixels move


class Moving:
    """A residual of some of its unknowns; the others stay where they are."""

    def __init__(self, residual: GradientResidual, x: Array, moving: Indices) -> None:
        """All are at x, (n,); those move whose numbers are `moving`, (m,), rising."""
        self.residual, self.x, self.moving = residual, x, moving

    def at(self, y: Array) -> Array:
        """Return all unknowns, (n,), from those that move, (m,)."""
        x = self.x.copy()
        x[self.moving] = y
        return x

    def value(self, y: Array) -> Array:
        """Return the residual, (P,)."""
        return self.residual.value(self.at(y))

    def slope(self, y: Array, r: Array) -> Array:
        """Return Jᵀr, (m,)."""
        return self.residual.slope(self.at(y), r)[self.moving]

    def gram(self, y: Array) -> Array:
        """Return JᵀJ, (m, m)."""
        return self.residual.gram(self.at(y), moving=self.moving)


def polished(
    gradient: GradientResidual,
    x: Array,
    goal: float,
    most: int,
    iterations: int,
    evaluations: int,
) -> Generator[Fit, None, Fit]:
    """Minimise the distance from images that are nearly right on, without the pixels at a bound.

    Of a digit these are four in five. Where that leads nowhere, features that were known to a few
    digits have put pixels of some image at a wrong bound: all pixels of one more image move, that
    whose slope is steepest.

    Args:
        gradient: the residual; all labels are fixed.
        x: (n,), the pixels.
        goal: the distance at which it is satisfied, if that is not below `DETERMINED`.
        most: steps at most.
        iterations: steps made before.
        evaluations: likewise.

    Yields:
        As `levenberg_marquardt` does, of all pixels; the last is returned as well, and has no
        reason if it leads nowhere.
    """
    batch, wrong, goal = gradient.matching.batch, np.zeros(0, np.int64), max(goal, DETERMINED)
    for _ in range(ROUNDS):
        owner = np.arange(len(x)) // (len(x) // batch)
        moving = np.flatnonzero((x > 0.0) & (x < 1.0) | np.isin(owner, wrong))
        some, last, begun = Moving(gradient, x, moving), math.inf, (iterations, evaluations)
        for step in levenberg_marquardt(
            some, x[moving], lowest=0.0, highest=1.0, max_iterations=most, goal=goal
        ):
            x, stopped = some.at(step.x), step.reason in ("stalled", "stationary")
            iterations, evaluations = begun[0] + step.iterations, begun[1] + step.evaluations
            reason = None if stopped else step.reason
            fit = replace(step, x=x, iterations=iterations, evaluations=evaluations, reason=reason)
            yield fit
            if reason is not None:
                return fit
            if stopped or step.value > SLOW * last:
                break
            last = step.value
        most -= step.iterations
        steepness = np.square(gradient.slope(x, gradient.value(x))).reshape(batch, -1).sum(axis=1)
        steepness[wrong] = 0.0
        wrong = np.append(wrong, int(np.argmax(steepness)))
    return fit

"""The last steps of a batch whose images are known but for a few digits, by their moving pixels."""

import math
from collections.abc import Generator
from dataclasses import replace

import numpy as np

from tinyleak.attacks.least_squares.last_layer import Indices
from tinyleak.attacks.least_squares.residual import GradientResidual
from tinyleak.backend import Array
from tinyleak.optim import Fit, levenberg_marquardt
from tinyleak.optim.blockwise import blockwise_least_squares

DETERMINED = 1e-18
"""The distance that is enough once the features determine all images: from 1e-15 to 1e-21 pixels
changed by 1e-5, and a step of eight digits takes seconds."""

SLOW = 0.1
"""A step that leaves more than this share of the distance leads nowhere: most leave a hundredth."""

ROUNDINGS, NEAR = 3.0, 2.0
"""How many roundings a parameter's gradient may err by, of its size, where all images are known;
mostly it errs by fewer than the second."""

MOST_PIXELS = 4000
"""Pixels that are solved for together where that stalls: for more, JᵀJ and J take over 0.4 GB."""


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
    roundoff: float,
) -> Generator[Fit, None, Fit]:
    """Minimise the distance from images that are nearly right on.

    First without the pixels at a bound, of a digit four in five. Where that leads nowhere, features
    that were known to a few digits have put some at a wrong bound: then all pixels move, from where
    they were before a step that did not help.

    Args:
        gradient: the residual; all labels are fixed.
        x: (n,), the pixels.
        goal: the distance at which it is satisfied, if that is not below `DETERMINED`.
        most: steps at most.
        iterations: steps made before.
        evaluations: likewise.
        roundoff: of the gradient, relative. Once all pixels move, `NEAR` of it, squared, are the
            goal, if that is less, and `ROUNDINGS` are enough where it gets no nearer.

    Yields:
        As `levenberg_marquardt` does, of all pixels; the last is returned as well, and has no
        reason if it leads nowhere.
    """
    moving, goal = np.flatnonzero((x > 0.0) & (x < 1.0)), max(goal, DETERMINED)
    some, last = Moving(gradient, x, moving), math.inf
    for step in levenberg_marquardt(
        some, x[moving], lowest=0.0, highest=1.0, max_iterations=most, goal=goal
    ):
        stopped = step.reason in ("stalled", "stationary")
        end, reason = some.at(step.x), None if stopped else step.reason
        fit = _after(iterations, evaluations, replace(step, x=end, reason=reason))
        yield fit
        if reason is not None:
            return fit
        if stopped or step.value > SLOW * last:
            break
        x, last = end, step.value
    least, enough = (max(DETERMINED, min(goal, (n * roundoff) ** 2)) for n in (NEAR, ROUNDINGS))
    begun, most = fit, most - step.iterations
    for step in blockwise_least_squares(
        gradient, x, lowest=0.0, highest=1.0, max_iterations=most, goal=least
    ):
        stopped, reason = step.reason == "stalled", step.reason
        if step.value <= enough and (stopped or step.value > SLOW * last):
            reason = "converged"
        elif stopped and len(x) <= MOST_PIXELS:
            reason = None
        fit = _after(begun.iterations, begun.evaluations, replace(step, reason=reason))
        yield fit
        if fit.reason is not None:
            return fit
        last = step.value
    return fit


def _after(iterations: int, evaluations: int, fit: Fit) -> Fit:
    """Return a fit that counts on from so many."""
    counts = iterations + fit.iterations, evaluations + fit.evaluations
    return replace(fit, iterations=counts[0], evaluations=counts[1])

"""How problems descend: what L-BFGS does with what it has found, in a few numbers for each.

A minimiser is asked for the next `Step` after every evaluation, and sees no vector. Its numbers are
those of one problem, or arrays over R that descend side by side, each at its own pace (see
`line_search`). Lesson: lessons/07_lbfgs.py
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from tinyleak.optim.line_search import Evaluation, Numbers, Point, Search, no, strong_wolfe, where

LineSearch: TypeAlias = Literal["strong-wolfe", "none"]
FIRST_MOVE = 0.1  # how far x moves in the first trial, at most; the search corrects it tenfold
NOISE = 10  # the rounding error of a value, in units of its last place
PATIENCE = 10  # iterations without progress after which a problem has stalled


class Step(NamedTuple):
    """What is to be done before the next evaluation, in the order of the fields."""

    accept: Numbers  # whether to move x to the point evaluated last, for a new direction there
    curvature: Numbers  # the sᵀy of the move; where positive, H learns from (s, y)
    scale: Numbers  # where positive, H becomes scale·I, so that d = −scale·∇f(x)
    length: Numbers  # evaluate at x + length·d
    reason: Numbers  # why the descent is over, as an index of `REASONS`


REASONS = (None, "converged", "stationary", "stalled", "non-finite", "out of iterations")
RUNNING, CONVERGED, STATIONARY, STALLED, NON_FINITE, OUT = map(np.int64, range(6))


class Descent:
    """L-BFGS with a line search, and steepest descent where that fails."""

    def __init__(self, epsilon: float, tolerance_gradient: float, tolerance_change: float) -> None:
        """`epsilon` is the relative rounding error of the values; for the others see `lbfgs`."""
        self.noise, self.share = NOISE * epsilon, tolerance_change
        self.tolerance_gradient = tolerance_gradient

    def begin(self, found: Evaluation) -> Step:
        self.value = self.ceiling = self.lowest = found.value
        self.norm = self.flattest = found.gradient_norm
        self.vanishing = self.tolerance_gradient * self.norm
        self.search, self.has_pairs = Search(), self.norm < 0
        self.patience, self.moved = where(self.has_pairs, 0, np.int64(PATIENCE)), FIRST_MOVE
        still = where(self.norm <= self.vanishing, STATIONARY, RUNNING)
        reason = where(found.is_finite(), still, NON_FINITE)
        return Step(no(self.has_pairs), 0.0, self.moved / self.norm, 1.0, reason)

    def go_on(self, found: Evaluation) -> Step:
        start = Point(0.0, self.value, found.start_slope)
        noise = self.noise * abs(self.value)
        self.search, taken, failed, length = strong_wolfe(
            self.search, start, found, noise, self.ceiling
        )
        # Without a step, go straight down the gradient or, if that was tried, give up.
        lost = where(found.is_finite(), STALLED, NON_FINITE)
        reason = where(failed & no(self.has_pairs), lost, RUNNING)
        self.value = where(taken, found.value, self.value)
        self.norm = where(taken, found.gradient_norm, self.norm)
        lower = taken & (self.value < self.lowest - self.share * abs(self.lowest))
        flatter = taken & (self.norm < self.flattest - self.share * self.flattest)
        self.lowest = where(lower, self.value, self.lowest)
        self.flattest = where(flatter, self.norm, self.flattest)
        self.patience = where(lower | flatter, np.int64(PATIENCE), self.patience - taken)
        reason = where(taken & (self.patience == 0), STALLED, reason)
        reason = where(taken & (self.norm <= self.vanishing), STATIONARY, reason)
        self.moved = where(taken, found.step * found.direction_norm, self.moved)
        curvature = where(taken, found.step * found.slope_change, 0.0)
        self.has_pairs = (self.has_pairs & no(failed)) | (curvature > 0)
        # sᵀy ≤ 0, since the slope falls further: H learns nothing, so that length is tried again.
        restart = (failed | taken) & no(self.has_pairs)
        return Step(taken, curvature, where(restart, self.moved / self.norm, 0.0), length, reason)

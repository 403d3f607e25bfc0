"""How problems descend by L-BFGS, in a few numbers for each.

A minimiser is shown what every evaluation has found, and answers with the `Step` to be made. Its
numbers may be arrays, (R,), for R problems, each at its own pace. Lesson: lessons/07_lbfgs.py
"""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from tinyleak.optim.line_search import Evaluation, Numbers, Point, Search, strong_wolfe, where

LineSearch: TypeAlias = Literal["strong-wolfe", "none"]
FIRST_MOVE = 0.1  # how far x moves in the first trial, at most; the search corrects it tenfold
NOISE = 10  # the rounding error of a value, in units of its last place
PATIENCE = 10  # iterations without progress after which a problem has stalled
REASONS = (None, "converged", "stationary", "stalled", "non-finite", "out of iterations")
RUNNING, CONVERGED, STATIONARY, STALLED, NON_FINITE, OUT = map(np.int64, range(6))


class Step(NamedTuple):
    """What is to be done before the next evaluation, in the order of the fields."""

    accept: Numbers  # whether to move x to the point evaluated last, and take a new direction
    curvature: Numbers  # the sᵀy of the move; where positive, H learns from (s, y)
    scale: Numbers  # where positive, H becomes scale·I, so that d = −scale·∇f(x)
    length: Numbers  # evaluate at x + length·d
    reason: Numbers  # why the descent is over, as an index of `REASONS`


class Descent:
    """By L-BFGS with a line search, and by steepest descent where that fails."""

    def __init__(self, epsilon: float, tolerance_gradient: float, tolerance_change: float) -> None:
        """`epsilon` is the relative rounding error of the values; for the others see `lbfgs`."""
        self.noise, self.share, self.still = NOISE * epsilon, tolerance_change, tolerance_gradient

    def begin(self, found: Evaluation) -> Step:
        """Take in the start, and go down its gradient."""
        self.value = self.ceiling = self.lowest = found.value
        self.norm = self.flattest = found.gradient_norm
        self.vanishing, self.moved = self.still * self.norm, FIRST_MOVE
        self.search, self.has_pairs, self.patience = Search(), np.False_, np.int64(PATIENCE)
        reason = where(self.norm <= self.vanishing, STATIONARY, RUNNING)
        reason = where(found.is_finite(), reason, NON_FINITE)
        return Step(np.True_, 0.0, self.moved / self.norm, 1.0, reason)

    def go_on(self, found: Evaluation) -> Step:
        """Take in a later evaluation."""
        start, noise = Point(0.0, self.value, found.start_slope), self.noise * abs(self.value)
        self.search, over, taken, length = strong_wolfe(
            self.search, start, found, noise, self.ceiling
        )
        failed = over ^ taken  # Go straight down the gradient or, if that was tried, give up.
        lost = where(found.is_finite(), STALLED, NON_FINITE)
        reason = where(failed & ~self.has_pairs, lost, RUNNING)
        self.value = where(taken, found.value, self.value)
        self.norm = where(taken, found.gradient_norm, self.norm)
        lower = self.value < self.lowest - self.share * abs(self.lowest)
        flatter = self.norm < self.flattest - self.share * self.flattest
        self.lowest = where(lower, self.value, self.lowest)
        self.flattest = where(flatter, self.norm, self.flattest)
        self.patience = where(lower | flatter, np.int64(PATIENCE), self.patience - taken)
        reason = where(self.patience == 0, STALLED, reason)
        reason = where(taken & (self.norm <= self.vanishing), STATIONARY, reason)
        self.moved = where(taken, found.step * found.direction_norm, self.moved)
        curvature = where(taken, found.step * found.slope_change, 0.0)
        self.has_pairs = where(failed, np.False_, self.has_pairs | (curvature > 0))
        # sᵀy ≤ 0, since the slope falls further, so H learns nothing: try that length again.
        straight = over & ~self.has_pairs
        return Step(taken, curvature, where(straight, self.moved / self.norm, 0.0), length, reason)

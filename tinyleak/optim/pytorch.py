"""Descent by unit steps, as `torch.optim.LBFGS` does by default: every step is taken."""

import numpy as np

from tinyleak.optim.descent import NON_FINITE, OUT, RUNNING, STALLED, STATIONARY, Step
from tinyleak.optim.line_search import Evaluation, Numbers, where

LEAST_CURVATURE = 1e-10  # a pair with a smaller sᵀy teaches H nothing; PyTorch's number


class UnitSteps:
    """Take every step of length 1 that L-BFGS proposes, whatever it finds.

    Only the very first step is shortened, to a length of 1 in the sum of its components. A gradient
    step that follows because that one gave no pair is not. PyTorch evaluates an outer step's first
    point a second time; here it is not evaluated again.
    """

    def __init__(
        self,
        iterations: int,
        inner_iterations: int,
        tolerance_gradient: float,
        tolerance_change: float,
    ) -> None:
        """Be told when to end.

        Args:
            iterations: how many iterations the outer steps comprise, if none ends early. One that
                does is spent, as in PyTorch: so 300 outer steps of 20 are 6000 iterations.
            inner_iterations: how many iterations there are to an outer step.
            tolerance_gradient: stationary when no component of the gradient exceeds it.
            tolerance_change: the outer step ends early when the value or every component of x
                changed by less, and the problem has stalled when the slope is.
        """
        self.inner = inner_iterations
        self.most = -(-iterations // self.inner) * self.inner
        self.tolerance_gradient, self.tolerance_change = tolerance_gradient, tolerance_change

    def begin(self, found: Evaluation) -> Step:
        """Take a first step against the gradient."""
        self.value, self.has_pairs, self.spent = found.value, np.False_, np.int64(0)
        scale = where(found.gradient_sum > 1, 1 / found.gradient_sum, 1.0)
        return Step(np.True_, 0.0, scale, 1.0, self._ended(found))

    def go_on(self, found: Evaluation) -> Step:
        """Take another step."""
        reason = self._ended(found)
        reason = where(found.start_slope > -self.tolerance_change, STALLED, reason)
        curvature = where(found.slope_change > LEAST_CURVATURE, found.slope_change, 0.0)
        self.has_pairs = self.has_pairs | (curvature > 0)
        change, self.value = abs(found.value - self.value), found.value
        early = (found.direction_norm <= self.tolerance_change) | (change < self.tolerance_change)
        outer = (self.spent // self.inner + 1) * self.inner
        self.spent = where(early, outer, self.spent + 1)
        accept = (reason == RUNNING) | (reason == STATIONARY)
        reason = where((reason == RUNNING) & (self.spent >= self.most), OUT, reason)
        return Step(accept, curvature, where(self.has_pairs, 0.0, 1.0), 1.0, reason)

    def _ended(self, found: Evaluation) -> Numbers:
        """Return why the problem is over by what was found, or `RUNNING`."""
        flat = where(found.gradient_norm <= self.tolerance_gradient, STATIONARY, RUNNING)
        return where(found.is_finite(), flat, NON_FINITE)

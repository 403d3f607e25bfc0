"""The vectors of problems that descend side by side, and the work on them, all on the device.

An evaluation ends with one read of a few numbers for each problem, the only time the host waits for
the device. What the host sends, step lengths and indices, it sends without waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyleak.backend import Array, array_module, to_numpy
from tinyleak.optim.descent import Step
from tinyleak.optim.line_search import Evaluation, Numbers
from tinyleak.optim.quasi_newton import InverseHessian, column


class Batch:
    """One problem, at x, (n,); or A of them, (A, n), each at a row.

    Each was evaluated last at its row of `trial`; a move makes a new array. `gradients`,
    (…, 3, n), are the gradient at `trial`, how much it differs from that at `x`, and that at `x`:
    one array because all three are multiplied with the same things.
    """

    def __init__(self, x: Array, history: int) -> None:
        """Begin at x with nothing evaluated and no direction."""
        self.xp: Any = array_module(x)
        *several, n = x.shape
        self.x = self.trial = x
        self.directions = self.xp.zeros_like(x)
        self.gradients = self.xp.zeros((*several, 3, n), dtype=x.dtype)
        self.numbers = self.xp.zeros((*several, 7), dtype=x.dtype)  # of an `Evaluation`
        self.inverse_hessian = InverseHessian(x, history)

    def evaluate(self, objective: Callable[[Array], tuple[Array, Array]], length: Numbers) -> Evaluation:
        """Evaluate the objective once, each problem at x + length·d."""
        # Wild steps may overflow; the line search sees that in the numbers and draws back.
        with np.errstate(all="ignore"):
            self.trial = self.x + column(self.x, length) * self.directions
        value, gradient = objective(self.trial.copy())
        with np.errstate(all="ignore"):
            new, change, old = (self.gradients[..., row, :] for row in range(3))
            new[...] = gradient
            self.xp.subtract(new, old, out=change)
            slopes = self.xp.matmul(self.gradients, self.directions[..., None])
            size = abs(new)
            self.numbers[..., :3] = slopes[..., 0]
            self.numbers[..., 3] = value
            self.numbers[..., 4] = size.max(-1)
            self.numbers[..., 5] = size.sum(-1)
            return Evaluation(length, *to_numpy(self.numbers).astype(float).T)

    def obey(self, step: Step, found: Evaluation) -> None:
        """Move, learn and turn as the problems want; who wants no step stays where it is."""
        new, change, old = (self.gradients[..., row, :] for row in range(3))
        going = step.length > 0
        turning = going & (step.accept | (step.scale > 0))
        with np.errstate(all="ignore"):
            self.x = self._where(step.accept, self.trial, self.x)
            if step.accept.any():
                old[...] = self._where(step.accept, new, old)
            if (step.curvature > 0).any():
                s = column(self.x, found.step) * self.directions
                self.inverse_hessian.learn(s, change, step.curvature)
            if (step.scale > 0).any():
                self.inverse_hessian.forget(step.scale)
            if turning.any():
                self.directions = self._where(
                    turning, self.inverse_hessian.direction(old), self.directions
                )
            if not going.all():
                self.directions = self._where(going, self.directions, 0 * self.x)
            self.numbers[..., 6] = abs(self.directions).max(-1)

    def keep(self, rows: Array) -> None:
        """Keep only the problems at these rows."""
        at = self.xp.asarray(rows)
        self.x, self.directions = self.x[at], self.directions[at]
        self.gradients, self.numbers = self.gradients[at], self.numbers[at]
        self.inverse_hessian.keep(rows)

    def _where(self, condition: Numbers, one: Array, other: Array) -> Array:
        if condition.all():
            return one
        if not condition.any():
            return other
        return self.xp.where(self.xp.asarray(condition[:, None]), one, other)

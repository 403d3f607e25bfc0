"""The vectors of problems that descend side by side, and the work on them, all on the device.

An evaluation ends with one read of a few numbers for each problem, the only time the host waits for
the device. What the host sends, step lengths and indices, it sends without waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyleak.backend import Array, array_module, to_numpy
from tinyleak.optim.descent import RUNNING, Step
from tinyleak.optim.limits import Course
from tinyleak.optim.line_search import Evaluation, Numbers, no, some
from tinyleak.optim.quasi_newton import InverseHessian, column, times


class Batch:
    """One problem, at x, (n,); or A of them, (A, n), each at a row.

    Each was evaluated last at its row of `trial`; a move makes a new array. `gradients`,
    (…, 3, n), are the gradient at `trial`, how much it differs from that at `x`, and that at `x`:
    one array because all three are multiplied with the same things.
    """

    def __init__(self, x: Array, history: int, course: Course) -> None:
        """Begin at x with nothing evaluated and no direction."""
        self.xp: Any = array_module(x)
        *several, n = x.shape
        self.x = self.trial = x
        self.course, self.length = course, np.zeros(several)[()]
        self.directions = self.xp.zeros_like(x)
        self._hold(self.xp.zeros((*several, 3, n), dtype=x.dtype))
        self.numbers = self.xp.zeros((*several, 7), dtype=x.dtype)  # of an `Evaluation`
        self.inverse_hessian = InverseHessian(x, history)
        self.rows: Any = np.arange(several[0]) if several else ()  # of the problems in the batch
        self.known: Any = None  # the numbers of those in it or not, once some have left

    def advance(self, objective: Callable[[Array], tuple[Array, Array]]) -> Step:
        """Evaluate the objective once, let each problem decide, and do as it says."""
        value, gradient = objective(self.trial.copy())
        # Wild steps may overflow; the line search sees that in the numbers and draws back.
        with np.errstate(all="ignore"):
            self.new[...] = gradient
            self.xp.subtract(self.new, self.old, out=self.change)
            size = abs(self.new)
            self.numbers[..., :3] = times(self.gradients, self.directions)
            self.numbers[..., 3] = value
            self.numbers[..., 4], self.numbers[..., 5] = size.max(-1), size.sum(-1)
            found = Evaluation(self.length, *to_numpy(self.numbers).astype(float).T)
            if self.known is None:
                step = mine = self.course.follow(found)
            else:  # problems that have left keep their numbers
                self.known[:, self.rows] = found
                step = self.course.follow(Evaluation(*self.known.copy()))
                mine = Step(*(numbers[self.rows] for numbers in step))
            self._obey(mine)
        return step

    def _obey(self, step: Step) -> None:
        """Move, learn, turn and step; who wants no step stays where it is."""
        going = step.reason == RUNNING
        turning = going & (step.accept | (step.scale > 0))
        if some(step.accept):
            self.x = self._where(step.accept, self.trial, self.x)
            self.old[...] = self._where(step.accept, self.new, self.old)
        if some(step.curvature > 0):
            s = column(self.x, self.length) * self.directions
            self.inverse_hessian.learn(s, self.change, step.curvature)
        if some(step.scale > 0):
            self.inverse_hessian.forget(step.scale)
        if some(turning):
            turned = self.inverse_hessian.direction(self.old)
            self.directions = self._where(turning, turned, self.directions)
        if some(no(going)):
            self.directions = self._where(going, self.directions, 0 * self.x)
        self.numbers[..., 6] = abs(self.directions).max(-1)
        self.length = step.length
        self.trial = self.x + column(self.x, self.length) * self.directions

    def keep(self, rows: Array) -> None:
        """Keep only the problems at these rows."""
        at = self.xp.asarray(rows)
        self.x, self.trial, self.directions = self.x[at], self.trial[at], self.directions[at]
        self.numbers = self.numbers[at]
        self._hold(self.gradients[at])
        self.inverse_hessian.keep(rows)
        if self.known is None:
            self.known = np.empty((len(Evaluation._fields), len(self.rows)))
        self.rows, self.length = self.rows[rows], self.length[rows]

    def _hold(self, gradients: Array) -> None:
        self.gradients = gradients
        self.new, self.change, self.old = (gradients[..., row, :] for row in range(3))

    def _where(self, condition: Numbers, one: Array, other: Array) -> Array:
        if not some(no(condition)):
            return one
        if not some(condition):
            return other
        return self.xp.where(self.xp.asarray(condition[:, None]), one, other)

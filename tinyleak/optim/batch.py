"""The vectors of problems that descend side by side, and the work on them, all on the device.

An evaluation ends with one read of a few numbers for each problem, the only time the host waits for
the device. What the host sends, step lengths and indices, it sends without waiting.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyleak.backend import Array, array_module, to_numpy
from tinyleak.optim.descent import RUNNING, Step
from tinyleak.optim.limits import Course
from tinyleak.optim.line_search import Evaluation, Numbers

FIRST_ROOM = 8  # for so many pairs there is room at first, so that short runs stay cheap


class Batch:
    """One problem, at x, (n,); or A of the R that were begun, (A, n), each at a row.

    Each is evaluated next at its row of `trial`; a move makes a new array. `gradients`, (…, 3, n),
    are the gradient at `trial`, how much it differs from that at `x`, and that at `x`: one array
    because all three are multiplied with the same things.
    """

    def __init__(
        self, x: Array, course: Course, hessian: Callable[[Array, int], Any], history: int
    ) -> None:
        """Begin at x with nothing evaluated and no direction, and at most `history` pairs.

        What makes directions of pairs, like x and so many, is a `quasi_newton.InverseHessian`.
        """
        self.xp: Any = array_module(x)
        *several, n = x.shape
        self.x = self.trial = x
        self.length = np.zeros(several)[()]  # how far along d `trial` is from `x`, on the host
        self.along = self._column(self.length)  # and on the device
        self.course, self.history = course, history
        self.learned = 0  # pairs, those that have learnt most
        self.directions = self.xp.zeros_like(x)
        self.numbers = self.xp.zeros((*several, 7), dtype=x.dtype)  # of an `Evaluation`
        self.inverse_hessian = H = hessian(x, min(history, FIRST_ROOM))
        self.buffers = [H.S, H.Y, H.inverse]  # of which H sees what is in use
        self.rows = np.arange(course.reason.size)  # which of the R, on the host
        self.known: Any = None  # the numbers of all R, once some have left
        self._hold(self.xp.zeros((*several, 3, n), dtype=x.dtype))

    def advance(self, objective: Callable[[Array], tuple[Any, Array]]) -> bool:
        """Evaluate the objective once, let each problem decide; do so. Whether any has moved."""
        value, gradient = objective(self.trial.copy())
        # Wild steps may overflow; the line search sees that in the numbers and draws back.
        with np.errstate(all="ignore"):
            self.new[...] = gradient
            self.xp.subtract(self.new, self.old, out=self.change)
            size = abs(self.new)
            self.numbers[..., :3] = _slopes(self.gradients, self.directions)
            self.numbers[..., 3] = value
            self.numbers[..., 4], self.numbers[..., 5] = size.max(-1), size.sum(-1)
            found = Evaluation(self.length, *to_numpy(self.numbers).astype(float).T)
            if self.known is None:
                step = self.course.follow(found)
            else:  # problems that have left keep their numbers
                self.known[:, self.rows] = found
                step = self.course.follow(Evaluation(*self.known.copy()))
                step = Step(*(numbers[self.rows] for numbers in step))
            self._obey(step)
        return some(step.accept)

    def _obey(self, step: Step) -> None:
        """Move, learn, turn and step; who is over stays where it is."""
        over, learning, restart = step.reason != RUNNING, step.curvature > 0, step.scale > 0
        H, accepted = self.inverse_hessian, self._mask(step.accept)
        self.x = self._where(accepted, self.trial, self.x)
        if accepted is not False:
            self.old[...] = self._where(accepted, self.new, self.old)
        if some(learning):
            self._make_room()
            s, curvature = self.along * self.directions, self._column(step.curvature)
            H.learn(s, self.change, curvature, self._which(learning))
        turning = accepted
        if some(restart):
            which, scale = self._which(restart), self._column(step.scale)
            H.forget(scale[which] if which else scale, which)
            turning = self._mask(step.accept | restart)
        if turning is not False:
            self.directions = self._where(turning, H.direction(self.old), self.directions)
        if some(over):
            self.directions = self._where(
                self._mask(over), self.xp.zeros_like(self.x), self.directions
            )
        self.numbers[..., 6] = abs(self.directions).max(-1)
        self.length, self.along = step.length, self._column(step.length)
        self.trial = self.x + self.along * self.directions

    def keep(self, rows: Array) -> None:
        """Keep only the problems at these rows."""
        if self.known is None:
            self.known = np.empty((len(Evaluation._fields), len(self.rows)))
        self.rows, self.length = self.rows[rows], self.length[rows]
        at = self.xp.asarray(rows)
        self.x, self.trial, self.directions = self.x[at], self.trial[at], self.directions[at]
        self.along = self._column(self.length)
        self.numbers, H = self.numbers[at], self.inverse_hessian
        H.scale, H.counts, k = H.scale[at], H.counts[at], H.S.shape[-2]
        self.buffers = S, Y, inverse = [buffer[at] for buffer in self.buffers]
        H.S, H.Y, H.inverse = S[:, :k], Y[:, :k], inverse[:, :k, :k]
        self._hold(self.gradients[at])

    def _hold(self, gradients: Array) -> None:
        self.gradients = gradients
        self.new, self.change, self.old = (gradients[..., row, :] for row in range(3))

    def _make_room(self) -> None:
        """Let the pairs have one more place, in buffers that are doubled when they are full."""
        if self.learned == self.history:
            return
        self.learned += 1
        room = self.buffers[0].shape[-2]
        if self.learned > room:
            more, none = (0, min(room, self.history - room)), [(0, 0)] * (self.x.ndim - 1)
            ends = [(0, 0), (0, 0), more]  # R⁻¹ grows along both of its axes
            self.buffers = [
                self.xp.pad(buffer, (*none, more, end))
                for buffer, end in zip(self.buffers, ends, strict=True)
            ]
        S, Y, inverse = self.buffers
        # What is in use; but CuPy would copy a part of each of R matrices to multiply with it.
        in_parts = self.xp is np or self.x.ndim == 1
        H, k = self.inverse_hessian, self.learned if in_parts else S.shape[-2]
        H.S, H.Y, H.inverse = S[..., :k, :], Y[..., :k, :], inverse[..., :k, :k]

    def _mask(self, condition: Numbers) -> Any:
        """Return a condition as a column on the device, or one bool if it is the same for all."""
        if isinstance(condition, np.ndarray) and condition.any() and not condition.all():
            return self.xp.asarray(condition[:, None])
        return some(condition)

    def _where(self, mask: Any, one: Array, other: Array) -> Array:
        if isinstance(mask, bool):
            return one if mask else other
        return self.xp.where(mask, one, other)

    def _which(self, condition: Numbers) -> tuple[Array, ...]:
        """Return the index of the problems for which it holds; that of a single one is ()."""
        if isinstance(condition, np.ndarray):
            return (self.xp.asarray(np.flatnonzero(condition)),)
        return ()

    def _column(self, numbers: Numbers) -> Any:
        """Return a number for each problem as a column on the device; a single one stays here."""
        if isinstance(numbers, np.ndarray):
            return self.xp.asarray(numbers[:, None].astype(self.x.dtype))
        return float(numbers)


def some(condition: Numbers) -> bool:
    """Return whether the condition holds for any problem."""
    return bool(condition.any() if isinstance(condition, np.ndarray) else condition)


def _slopes(gradients: Array, d: Array) -> Array:
    """Return gᵀd of the gradients, (…, 3, n), of each problem."""
    return gradients.dot(d) if d.ndim == 1 else (gradients @ d[..., None])[..., 0]

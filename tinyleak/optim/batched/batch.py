"""The arrays of the problems that are still running, and the work on them, all on the device.

An evaluation ends with one read of a few numbers for each problem, the only time the host waits
for the device. What the host sends, step lengths and indices, it sends without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tinyleak.backend import Array, array_module, to_numpy
from tinyleak.optim.batched.history import History
from tinyleak.optim.line_search import Evaluation, Step

ObjectiveOfMany: TypeAlias = Callable[[Array, npt.NDArray[np.int64]], tuple[Array, Array]]
"""Given x, (A, n), and which of the problems its rows are, (A,): values (A,), gradients (A, n).

It may write to x, and reuse the arrays that it returns."""

IDLE = Step(length=0.0, reason="idle")
"""What a finished problem wants while it waits to leave the batch."""


class Batch:
    """A problems of the R that were begun.

    Each is at a row of `x` and was evaluated last at that of `trial`, both (A, n); a move makes a
    new array. `gradients`, (A, 3, n), are the gradient at `trial`, how much it differs from that at
    `x`, and that at `x`: one array because all three are multiplied with the same things.
    """

    def __init__(self, start: Array, history: int) -> None:
        """Begin at `start`, (R, n), with nothing evaluated and no direction."""
        self.xp: Any = array_module(start)
        problems, n = start.shape
        self.rows = np.arange(problems)  # which of the R problems these are, on the host
        self.x = self.trial = self._all = start
        self.lengths = [0.0] * problems  # how far along d `trial` is from `x`, on the host
        self.directions = self.xp.zeros_like(start)  # d, (A, n)
        self.gradients = self.xp.zeros((problems, 3, n), dtype=start.dtype)
        self.numbers = self.xp.zeros((problems, 7), dtype=start.dtype)  # the rest of `Evaluation`s
        self.history = History(start, history)  # the pairs from which the directions come

    def evaluate(self, objective: ObjectiveOfMany, lengths: list[float]) -> list[Evaluation]:
        """Evaluate the objective once, each problem at x + length·d."""
        self.lengths = lengths
        # Wild steps may overflow; the line search sees that in the numbers and draws back.
        with np.errstate(over="ignore", invalid="ignore"):
            self.trial = self.x + self._column(lengths) * self.directions
        values, gradients = objective(self.trial.copy(), self.rows)
        self._check(values, gradients)
        with np.errstate(over="ignore", invalid="ignore"):
            new, change, old = self.gradients[:, 0], self.gradients[:, 1], self.gradients[:, 2]
            new[...] = gradients
            self.xp.subtract(new, old, out=change)
            slopes = self.xp.matmul(self.gradients, self.directions[:, :, None])
            self.numbers[:, :3] = slopes[:, :, 0]
            self.numbers[:, 3] = values
            magnitudes = abs(new)
            self.numbers[:, 4] = magnitudes.max(axis=1)
            self.numbers[:, 5] = magnitudes.sum(axis=1)
        return list(map(Evaluation, lengths, *to_numpy(self.numbers).T.tolist()))

    def obey(self, steps: Sequence[Step]) -> None:
        """Move, turn and restart as the problems want."""
        moving = [step.accept for step in steps]
        restarts = [row for row, step in enumerate(steps) if step.scale]
        ended = [row for row, step in enumerate(steps) if step.reason not in (None, IDLE.reason)]
        # A direction that overflows is recognised by its slope.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if all(moving):
                self.x = self.trial
                self.gradients[:, 2] = self.gradients[:, 0]
                self.directions = self._turn(steps)
            elif any(moving):
                movers = self._column(moving)
                self.x = self.xp.where(movers, self.trial, self.x)
                self.xp.copyto(self.gradients[:, 2], self.gradients[:, 0], where=movers)
                self.directions = self.xp.where(movers, self._turn(steps), self.directions)
            if restarts:  # these forget their pairs and go down the gradient, d = −scale·∇f(x)
                rows = self.xp.asarray(restarts)
                scales = np.array([steps[row].scale for row in restarts], dtype=self.x.dtype)
                column = self.xp.asarray(scales[:, None])
                self.history.forget(restarts, column)
                self.directions[rows] = -column * self.gradients[rows, 2]
            if ended:
                self.directions[self.xp.asarray(ended)] = 0
            self.numbers[:, 6] = abs(self.directions).max(axis=1)

    def _turn(self, steps: Sequence[Step]) -> Array:
        """Return the next directions of all, (A, n), the last moves' pairs taken in."""
        return self.history.next_directions(self.directions, self.gradients, self.lengths, steps)

    def everyone(self) -> Array:
        """Return a copy of where all R problems are, the finished ones too, (R, n)."""
        if len(self.rows) == len(self._all):
            return self.x.copy()
        x = self._all.copy()
        x[self.xp.asarray(self.rows)] = self.x
        return x

    def keep(self, indices: Sequence[int]) -> None:
        """Keep only the problems of these indices in the batch."""
        self._all = self.everyone()
        index = self.xp.asarray(indices)
        self.rows = self.rows[indices]
        self.x, self.directions = self.x[index], self.directions[index]
        self.gradients, self.numbers = self.gradients[index], self.numbers[index]
        self.history.keep(indices)

    def _column(self, numbers: Sequence[float]) -> Any:
        """Send one number for each problem to the device, (A, 1); a single one needs no sending."""
        if len(numbers) == 1:
            return numbers[0]
        kind = np.bool_ if isinstance(numbers[0], bool) else self.x.dtype
        return self.xp.asarray(np.array(numbers, dtype=kind)[:, None])

    def _check(self, values: Array, gradients: Array) -> None:
        shape, dtype = self.x.shape, self.x.dtype
        if values.shape != shape[:1] or gradients.shape != shape:
            raise ValueError(
                f"the objective answered x of shape {shape} with values {values.shape} and "
                f"gradients {gradients.shape}; return values {shape[:1]} and gradients {shape}"
            )
        if values.dtype != dtype or gradients.dtype != dtype:
            raise TypeError(
                f"the objective answered {dtype} x with {values.dtype} values and "
                f"{gradients.dtype} gradients; return both as {dtype}"
            )

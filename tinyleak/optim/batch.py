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
from tinyleak.optim.history import History
from tinyleak.optim.messages import Look, Order

Objective: TypeAlias = Callable[[Array, npt.NDArray[np.int64]], tuple[Array, Array]]
"""Given x, (A, n), and which of the problems its rows are, (A,): values (A,), gradients (A, n)."""

IDLE = Order(step=0.0, reason="idle")
"""What a finished problem wants while it waits to leave the batch."""


class Batch:
    """A problems of the R that were begun.

    Attributes:
        rows: (A,) which of the R problems these are, on the host.
        x: (A, n) where each problem is. Never written to: a move makes a new array.
        trial: (A, n) where each problem was evaluated last.
        directions: (A, n) d.
        gradients: (A, 3, n) the gradient at `trial`, how much it differs from that at `x`, and
            that at `x`; one array because all three are multiplied with the same things.
        looks: (A, 7) the fields of each problem's `Look`.
        history: the pairs from which the directions come.
    """

    def __init__(self, start: Array, history: int) -> None:
        """Begin at `start`, (R, n), with nothing evaluated and no direction."""
        self.xp: Any = array_module(start)
        problems, n = start.shape
        self.rows = np.arange(problems)
        self.x = self.trial = self._all = start
        self.directions = self.xp.zeros_like(start)
        self.gradients = self.xp.zeros((problems, 3, n), dtype=start.dtype)
        self.looks = self.xp.zeros((problems, 7), dtype=start.dtype)
        self.history = History(start, history)

    def evaluate(self, objective: Objective, steps: Sequence[float]) -> list[Look]:
        """Evaluate the objective once, each problem at x + step·d, and report what that shows."""
        # Wild steps may overflow; the line search sees that in the looks and draws back.
        with np.errstate(over="ignore", invalid="ignore"):
            self.trial = self.x + self._column(steps) * self.directions
        values, gradients = objective(self.trial, self.rows)
        self._check(values, gradients)
        with np.errstate(over="ignore", invalid="ignore"):
            new, change, old = self.gradients[:, 0], self.gradients[:, 1], self.gradients[:, 2]
            new[...] = gradients
            self.xp.subtract(new, old, out=change)
            slopes = self.xp.matmul(self.gradients, self.directions[:, :, None])
            self.looks[:, :3] = slopes[:, :, 0]
            self.looks[:, 3] = values
            magnitudes = abs(new)
            self.looks[:, 4] = magnitudes.max(axis=1)
            self.looks[:, 5] = magnitudes.sum(axis=1)
        return [Look(*numbers) for numbers in to_numpy(self.looks).tolist()]

    def obey(self, orders: Sequence[Order]) -> None:
        """Move, turn and restart as the problems want."""
        moving = [order.accept for order in orders]
        restarts = [row for row, order in enumerate(orders) if order.scale]
        ended = [row for row, order in enumerate(orders) if order.reason not in (None, IDLE.reason)]
        # Directions of nonsense are found out by their slopes.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if all(moving):
                self._move_all(orders)
            elif any(moving):
                self._move_some(orders, self._column(moving))
            if restarts:
                self._restart(restarts, [orders[row].scale for row in restarts])
            if ended:
                self.directions[self.xp.asarray(ended)] = 0
            self.looks[:, 6] = abs(self.directions).max(axis=1)

    def _move_all(self, orders: Sequence[Order]) -> None:
        self.x = self.trial
        self.gradients[:, 2] = self.gradients[:, 0]
        self.directions = self.history.next_directions(self.directions, self.gradients, orders)

    def _move_some(self, orders: Sequence[Order], moving: Array) -> None:
        self.x = self.xp.where(moving, self.trial, self.x)
        self.xp.copyto(self.gradients[:, 2], self.gradients[:, 0], where=moving)
        directions = self.history.next_directions(self.directions, self.gradients, orders)
        self.directions = self.xp.where(moving, directions, self.directions)

    def everyone(self) -> Array:
        """Return where all R problems are, the finished ones too, (R, n); not to be written to."""
        if len(self.rows) == len(self._all):
            return self.x
        x = self._all.copy()
        x[self.xp.asarray(self.rows)] = self.x
        return x

    def keep(self, places: Sequence[int]) -> None:
        """Let all problems go but those at these places of the batch."""
        self._all = self.everyone()
        index = self.xp.asarray(places)
        self.rows = self.rows[places]
        self.x, self.directions = self.x[index], self.directions[index]
        self.gradients, self.looks = self.gradients[index], self.looks[index]
        self.history.keep(places)

    def _restart(self, restarts: Sequence[int], scales: Sequence[float]) -> None:
        """Let some problems forget their pairs and go down the gradient, d = −scale·∇f(x)."""
        rows = self.xp.asarray(restarts)
        column = self.xp.asarray(np.array(scales, dtype=self.x.dtype)[:, None])
        self.history.forget(restarts, column)
        self.directions[rows] = -column * self.gradients[rows, 2]

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

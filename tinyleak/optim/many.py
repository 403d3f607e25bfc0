"""L-BFGS that minimises many independent problems at once, each at its own pace."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tinyleak.backend import Array
from tinyleak.optim.batch import Batch
from tinyleak.optim.descent import REASONS, RUNNING, LineSearch
from tinyleak.optim.limits import course_of, own_start
from tinyleak.optim.quasi_newton import InverseHessian

ObjectiveOfMany: TypeAlias = Callable[[Array, npt.NDArray[np.int64]], tuple[Array, Array]]
"""Given x, (A, n), and which of the problems its rows are, (A,): values (A,), gradients (A, n).

It may write to x, and reuse the arrays that it returns."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class State:
    """Where all R problems are: the ones still running, and the finished ones where they ended.

    Nothing in a state changes later, so it may be kept.
    """

    x: Array  # (R, n) the iterates, on the device of the start
    values: npt.NDArray[np.float64]  # (R,) the objective at x
    # (R,) the largest component of the gradient at x, in magnitude.
    gradient_norms: npt.NDArray[np.float64]
    iterations: npt.NDArray[np.int64]  # (R,) moves made so far; the start is iterate 0
    # (R,) evaluations spent so far, those between two iterates included.
    evaluations: npt.NDArray[np.int64]
    finished: npt.NDArray[np.bool_]  # (R,) whether a problem has ended
    # R strings as in `Iterate`, or None where a problem is still running.
    reasons: tuple[str | None, ...]


def lbfgs_many(
    objective: ObjectiveOfMany,
    starts: Any,
    *,
    line_search: LineSearch = "strong-wolfe",
    history: int = 100,
    max_iterations: int = 1000,
    max_evaluations: int | None = None,
    tolerance_gradient: float | None = None,
    tolerance_change: float | None = None,
    inner_iterations: int = 20,
    goal: npt.ArrayLike = -inf,
) -> Iterator[State]:
    """Minimise R problems; yield the state at the start and whenever a problem has moved or ended.

    Each problem goes where `lbfgs` would take it; see there for the settings, which hold for each
    problem. An evaluation is one call of the objective with all running problems, each at its own
    point, whether it searches along a line or begins an iteration: none waits for another.

    Args:
        objective: given x, (A, n), and the indices of its problems among the R, (A,), returns the
            values, (A,), and gradients, (A, n), of x's dtype. A ≤ R shrinks as problems finish,
            each time to half or less.
        starts: (R, n), float32 or float64, of the array module that is to do the work; whole
            numbers become float64. Copied.
        goal: a value at or below which a problem has converged, one for all or (R,).

    Raises:
        ValueError: a setting out of range, or starts or an answer of the wrong shape.
        TypeError: starts, or an answer, of the wrong dtype.
    """
    x = own_start(starts, axes=2)
    goals = np.asarray(goal, dtype=np.float64)
    if goals.shape not in ((), (len(x),)):
        raise ValueError(f"goal has shape {goals.shape}; give one number, or {len(x)} of them")
    goals = np.broadcast_to(goals, len(x))
    if len(x) == 1:  # numbers are several times faster than arrays of one
        x, goals = x[0], goals[0]
    limits = goals, line_search, history, max_iterations, max_evaluations
    course = course_of(x.dtype, *limits, tolerance_gradient, tolerance_change, inner_iterations)
    return _states(objective, Batch(x, course, InverseHessian, history))


def _states(objective: ObjectiveOfMany, batch: Batch) -> Iterator[State]:
    """Evaluate, let every problem decide, do as they say; until all are over."""
    course, everyone = batch.course, batch.x
    running = np.ones(course.reason.size, bool)

    def evaluate(x: Array) -> tuple[Array, Array]:
        points = x.reshape(len(batch.rows), -1)
        values, gradients = objective(points, batch.rows)
        _check(points, values, gradients)
        return values.reshape(x.shape[:-1]), gradients.reshape(x.shape)

    while running.any():
        moved = batch.advance(evaluate)
        before, running = running, np.atleast_1d(course.reason == RUNNING)
        if moved or (running != before).any():
            if len(batch.rows) < len(running):
                everyone = everyone.copy()
                everyone[batch.xp.asarray(batch.rows)] = batch.x
            else:
                everyone = batch.x
            yield State(
                x=everyone.copy().reshape(len(running), -1),
                values=np.array(course.value, ndmin=1),
                gradient_norms=np.array(course.gradient_norm, ndmin=1),
                iterations=np.array(course.iterations, ndmin=1),
                evaluations=np.array(course.evaluations, ndmin=1),
                finished=~running,
                reasons=tuple(REASONS[reason] for reason in np.atleast_1d(course.reason)),
            )
        going = np.flatnonzero(running[batch.rows])
        if 0 < 2 * len(going) <= len(batch.rows):
            batch.keep(going)


def _check(x: Array, values: Array, gradients: Array) -> None:
    shape, dtype = x.shape, x.dtype
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

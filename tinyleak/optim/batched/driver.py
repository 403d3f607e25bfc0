"""L-BFGS that minimises many independent problems at once, each at its own pace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyleak.backend import Array
from tinyleak.optim.batched.batch import IDLE, Batch, ObjectiveOfMany
from tinyleak.optim.descent import LineSearch, Minimiser
from tinyleak.optim.limits import make_minimiser, own_start


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class State:
    """Where all R problems are: the ones still running, and the finished ones where they ended.

    Nothing in a state changes later, so it may be kept.

    Attributes:
        x: (R, n) the iterates, on the device of the start.
        values: (R,) the objective at x.
        gradient_norms: (R,) the largest component of the gradient at x, in magnitude.
        iterations: (R,) moves made so far; the start is iterate 0.
        evaluations: (R,) evaluations spent so far, those between two iterates included.
        finished: (R,) whether a problem has ended.
        reasons: R strings as in `Iterate`, or None where a problem is still running.
    """

    x: Array
    values: npt.NDArray[np.float64]
    gradient_norms: npt.NDArray[np.float64]
    iterations: npt.NDArray[np.int64]
    evaluations: npt.NDArray[np.int64]
    finished: npt.NDArray[np.bool_]
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
        line_search: see `lbfgs`, as for all that follow.
        history: pairs to keep for each problem.
        max_iterations: for each problem.
        max_evaluations: for each problem.
        tolerance_gradient: likewise.
        tolerance_change: likewise.
        inner_iterations: likewise.
        goal: a value at or below which a problem has converged, one for all or (R,).

    Raises:
        ValueError: a setting out of range, or starts or an answer of the wrong shape.
        TypeError: starts, or an answer, of the wrong dtype.
    """
    x = own_start(starts, axes=2)
    minimisers = [
        make_minimiser(
            *(x.dtype, enough, line_search, history, max_iterations, max_evaluations),
            *(tolerance_gradient, tolerance_change, inner_iterations),
        )
        for enough in _goals(goal, len(x))
    ]
    return _states(objective, Batch(x, history), minimisers)


def _states(
    objective: ObjectiveOfMany, batch: Batch, minimisers: list[Minimiser]
) -> Iterator[State]:
    """Evaluate, let every problem respond, do as they say; until all are finished."""
    problems = len(minimisers)
    values, gradient_norms = np.full((2, problems), nan)
    iterations = np.full(problems, -1)  # the start is accepted as iterate 0
    evaluations = np.zeros(problems, int)
    reasons: list[str | None] = [None] * problems
    steps = [next(minimiser) for minimiser in minimisers]
    lengths = [0.0] * problems
    while True:
        found = batch.evaluate(objective, lengths)
        evaluations[batch.rows] += [step.reason is None for step in steps]
        steps = [
            IDLE if step.reason else minimiser.send(one)
            for step, minimiser, one in zip(steps, minimisers, found, strict=True)
        ]
        batch.obey(steps)
        moved = [index for index, step in enumerate(steps) if step.accept]
        ended = [
            index for index, step in enumerate(steps) if step.reason not in (None, IDLE.reason)
        ]
        rows = batch.rows[moved]
        values[rows] = [found[index].value for index in moved]
        gradient_norms[rows] = [found[index].gradient_norm for index in moved]
        iterations[rows] += 1
        for index in ended:
            reasons[batch.rows[index]] = steps[index].reason
        if moved or ended:
            yield State(
                x=batch.everyone(),
                values=values.copy(),
                gradient_norms=gradient_norms.copy(),
                iterations=iterations.copy(),
                evaluations=evaluations.copy(),
                finished=np.array([reason is not None for reason in reasons]),
                reasons=tuple(reasons),
            )
        running = [index for index, step in enumerate(steps) if step.reason is None]
        if not running:
            return
        if 2 * len(running) <= len(steps):
            batch.keep(running)
            minimisers = [minimisers[index] for index in running]
            steps = [steps[index] for index in running]
        lengths = [step.length for step in steps]


def _goals(goal: npt.ArrayLike, problems: int) -> list[float]:
    goals = np.asarray(goal, dtype=np.float64)
    if goals.shape not in ((), (problems,)):
        raise ValueError(f"goal has shape {goals.shape}; give one number, or {problems} of them")
    return np.broadcast_to(goals, problems).tolist()

"""L-BFGS that minimises many independent problems at once, each at its own pace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, nan
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tinyleak.backend import Array
from tinyleak.optim.batch import IDLE, Batch, Objective
from tinyleak.optim.descent import descend, descend_by_unit_steps
from tinyleak.optim.messages import Course, Look, Order

LineSearch = Literal["strong-wolfe", "none"]


@dataclass(frozen=True, slots=True)
class State:
    """Where all R problems are: the ones still running, and the finished ones where they ended.

    Nothing in a state changes later: every move makes new arrays, so a state may be kept.

    Attributes:
        x: (R, n) the iterates, on the device of the start.
        values: (R,) the objective at x.
        gradient_norms: (R,) the largest component of the gradient at x, in magnitude.
        iterations: (R,) moves made so far; the start is iterate 0.
        evaluations: (R,) evaluations spent so far, those between two iterates included.
        finished: (R,) whether a problem has ended.
        reasons: R strings, or None where a problem is still running: "converged" (the goal is
            reached), "stationary" (the gradient has all but vanished elsewhere), "stalled" (no
            lower point can be found or told apart by the arithmetic), "non-finite" (the start, or
            all there is around x, is infinite or not a number), "out of iterations" (or out of
            evaluations).
    """

    x: Array
    values: npt.NDArray[np.float64]
    gradient_norms: npt.NDArray[np.float64]
    iterations: npt.NDArray[np.int64]
    evaluations: npt.NDArray[np.int64]
    finished: npt.NDArray[np.bool_]
    reasons: tuple[str | None, ...]


def lbfgs(
    objective: Objective,
    start: Array,
    *,
    line_search: LineSearch = "strong-wolfe",
    history: int = 100,
    max_iterations: int = 1000,
    max_evaluations: int | None = None,
    tolerance_gradient: float | None = None,
    tolerance_change: float | None = None,
    inner_iterations: int = 20,
    goal: float | npt.ArrayLike = -inf,
) -> Iterator[State]:
    """Minimise R problems; yield the state at the start and whenever a problem has moved or ended.

    The loop is the caller's: `for state in lbfgs(f, x0): ...` may look, save or stop at any time.
    An evaluation is one call of the objective with all running problems, each at its own point,
    whether it searches along a line or begins an iteration: no problem waits for another.

    `line_search="strong-wolfe"` (Nocedal and Wright, algorithms 3.5 and 7.5) never accepts a point
    with a larger value than the start's. `"none"` is the default behaviour of
    `torch.optim.LBFGS`, which takes every step of length 1 that L-BFGS proposes.

    Args:
        objective: given x, (A, n), and the indices of its problems among the R, (A,), returns the
            values, (A,), and gradients, (A, n). It may reuse the arrays it returns. A ≤ R shrinks
            as problems finish, each time to half or less.
        start: (R, n), float32 or float64, of the array module that is to do the work.
        line_search: "strong-wolfe" or "none".
        history: how many pairs of step and gradient change to keep, at least 1.
        max_iterations: iterations for each problem. With "none" they come in outer steps of
            `inner_iterations`; as in PyTorch, an outer step that a tolerance cuts short is spent.
            So 300 outer steps of 20 are `max_iterations=6000`. (PyTorch evaluates an outer step's
            first point a second time; here it is not evaluated again.)
        max_evaluations: evaluations for each problem; None is no limit.
        tolerance_gradient: a problem is stationary when the largest component of its gradient is
            at most this share of what it was at the start (by default 1e-15), or with "none" at
            most this, absolutely (by default 1e-7).
        tolerance_change: a problem has stalled when over ten iterations neither its value nor its
            gradient has fallen by more than this share (by default ten rounding errors). With
            "none": an outer step ends when value or x change by less, absolutely (by default 1e-9).
        inner_iterations: iterations to an outer step; only for "none".
        goal: a value at or below which a problem has converged, one for all or (R,).

    Raises:
        ValueError: a setting out of range, a start that is not (R, n), or an answer of the
            objective that does not fit it.
        TypeError: a start, or an answer, of the wrong dtype.
    """
    _check_start(start)
    if line_search not in get_args(LineSearch):
        raise ValueError(f'line search {line_search!r} is unknown; choose "strong-wolfe" or "none"')
    wolfe = line_search == "strong-wolfe"
    epsilon = float(np.finfo(start.dtype).eps)
    if tolerance_gradient is None:
        tolerance_gradient = 1e-15 if wolfe else 1e-7
    if tolerance_change is None:
        tolerance_change = 10 * epsilon if wolfe else 1e-9
    if max_evaluations is None:
        max_evaluations = sys.maxsize
    for name, number, least in (
        ("history", history, 1),
        ("max_iterations", max_iterations, 0),
        ("max_evaluations", max_evaluations, 1),
        ("inner_iterations", inner_iterations, 1),
        ("tolerance_gradient", tolerance_gradient, 0),
        ("tolerance_change", tolerance_change, 0),
    ):
        if not number >= least:
            raise ValueError(f"{name} is {number}; it must be at least {least}")

    def course() -> Course:
        if wolfe:
            return descend(epsilon, tolerance_gradient, tolerance_change)
        return descend_by_unit_steps(
            max_iterations, inner_iterations, tolerance_gradient, tolerance_change
        )

    problems = [
        _Problem(course(), float(enough), max_iterations, max_evaluations)
        for enough in _goals(goal, len(start))
    ]
    return _run(objective, Batch(start, history), problems)


class _Problem:
    """The host's side of one problem: its course, its limits, and what it has come to."""

    def __init__(
        self, course: Course, goal: float, max_iterations: int, max_evaluations: int
    ) -> None:
        self.course = course
        self.goal = goal
        self.max_iterations = max_iterations
        self.max_evaluations = max_evaluations
        self.value = self.gradient_norm = nan
        self.iterations = -1  # the start is accepted as iterate 0
        self.evaluations = 0
        self.reason: str | None = None
        next(course)

    def respond(self, look: Look) -> Order:
        """Take in what the last evaluation showed; say what is to be done next."""
        self.evaluations += 1
        order = self.course.send(look)
        if order.reason is None:
            order = self._limit(order, look)
        if order.accept:
            self.iterations += 1
            self.value, self.gradient_norm = look.value, look.gradient
        self.reason = order.reason
        return order

    def _limit(self, order: Order, look: Look) -> Order:
        finite = look.is_finite()
        if finite and look.value <= self.goal:
            return Order(accept=True, reason="converged")
        spent = self.evaluations >= self.max_evaluations
        if spent or self.iterations + order.accept >= self.max_iterations:
            lower = finite and look.value < self.value
            return Order(accept=order.accept or lower, reason="out of iterations")
        return order


def _run(objective: Objective, batch: Batch, problems: list[_Problem]) -> Iterator[State]:
    """Evaluate, let every problem respond, do as they say; until all are finished."""
    active = problems
    steps = [0.0] * len(active)
    while True:
        looks = batch.evaluate(objective, steps)
        orders = [
            IDLE if problem.reason else problem.respond(look)
            for problem, look in zip(active, looks, strict=True)
        ]
        batch.obey(orders)
        if any(order.accept or order.reason not in (None, IDLE.reason) for order in orders):
            yield _state(batch, problems)
        running = [place for place, order in enumerate(orders) if order.reason is None]
        if not running:
            return
        steps = [order.step for order in orders]
        if 2 * len(running) <= len(active):
            batch.keep(running)
            active = [active[place] for place in running]
            steps = [steps[place] for place in running]


def _state(batch: Batch, problems: list[_Problem]) -> State:
    return State(
        x=batch.everyone(),
        values=np.array([problem.value for problem in problems]),
        gradient_norms=np.array([problem.gradient_norm for problem in problems]),
        iterations=np.array([problem.iterations for problem in problems]),
        evaluations=np.array([problem.evaluations for problem in problems]),
        finished=np.array([problem.reason is not None for problem in problems]),
        reasons=tuple([problem.reason for problem in problems]),
    )


def _check_start(start: Any) -> None:
    shape = getattr(start, "shape", None)
    if shape is None:
        raise ValueError(f"start is a {type(start).__name__}; it must be an array (R, n)")
    if len(shape) != 2 or 0 in shape:
        raise ValueError(
            f"start has shape {shape}; it must be an array (R, n) with one row for each problem"
        )
    if start.dtype not in (np.float32, np.float64):
        raise TypeError(f"start is {start.dtype}; it must be float32 or float64")


def _goals(goal: float | npt.ArrayLike, problems: int) -> npt.NDArray[np.float64]:
    goals = np.asarray(goal, dtype=np.float64)
    if goals.shape not in ((), (problems,)):
        raise ValueError(f"goal has shape {goals.shape}; give one number, or {problems} of them")
    return np.broadcast_to(goals, problems)

"""What a caller of L-BFGS sets and brings, checked, and the limits that a descent is held to."""

import sys
from collections.abc import Callable
from math import inf, nan
from typing import Any, get_args

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.interop import as_array, number, whole
from tinyleak.optim.descent import CONVERGED, OUT, REASONS, RUNNING, Descent, LineSearch, Step
from tinyleak.optim.line_search import Evaluation, Numbers, where
from tinyleak.optim.pytorch import UnitSteps

NOTHING = np.float64(0.0)


def own_start(start: Any, axes: int = 1) -> Array:
    """Return a copy of the start as float32 or float64, on its device; whole numbers as float64.

    Args:
        start: an array of any library, or lists of numbers.
        axes: 1 for a problem (n,), 2 for problems (R, n).

    Raises:
        ValueError: another number of axes, or nothing to minimise over.
        TypeError: numbers of another kind, or none.
    """
    array = as_array(start)
    kind = "float64" if array.dtype.kind in "iu" else array.dtype.name
    if kind not in ("float32", "float64"):
        raise TypeError(f"start is {kind}; give float32 or float64")
    if array.ndim != axes or array.size == 0:
        shape = "(n,)" if axes == 1 else "(R, n), one row for each problem"
        raise ValueError(f"start has shape {array.shape}; give an array {shape}")
    return array.astype(kind)


def require_counts(least: int, **counts: Any) -> None:
    """Refuse what is not a whole number of at least `least`, as `tinyleak.interop.whole` does."""
    for name, asked in counts.items():
        whole(asked, least, f"{name} is {{}}; it must be at least {least}")


def require_numbers(goal: Any, **tolerances: Any) -> None:
    """Refuse, with ValueError, a goal that is not a number, and a tolerance below 0."""
    for name, share in tolerances.items():
        number(share, 0, f"{name} is {{}}; it must be at least 0", inf)
    number(goal, -inf, "goal is {}; give a number", inf)


class Course:
    """How far problems have come, and when that is far enough, or as far as the limits allow."""

    def __init__(
        self, minimiser: Descent | UnitSteps, goal: Numbers, iterations: int, evaluations: int
    ) -> None:
        """Begin with nothing evaluated, and end after so many iterations or evaluations."""
        self.minimiser, self.decide, self.goal = minimiser, minimiser.begin, goal
        self.most_iterations, self.most_evaluations = iterations, evaluations
        self.value = self.gradient_norm = np.full(goal.shape, nan)[()]  # at x
        self.iterations = np.full(goal.shape, -1)[()]  # the start is accepted as iterate 0
        self.evaluations = self.iterations + 1  # spent so far
        self.reason = self.evaluations + RUNNING  # why a problem is over, as an index of `REASONS`

    def follow(self, found: Evaluation) -> Step:
        """Return what each problem wants to do; one that is over wants nothing."""
        running, finite = self.reason == RUNNING, found.is_finite()
        decide, self.decide = self.decide, self.minimiser.go_on
        self.evaluations = self.evaluations + running
        accept, curvature, scale, length, reason = decide(found)
        there = finite & (found.value <= self.goal)
        reason = where(there, CONVERGED, reason)
        spent = self.iterations + accept >= self.most_iterations
        spent = (reason == RUNNING) & (spent | (self.evaluations >= self.most_evaluations))
        lower = spent & finite & (found.value < self.value)
        accept = running & (accept | there | lower)
        self.value = where(accept, found.value, self.value)
        self.gradient_norm = where(accept, found.gradient_norm, self.gradient_norm)
        self.iterations = self.iterations + accept
        self.reason = where(running, where(spent, OUT, reason), self.reason)
        going = self.reason == RUNNING
        curvature, scale, length = (
            where(going, wish, NOTHING) for wish in (curvature, scale, length)
        )
        return Step(accept, curvature, scale, length, self.reason)

    def numbers(self) -> tuple[float, float, int, int, str | None]:
        """Return of one problem what an `Iterate` says besides x."""
        counts = int(self.iterations), int(self.evaluations)
        return float(self.value), float(self.gradient_norm), *counts, REASONS[self.reason]


def course_of(
    dtype: Any,
    goal: Any,
    line_search: LineSearch,
    history: int,
    max_iterations: int,
    max_evaluations: int | None,
    tolerance_gradient: float | None,
    tolerance_change: float | None,
    inner_iterations: int,
) -> Course:
    """Return the course of a problem, or of many with a goal each, its settings as in `lbfgs`.

    Raises:
        ValueError: a setting out of range.
    """
    if line_search not in get_args(LineSearch):
        raise ValueError(f'line search {line_search!r} is unknown; choose "strong-wolfe" or "none"')
    searches = line_search == "strong-wolfe"
    epsilon = float(np.finfo(dtype).eps)
    if tolerance_gradient is None:
        tolerance_gradient = 1e-15 if searches else 1e-7
    if tolerance_change is None:
        tolerance_change = 10 * epsilon if searches else 1e-9
    if max_evaluations is None:
        max_evaluations = sys.maxsize
    require_counts(
        1, history=history, max_evaluations=max_evaluations, inner_iterations=inner_iterations
    )
    require_counts(0, max_iterations=max_iterations)
    worst = goal.max() if isinstance(goal, np.ndarray) else goal  # NaN if any is
    require_numbers(worst, tolerance_gradient=tolerance_gradient, tolerance_change=tolerance_change)
    minimiser = (
        Descent(epsilon, tolerance_gradient, tolerance_change)
        if searches
        else UnitSteps(max_iterations, inner_iterations, tolerance_gradient, tolerance_change)
    )
    return Course(minimiser, np.asarray(goal, np.float64)[()], max_iterations, max_evaluations)


def checked(objective: Callable[[Array], tuple[Any, Any]]) -> Callable[[Array], tuple[Any, Array]]:
    """Return the objective of one problem, which refuses an answer that does not fit.

    It raises ValueError if the value or the gradient has the wrong shape, TypeError for its dtype.
    """

    def evaluate(x: Array) -> tuple[Array, Array]:
        xp: Any = array_module(x)
        value, gradient = (xp.asarray(part) for part in objective(x))
        if value.shape != () or gradient.shape != x.shape:
            raise ValueError(
                f"the objective answered x of shape {x.shape} with a value {value.shape} and a "
                f"gradient {gradient.shape}; return one number and {x.shape}"
            )
        if value.dtype.kind not in "iuf" or gradient.dtype != x.dtype:
            raise TypeError(
                f"the objective answered {x.dtype} x with a {value.dtype} value and a "
                f"{gradient.dtype} gradient; return a number and {x.dtype}"
            )
        return value, gradient

    return evaluate

"""What a caller of L-BFGS sets and brings, checked, and the limits that a descent is held to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from math import inf, nan
from typing import Any, get_args

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.interop import as_array, number, whole
from tinyleak.optim.descent import LineSearch, Minimiser, descend
from tinyleak.optim.line_search import Step
from tinyleak.optim.pytorch import descend_by_unit_steps


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


def make_minimiser(
    dtype: Any,
    goal: float,
    line_search: LineSearch,
    history: int,
    max_iterations: int,
    max_evaluations: int | None,
    tolerance_gradient: float | None,
    tolerance_change: float | None,
    inner_iterations: int,
) -> Minimiser:
    """Return the minimiser of one problem, its settings as in `lbfgs`.

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
    require_numbers(goal, tolerance_gradient=tolerance_gradient, tolerance_change=tolerance_change)
    minimiser = (
        descend(epsilon, tolerance_gradient, tolerance_change)
        if searches
        else descend_by_unit_steps(
            max_iterations, inner_iterations, tolerance_gradient, tolerance_change
        )
    )
    return limited(minimiser, goal, max_iterations, max_evaluations)


def limited(
    minimiser: Minimiser, goal: float, max_iterations: int, max_evaluations: int
) -> Minimiser:
    """Follow a minimiser until the value is at most `goal`, or as far as the limits allow."""
    step, value, iterations = next(minimiser), nan, -1  # the start is accepted as iterate 0
    for evaluations in count(1):
        evaluation = yield step
        step = minimiser.send(evaluation)
        if evaluation.value <= goal and evaluation.is_finite():
            step = Step(accept=True, reason="converged")
        spent = evaluations >= max_evaluations or iterations + step.accept >= max_iterations
        if step.reason is None and spent:
            lower = evaluation.is_finite() and evaluation.value < value
            step = Step(accept=step.accept or lower, reason="out of iterations")
        if step.accept:
            value, iterations = evaluation.value, iterations + 1


def checked(objective: Callable[[Array], tuple[Any, Any]]) -> Callable[[Array], tuple[Any, Array]]:
    """Return the objective of one problem, handed a copy of x and answering with copies.

    It raises ValueError if the value or the gradient has the wrong shape, TypeError for its dtype.
    """

    def evaluate(x: Array) -> tuple[Array, Array]:
        xp: Any = array_module(x)
        value, gradient = (xp.asarray(part) for part in objective(x.copy()))
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
        return value.astype(x.dtype), gradient.copy()

    return evaluate

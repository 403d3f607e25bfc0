"""How one problem descends, written as if there were no other.

A minimiser is a coroutine: it yields a `Step`, is suspended while f is evaluated, and resumes with
the `Evaluation`. So it reads like the textbook's algorithm, whether one problem is minimised
(`quasi_newton`) or many side by side (`batched`). Lesson: lessons/07_lbfgs.py
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal, TypeAlias

from tinyleak.optim.line_search import Evaluation, Step, strong_wolfe

Minimiser: TypeAlias = Generator[Step, Evaluation, None]
"""The first `Step` it yields is ignored: the start is evaluated. The last one has a reason."""
LineSearch: TypeAlias = Literal["strong-wolfe", "none"]
FIRST_MOVE = 0.1  # how far x moves in the first trial, at most; the search corrects it tenfold
NOISE = 10  # the rounding error of a value, in units of its last place
PATIENCE = 10  # iterations without progress after which a problem has stalled


def descend(epsilon: float, tolerance_gradient: float, tolerance_change: float) -> Minimiser:
    """Descend by L-BFGS with a line search, and by steepest descent where that fails.

    `epsilon` is the relative rounding error of the values; for the tolerances see `lbfgs`.
    """
    evaluation = yield Step()
    if not evaluation.is_finite():
        yield Step(accept=True, reason="non-finite")
    vanishing = tolerance_gradient * evaluation.gradient_norm
    if evaluation.gradient_norm <= vanishing:
        yield Step(accept=True, reason="stationary")
    ceiling = lowest = evaluation.value
    flattest = evaluation.gradient_norm
    patience, has_pairs, moved = PATIENCE, False, FIRST_MOVE
    step = Step(accept=True, scale=moved / evaluation.gradient_norm)
    while True:
        here = evaluation
        evaluation = yield step
        start = here._replace(step=0.0, slope=evaluation.start_slope)
        noise = NOISE * epsilon * abs(here.value)
        found, evaluation = yield from strong_wolfe(start, evaluation, noise, ceiling)
        if not found:  # Go straight down the gradient or, if that was tried, give up.
            if not has_pairs:
                yield Step(reason="stalled" if evaluation.is_finite() else "non-finite")
            evaluation, has_pairs = here, False
            step = Step(scale=moved / here.gradient_norm)
            continue
        if evaluation.gradient_norm <= vanishing:
            yield Step(accept=True, reason="stationary")
        patience -= 1
        if evaluation.value < lowest - tolerance_change * abs(lowest):
            lowest, patience = evaluation.value, PATIENCE
        if evaluation.gradient_norm < flattest - tolerance_change * flattest:
            flattest, patience = evaluation.gradient_norm, PATIENCE
        if patience == 0:
            yield Step(accept=True, reason="stalled")
        moved = evaluation.step * evaluation.direction_norm
        curvature = evaluation.step * evaluation.slope_change
        has_pairs = has_pairs or curvature > 0
        if has_pairs:
            step = Step(accept=True, curvature=curvature)
        else:  # sᵀy ≤ 0, since the slope falls further, so H learns nothing: try that length again.
            step = Step(accept=True, scale=moved / evaluation.gradient_norm)

"""A line search for the strong Wolfe conditions (Nocedal and Wright, section 3.5).

Along a descent direction d let φ(t) = f(x + t·d). A step t is accepted when

    φ(t) ≤ φ(0) + c₁·t·φ′(0)     it lowers f by a fair share of what the slope promised, and
    |φ′(t)| ≤ c₂·|φ′(0)|         most of the slope is used up, which also makes sᵀy positive.

Near a minimum φ(t) − φ(0) drowns in the rounding of f long before the slopes do. So values are
compared up to that rounding, the `noise`, and within it the slopes decide (after the approximate
Wolfe conditions of Hager and Zhang 2005, section 2). Lesson: lessons/07_lbfgs.py
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf, isfinite, sqrt
from typing import NamedTuple

SUFFICIENT_DECREASE, CURVATURE = 1e-4, 0.8  # c₁ and c₂; Nocedal and Wright advise 0.9 for c₂
MOST_TRIALS = 12  # each lengthens or shortens the step up to tenfold: together by 10¹¹


class Evaluation(NamedTuple):
    """What evaluating f and its gradient at x + t·d has shown, in numbers."""

    step: float  # t
    slope: float  # φ′(t) = ∇f(x + t·d)·d
    slope_change: float  # φ′(t) − φ′(0); times t it is the sᵀy of this step
    start_slope: float  # φ′(0)
    value: float  # φ(t)
    gradient_norm: float  # the largest component of ∇f(x + t·d), in magnitude
    gradient_sum: float  # the sum of the magnitudes of its components
    direction_norm: float  # the largest component of d, in magnitude

    def is_finite(self) -> bool:
        """Whether the value and the gradient are numbers that can be compared."""
        return isfinite(self.value) and isfinite(self.slope) and isfinite(self.gradient_norm)


class Step(NamedTuple):
    """What is to be done before the next evaluation, in the order of the fields."""

    accept: bool = False  # move x to the point evaluated last, and take a new direction there
    curvature: float = 0.0  # the sᵀy of the move; where positive, H learns from (s, y)
    scale: float = 0.0  # where positive, H becomes scale·I, so that d = −scale·∇f(x)
    length: float = 1.0  # evaluate at x + length·d
    reason: str | None = None  # why the descent is over: nothing more is evaluated


def strong_wolfe(
    start: Evaluation, trial: Evaluation, noise: float, ceiling: float
) -> Generator[Step, Evaluation, tuple[bool, Evaluation]]:
    """Search along d: yield the steps to evaluate, be sent what was found there.

    `start` is φ at step 0, `trial` at step 1. Values closer than `noise` count as equal, and none
    above `ceiling` is accepted. Return whether the step evaluated last may be taken, and its
    evaluation: it passes both tests or, if none did, is the lowest and lower than the start.
    """
    if not start.slope < 0:
        return False, trial
    # `low` is the best step so far that passes the first test, and `high` one on that side of it
    # where φ falls, so that a step that passes both lies between. Until then the steps grow.
    low, high, before = start, None, start
    for trials in range(1, MOST_TRIALS + 1):
        line = start.value + SUFFICIENT_DECREASE * trial.step * start.slope
        if not trial.is_finite() or trial.value > min(min(line, low.value) + noise, ceiling):
            high = trial
        elif abs(trial.slope) <= -CURVATURE * start.slope:
            return True, trial
        else:
            # φ falls from `trial` on, away from 0 or, within a bracket, towards `high`; or it does
            # not, and the minimum lies between `trial` and the `low` it replaces.
            falls = trial.slope * (high.step - low.step if high else 1.0) < 0
            high = high if falls else low
            before, low = low, trial
        if trials < MOST_TRIALS:
            trial = yield Step(length=between(low, high, noise) if high else beyond(before, low))
    if not low.value < start.value:
        return False, trial
    return True, (trial if low is trial else (yield Step(length=low.step)))


def between(low: Evaluation, high: Evaluation, noise: float) -> float:
    """Return a step inside the bracket, where φ is expected to be lowest."""
    if abs(high.value - low.value) <= noise and low.slope * high.slope < 0:
        share = low.slope / (low.slope - high.slope)  # where the secant of the slopes is 0
    else:
        share = cubic_minimum(low, high) or 0.1  # None where φ is not finite at `high`
    return low.step + min(max(share, 0.1), 0.9) * (high.step - low.step)


def beyond(before: Evaluation, low: Evaluation) -> float:
    """Return a step past `low`, where φ is expected to be lowest."""
    share = cubic_minimum(before, low) or 10.0
    return before.step + min(max(share, 2.0), 10.0) * (low.step - before.step)


def cubic_minimum(a: Evaluation, b: Evaluation) -> float | None:
    """Return where the cubic through a and b has its minimum, if any: 0 is at a, 1 at b."""
    width = b.step - a.step
    slope_a, slope_b = a.slope * width, b.slope * width
    middle = slope_a + slope_b - 3 * (b.value - a.value)
    square = middle * middle - slope_a * slope_b
    if not 0 <= square < inf:
        return None
    divisor = slope_b - slope_a + 2 * sqrt(square)
    return 1 - (slope_b + sqrt(square) - middle) / divisor if divisor else None

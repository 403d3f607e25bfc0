"""A line search for the strong Wolfe conditions (Nocedal and Wright, section 3.5).

Along a descent direction d let φ(t) = f(x + t·d). A step t is accepted when

    φ(t) ≤ φ(0) + c₁·t·φ′(0)     it lowers f by a fair share of what the slope promised, and
    |φ′(t)| ≤ c₂·|φ′(0)|         most of the slope is used up, which also makes sᵀy positive.

Near a minimum φ(t) − φ(0) drowns in the rounding of f long before the slopes do. So values are
compared up to that rounding, the `noise`, and within it the slopes decide (after the approximate
Wolfe conditions of Hager and Zhang 2005, section 2).

All numbers are NumPy's, so that each may also be an array of R: one for each of R problems that are
searched side by side. A `where` then stands for what would be an `if`. Lesson: lessons/07_lbfgs.py
"""

from __future__ import annotations

from math import inf, nan
from typing import Any, NamedTuple, TypeAlias

import numpy as np

SUFFICIENT_DECREASE, CURVATURE = 1e-4, 0.8  # c₁ and c₂; Nocedal and Wright advise 0.9 for c₂
MOST_TRIALS = 12  # each lengthens or shortens the step up to tenfold: together by 10¹¹

Numbers: TypeAlias = Any
"""A NumPy number, or R of them, (R,); numbers, conditions and words alike."""


class Evaluation(NamedTuple):
    """What evaluating f and its gradient at x + t·d has shown."""

    step: Numbers  # t
    slope: Numbers  # φ′(t) = ∇f(x + t·d)·d
    slope_change: Numbers  # φ′(t) − φ′(0); times t it is the sᵀy of this step
    start_slope: Numbers  # φ′(0)
    value: Numbers  # φ(t)
    gradient_norm: Numbers  # the largest component of ∇f(x + t·d), in magnitude
    gradient_sum: Numbers  # the sum of the magnitudes of its components
    direction_norm: Numbers  # the largest component of d, in magnitude

    def is_finite(self) -> Numbers:
        """Whether the value and the gradient are numbers that can be compared."""
        return (abs(self.value) < inf) & (abs(self.slope) < inf) & (self.gradient_norm < inf)


class Point(NamedTuple):
    """A step along d, and φ there."""

    step: Numbers
    value: Numbers
    slope: Numbers


NOWHERE = Point(inf, nan, nan)


class Search(NamedTuple):
    """Where a line search is. It starts anew when no trial has been made."""

    trials: Numbers = np.int64(0)
    low: Any = NOWHERE  # the `Point` that is the best so far of those that pass the first test
    high: Any = NOWHERE  # one on that side of it where φ falls: a step that passes both is between
    before: Any = NOWHERE  # the one that was `low` before; while `high` is nowhere, steps grow


def strong_wolfe(
    search: Search, start: Point, found: Evaluation, noise: Numbers, ceiling: Numbers
) -> tuple[Search, Numbers, Numbers, Numbers]:
    """Judge the trial that was evaluated last, the first one of a search at step 1.

    `start` is φ at step 0. Values closer than `noise` count as equal, and none above `ceiling` is
    accepted. Return the search now; whether the trial is taken: it passes both tests or, if none
    did, is the lowest and lower than the start; whether the search failed; if neither, what step
    to try next.
    """
    trial, trials = Point(found.step, found.value, found.slope), search.trials + 1
    low, before = (where(trials == 1, start, p) for p in (search.low, search.before))
    high = where(trials == 1, NOWHERE, search.high)
    line = start.value + SUFFICIENT_DECREASE * trial.step * start.slope
    most = smaller(smaller(line, low.value) + noise, ceiling)
    too_high = no(found.is_finite()) | (trial.value > most)
    passes = no(too_high) & (abs(trial.slope) <= -CURVATURE * start.slope)
    # φ falls from `trial` on, away from 0 or, within a bracket, towards `high`; or it does not, and
    # the minimum lies between `trial` and the `low` it replaces.
    falls = trial.slope * (high.step - low.step) < 0
    high = where(too_high, trial, where(falls, high, low))
    before, low = where(too_high, before, low), where(too_high, low, trial)
    # After the last trial the lowest is taken, for which it may have to be evaluated once more.
    lower, last = low.value < start.value, trials == MOST_TRIALS
    failed = no(start.slope < 0) | (last & no(passes) & no(lower))
    taken = no(failed) & (passes | (last & no(too_high)) | (trials > MOST_TRIALS))
    over, step = failed | taken, np.float64(1.0)
    if some(no(over)):
        nearer = where(last, low.step, next_step(low, high, before, noise))
        step = where(over, step, nearer)
    return Search(trials * no(over), low, high, before), taken, failed, step


def next_step(low: Point, high: Point, before: Point, noise: Numbers) -> Numbers:
    """Return a step inside the bracket, or past `low`, where φ is expected to be lowest."""
    inside = high.step < inf
    a, b = where(inside, low, before), where(inside, high, low)
    level = inside & (abs(b.value - a.value) <= noise) & (a.slope * b.slope < 0)
    secant = a.slope / (a.slope - b.slope)  # where the slopes' secant is 0
    share = where(level, secant, cubic_minimum(a, b))
    share = where(share != share, where(inside, 0.1, 10.0), share)  # φ may not be finite at b
    share = larger(smaller(share, where(inside, 0.9, 10.0)), where(inside, 0.1, 2.0))
    return a.step + share * (b.step - a.step)


def cubic_minimum(a: Point, b: Point) -> Numbers:
    """Return where the cubic through a and b has its minimum, or NaN: 0 is at a, 1 at b."""
    width = b.step - a.step
    slope_a, slope_b = a.slope * width, b.slope * width
    middle = slope_a + slope_b - 3 * (b.value - a.value)
    square = middle * middle - slope_a * slope_b
    root = np.sqrt(abs(square))
    divisor = slope_b - slope_a + 2 * root
    exists = (square >= 0) & (square < inf) & (divisor != 0)
    return where(exists, 1 - (slope_b + root - middle) / divisor, nan)


def where(condition: Numbers, one: Any, other: Any) -> Any:
    """Return one where the condition holds, the other elsewhere; of tuples field by field."""
    if not isinstance(condition, np.ndarray):
        return one if condition else other
    if isinstance(one, Point):
        return Point(*(np.where(condition, a, b) for a, b in zip(one, other, strict=True)))
    return np.where(condition, one, other)


def smaller(one: Numbers, other: Numbers) -> Numbers:
    """Return the smaller of two numbers."""
    return where(one < other, one, other)


def larger(one: Numbers, other: Numbers) -> Numbers:
    """Return the larger of two numbers."""
    return where(one > other, one, other)


def no(condition: Numbers) -> Numbers:
    """Return whether the condition does not hold; `~` takes NumPy thirty times as long for one."""
    return condition ^ np.True_


def some(condition: Numbers) -> bool:
    """Return whether the condition holds for any problem."""
    return bool(condition.any() if isinstance(condition, np.ndarray) else condition)

"""A line search for the strong Wolfe conditions (Nocedal and Wright, section 3.5).

Along a descent direction d let φ(t) = f(x + t·d). A step t is accepted when

    φ(t) ≤ φ(0) + c₁·t·φ′(0)     it lowers f by a fair share of what the slope promised, and
    |φ′(t)| ≤ c₂·|φ′(0)|         most of the slope is used up, which also makes sᵀy positive.

Near a minimum φ(t) − φ(0) drowns in the rounding of f long before the slopes do. So values are
compared up to that rounding, the `noise`, and within it the slopes decide (after the approximate
Wolfe conditions of Hager and Zhang 2005, section 2).

Every number may be an array, (R,): one for each of R problems that are searched side by side. So
`where` stands for what would be an `if`. Lesson: lessons/07_lbfgs.py
"""

from math import inf, nan
from typing import Any, NamedTuple, TypeAlias

import numpy as np

SUFFICIENT_DECREASE, CURVATURE = 1e-4, 0.8  # c₁ and c₂; Nocedal and Wright advise 0.9 for c₂
MOST_TRIALS = 12  # each lengthens or shortens the step up to tenfold: together by 10¹¹
Numbers: TypeAlias = Any  # a number or a condition, as NumPy has them, or an array of R


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

    step: Numbers = inf
    value: Numbers = nan
    slope: Numbers = nan


class Search(NamedTuple):
    """Where a search is. While `high` is at no finite step, the steps grow."""

    trials: Numbers = np.int64(0)  # made so far
    low: Point = Point()  # the best so far of those that pass the first test
    high: Point = Point()  # one on that side of it where φ falls: between, a step passes both
    before: Point = Point()  # the `low` before


def strong_wolfe(
    search: Search, start: Point, found: Evaluation, noise: Numbers, ceiling: Numbers
) -> tuple[Search, Numbers, Numbers, Numbers]:
    """Judge the step tried last, the first along each d being 1, and tell which to try next.

    `start` is φ at 0. Values closer than `noise` count as equal, and none above `ceiling` fits.

    Returns:
        The search; whether it is over; whether the step is taken, which passes both tests or, if
        none did, is the lowest and lower than the start; and the next step, 1 if it is over.
    """
    trials, trial = search.trials + 1, Point(found.step, found.value, found.slope)
    low, before = (where(trials == 1, start, point) for point in (search.low, search.before))
    high = where(trials == 1, Point(), search.high)
    line = start.value + SUFFICIENT_DECREASE * trial.step * start.slope
    fits = found.is_finite() & (trial.value <= line + noise)
    fits = fits & (trial.value <= low.value + noise) & (trial.value <= ceiling)
    passes = fits & (abs(trial.slope) <= -CURVATURE * start.slope)
    # φ falls from `trial` on, away from 0 or, within a bracket, towards `high`; or it does not, and
    # the minimum lies between `trial` and the `low` it replaces.
    falls = trial.slope * (high.step - low.step) < 0
    high = where(fits, where(falls, high, low), trial)
    before, low = where(fits, low, before), where(fits, trial, low)
    # After the last trial the lowest is taken; to that end it may have to be evaluated once more.
    last, lower = trials == MOST_TRIALS, low.value < start.value
    descends = start.slope < 0
    taken = descends & (passes | (last & fits & lower) | (trials > MOST_TRIALS))
    over = where(descends, taken | (last & (low.value >= start.value)), np.True_)
    step = np.float64(1.0)
    if not over.all():
        step = where(over, step, where(last, low.step, next_step(low, high, before, noise)))
    return Search(where(over, np.int64(0), trials), low, high, before), over, taken, step


def next_step(low: Point, high: Point, before: Point, noise: Numbers) -> Numbers:
    """Return a step within the bracket, or else past `low`, where φ is expected to be lowest."""
    inside = high.step < inf
    a, b = where(inside, low, before), where(inside, high, low)
    level = inside & (abs(b.value - a.value) <= noise) & (a.slope * b.slope < 0)
    share = where(level, a.slope / (a.slope - b.slope), cubic_minimum(a, b))
    share = where(np.isnan(share), where(inside, 0.1, 10.0), share)  # φ may not be finite at b
    share = np.clip(share, where(inside, 0.1, 2.0), where(inside, 0.9, 10.0))
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
    """Return one where the condition holds, the other elsewhere; of points number by number."""
    if not isinstance(condition, np.ndarray):
        return one if condition else other
    if isinstance(one, Point):
        return Point(*(np.where(condition, a, b) for a, b in zip(one, other, strict=True)))
    return np.where(condition, one, other)

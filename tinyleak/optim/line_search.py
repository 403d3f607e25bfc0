"""A line search for the strong Wolfe conditions.

Along a descent direction d let φ(t) = f(x + t·d). A step t is accepted when

    φ(t) ≤ φ(0) + c₁·t·φ′(0)     it lowers f by a fair share of what the slope promised, and
    |φ′(t)| ≤ c₂·|φ′(0)|         most of the slope is used up, which also makes sᵀy positive.

The search keeps `low`, the best step so far that passes the first test, and `high`, a step on that
side of `low` where φ falls: a step that passes both tests lies between the two (Nocedal and Wright,
section 3.5). Until there is a `high` the steps grow; then the bracket shrinks.

Near a minimum φ(t) − φ(0) drowns in the rounding of f long before the slopes do. Values are
therefore compared up to `noise`, their own rounding error, and within it the slopes decide (after
the approximate Wolfe conditions of Hager and Zhang 2005, section 2).

Lesson: lessons/07_lbfgs.py
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf, sqrt
from typing import NamedTuple

from tinyleak.optim.messages import Look, Order

SUFFICIENT_DECREASE = 1e-4
CURVATURE = 0.9
MOST_TRIALS = 12


class Point(NamedTuple):
    """One point of φ: the step t, φ(t) and φ′(t)."""

    step: float
    value: float
    slope: float


def strong_wolfe(
    start: Point, look: Look, noise: float, ceiling: float
) -> Generator[Order, Look, tuple[float, Look]]:
    """Search along one direction: yield the steps to evaluate, be sent what was found there.

    Args:
        start: φ at step 0.
        look: what was found at step 1, which is evaluated before the search begins.
        noise: values closer than this are equal but for rounding.
        ceiling: no step with a larger value is accepted.

    Returns:
        The step to accept and the look at it, which is always the last one taken. It passes both
        tests or, if no step was found that does, is lower than the start. The step is 0 if there
        is none, or if the direction does not descend.
    """
    if not start.slope < 0:
        return 0.0, look
    low, high, before = start, None, start
    point = Point(1.0, look.value, look.slope)
    for trial in range(1, MOST_TRIALS + 1):
        line = start.value + SUFFICIENT_DECREASE * point.step * start.slope
        if not look.is_finite() or point.value > min(min(line, low.value) + noise, ceiling):
            high = point
        elif abs(point.slope) <= -CURVATURE * start.slope:
            return point.step, look
        else:
            # φ falls from `point` on, away from 0 or, within a bracket, towards `high`; or it does
            # not, and the minimum lies between `point` and the `low` it replaces.
            falls = point.slope * (high.step - low.step if high else 1.0) < 0
            high = high if falls else low
            before, low = low, point
        if trial < MOST_TRIALS:
            step = between(low, high, noise) if high else beyond(before, low)
            look = yield Order(step=step)
            point = Point(step, look.value, look.slope)
    if not low.value < start.value:
        return 0.0, look
    if low is not point:
        look = yield Order(step=low.step)
    return low.step, look


def between(low: Point, high: Point, noise: float) -> float:
    """Return a step inside the bracket, where φ is expected to be lowest."""
    if abs(high.value - low.value) <= noise and low.slope * high.slope < 0:
        share = low.slope / (low.slope - high.slope)  # where the secant of the slopes is 0
    else:
        share = cubic_minimum(low, high) or 0.1  # none: φ is not finite at `high`
    return low.step + min(max(share, 0.1), 0.9) * (high.step - low.step)


def beyond(before: Point, low: Point) -> float:
    """Return a step past `low`, where φ is expected to be lowest."""
    share = cubic_minimum(before, low) or 10.0
    return before.step + min(max(share, 2.0), 10.0) * (low.step - before.step)


def cubic_minimum(a: Point, b: Point) -> float | None:
    """Return where the cubic with the values and slopes of two points has its minimum.

    The answer is a share of the way: 0 at a, 1 at b. `None` if the cubic has no minimum.
    """
    width = b.step - a.step
    slope_a, slope_b = a.slope * width, b.slope * width
    middle = slope_a + slope_b - 3 * (b.value - a.value)
    square = middle * middle - slope_a * slope_b
    if not 0 <= square < inf:
        return None
    divisor = slope_b - slope_a + 2 * sqrt(square)
    return 1 - (slope_b + sqrt(square) - middle) / divisor if divisor else None

"""How one problem descends: two recipes, each written as if there were no other problem.

A recipe is a coroutine. It yields an order, is suspended while the batch is evaluated, and resumes
with what was found at its point. So it reads like the textbook's algorithm, although many run side
by side, one amid a line search while another begins an iteration.

Lesson: lessons/07_lbfgs.py
"""

from __future__ import annotations

from tinyleak.optim.line_search import Point, strong_wolfe
from tinyleak.optim.messages import Course, Order

FIRST_LENGTH = 0.1
"""How far the largest component of x moves in the first trial; the search corrects it tenfold."""
NOISE = 10
"""The rounding error of a value, in units of its last place."""
PATIENCE = 10
"""Iterations without progress after which a problem has stalled."""


def descend(epsilon: float, tolerance_gradient: float, tolerance_change: float) -> Course:
    """Descend by L-BFGS with a line search, and with steepest descent where that fails.

    Args:
        epsilon: the relative rounding error of the values.
        tolerance_gradient: stationary when the gradient has fallen to this share of the first one.
        tolerance_change: stalled when for a while neither the value has fallen by this share of
            itself nor the gradient has.
    """
    look = yield Order()
    if not look.is_finite():
        yield Order(accept=True, reason="non-finite")
    vanishing = tolerance_gradient * look.gradient
    if look.gradient <= vanishing:
        yield Order(accept=True, reason="stationary")
    ceiling = lowest = look.value
    flattest = look.gradient
    patience = PATIENCE
    has_pairs, moved = False, FIRST_LENGTH
    order = Order(accept=True, scale=moved / look.gradient)
    while True:
        here = look
        look = yield order
        start = Point(0.0, here.value, look.start_slope)
        noise = NOISE * epsilon * abs(here.value)
        step, look = yield from strong_wolfe(start, look, noise, ceiling)
        if step == 0:  # Nothing lower was found: go straight down, or if that was tried, give up.
            if not has_pairs:
                yield Order(reason="stalled" if look.is_finite() else "non-finite")
            look, has_pairs = here, False
            order = Order(scale=moved / here.gradient)
            continue
        if look.gradient <= vanishing:
            yield Order(accept=True, reason="stationary")

        patience -= 1
        if look.value < lowest - tolerance_change * abs(lowest):
            lowest, patience = look.value, PATIENCE
        if look.gradient < flattest - tolerance_change * flattest:
            flattest, patience = look.gradient, PATIENCE
        if patience == 0:
            yield Order(accept=True, reason="stalled")

        moved = step * look.length
        curvature = step * look.bend
        has_pairs = has_pairs or curvature > 0
        if has_pairs:
            order = Order(accept=True, taken=step, curvature=curvature)
        else:  # The slope grows, which says nothing about H: try the same length again.
            order = Order(accept=True, scale=moved / look.gradient)


def descend_by_unit_steps(
    iterations: int, inner_iterations: int, tolerance_gradient: float, tolerance_change: float
) -> Course:
    """Descend as `torch.optim.LBFGS` does by default: take every step, whatever it finds.

    Only the very first step is shortened, to a length of 1 in the sum of its components. A gradient
    step that follows because that one gave no pair is not.

    Args:
        iterations: how many iterations the outer steps comprise, if none ends early.
        inner_iterations: how many iterations there are to an outer step.
        tolerance_gradient: stationary when no component of the gradient exceeds it.
        tolerance_change: the outer step ends early when the value or every component of x changed
            by less, and the problem has stalled when the slope is.
    """
    look = yield Order()
    if not look.is_finite():
        yield Order(accept=True, reason="non-finite")
    if look.gradient <= tolerance_gradient:
        yield Order(accept=True, reason="stationary")
    value = look.value
    order = Order(accept=True, scale=min(1.0, 1.0 / look.gradient_sum))
    has_pairs = False
    for _ in range(0, iterations, inner_iterations):
        for _ in range(inner_iterations):
            look = yield order
            if look.start_slope > -tolerance_change:
                yield Order(reason="stalled")
            if not look.is_finite():
                yield Order(reason="non-finite")
            if look.gradient <= tolerance_gradient:
                yield Order(accept=True, reason="stationary")
            if look.bend > 1e-10:  # the step is 1, so this is sᵀy
                order, has_pairs = Order(accept=True, curvature=look.bend), True
            else:
                order = Order(accept=True, scale=0.0 if has_pairs else 1.0)
            change, value = abs(look.value - value), look.value
            if look.length <= tolerance_change or change < tolerance_change:
                break
    yield order._replace(reason="out of iterations")

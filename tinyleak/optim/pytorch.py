"""Descent by unit steps, as `torch.optim.LBFGS` does by default: every step is taken."""

from __future__ import annotations

from tinyleak.optim.descent import Minimiser
from tinyleak.optim.line_search import Step

LEAST_CURVATURE = 1e-10  # a pair with a smaller sᵀy teaches H nothing; PyTorch's number


def descend_by_unit_steps(
    iterations: int, inner_iterations: int, tolerance_gradient: float, tolerance_change: float
) -> Minimiser:
    """Take every step of length 1 that L-BFGS proposes, whatever it finds.

    Only the very first step is shortened, to a length of 1 in the sum of its components. A gradient
    step that follows because that one gave no pair is not. PyTorch evaluates an outer step's first
    point a second time; here it is not evaluated again.

    Args:
        iterations: how many iterations the outer steps comprise, if none ends early. One that does
            is spent, as in PyTorch: so 300 outer steps of 20 are 6000 iterations.
        inner_iterations: how many iterations there are to an outer step.
        tolerance_gradient: stationary when no component of the gradient exceeds it.
        tolerance_change: the outer step ends early when the value or every component of x changed
            by less, and the problem has stalled when the slope is.
    """
    evaluation = yield Step()
    if not evaluation.is_finite():
        yield Step(accept=True, reason="non-finite")
    if evaluation.gradient_norm <= tolerance_gradient:
        yield Step(accept=True, reason="stationary")
    value = evaluation.value
    step = Step(accept=True, scale=min(1.0, 1.0 / evaluation.gradient_sum))
    has_pairs = False
    for _ in range(0, iterations, inner_iterations):
        for _ in range(inner_iterations):
            evaluation = yield step
            if evaluation.start_slope > -tolerance_change:
                yield Step(reason="stalled")
            if not evaluation.is_finite():
                yield Step(reason="non-finite")
            if evaluation.gradient_norm <= tolerance_gradient:
                yield Step(accept=True, reason="stationary")
            curvature = evaluation.slope_change  # the step is 1
            if curvature > LEAST_CURVATURE:
                step, has_pairs = Step(accept=True, curvature=curvature), True
            else:
                step = Step(accept=True, scale=0.0 if has_pairs else 1.0)
            change, value = abs(evaluation.value - value), evaluation.value
            if evaluation.direction_norm <= tolerance_change or change < tolerance_change:
                break
    yield step._replace(reason="out of iterations")

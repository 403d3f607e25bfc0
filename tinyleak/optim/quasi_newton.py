"""L-BFGS for one problem: a direction from the last steps, a length from a line search.

From the last m steps s and gradient changes y, BFGS builds an approximation H of the inverse
Hessian that explains the newest pair, H·y = s. The two-loop recursion (Nocedal and Wright,
algorithm 7.4) applies it by 4m operations on vectors. The same H is one formula, a few large
products (their section 7.2; Byrd, Nocedal and Schnabel 1994, theorem 2.2). Let every pair be scaled
to sᵀy = 1, which does not change H, and be a row of S and Y, the oldest first:

    H = γ·I + [Sᵀ  γ·Yᵀ] · ⎡ R⁻ᵀ·(I + γ·Y·Yᵀ)·R⁻¹   −R⁻ᵀ ⎤ · ⎡  S  ⎤
                           ⎣         −R⁻¹             0  ⎦   ⎣ γ·Y ⎦

where R is the upper triangle of S·Yᵀ and γ the newest pair's sᵀy / yᵀy. Lesson: lessons/07_lbfgs.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, sqrt
from typing import Any, TypeAlias

import numpy as np

from tinyleak.backend import Array, array_module, to_numpy
from tinyleak.optim.descent import LineSearch, Minimiser
from tinyleak.optim.line_search import Evaluation

Objective: TypeAlias = Callable[[Array], tuple[Any, Array]]


@dataclass(frozen=True, slots=True, eq=False)
class Iterate:
    """Where a problem is. Its `reason` is None while it runs, then why it ended:

    "converged" (the goal is reached), "stationary" (the gradient has all but vanished elsewhere),
    "stalled" (no lower point can be found or told apart by the arithmetic), "non-finite" (the
    start, or all there is around x, is), or "out of iterations" (or out of evaluations).
    """

    x: Array = field(repr=False)  # (n,), a copy, on the device of the start
    value: float
    gradient_norm: float  # the largest component of the gradient at x, in magnitude
    iterations: int  # moves made so far; the start is iterate 0
    evaluations: int  # those between two iterates included
    reason: str | None


def lbfgs(
    objective: Objective,
    start: Array | Sequence[float],
    *,
    line_search: LineSearch = "strong-wolfe",
    history: int = 100,
    max_iterations: int = 1000,
    max_evaluations: int | None = None,
    tolerance_gradient: float | None = None,
    tolerance_change: float | None = None,
    inner_iterations: int = 20,
    goal: float = -inf,
) -> Iterator[Iterate]:
    """Minimise a smooth function: yield the start and every move, for the caller's loop.

    Args:
        objective: maps x, (n,), to the value, one number, and the gradient, (n,), of x's dtype.
        start: (n,), float32 or float64; whole numbers become float64.
        line_search: "strong-wolfe", never above the start's value, or "none" (see `optim.pytorch`).
        history: how many pairs s, y to keep, at least 1.
        max_iterations: how many moves to make; with "none" in outer steps of `inner_iterations`.
        max_evaluations: how often to call the objective; None is no limit.
        tolerance_gradient: stationary when the gradient's largest component has fallen to this
            share of the first (None: 1e-15). With "none": absolutely (None: 1e-7).
        tolerance_change: stalled when over ten iterations neither value nor gradient fell by this
            share (None: ten rounding errors). With "none": absolutely (None: 1e-9).
        goal: a value at or below which the problem has converged.

    Raises:
        ValueError, TypeError: a setting out of range, or a start or an answer that does not fit.
    """
    from tinyleak.optim.limits import checked, make_minimiser, own_start  # beside the path

    x = own_start(start, axes=1)
    minimiser = make_minimiser(
        *(x.dtype, goal, line_search, history, max_iterations, max_evaluations),
        *(tolerance_gradient, tolerance_change, inner_iterations),
    )
    return _iterates(checked(objective), x, InverseHessian(x, history), minimiser)


def _iterates(
    objective: Objective, x: Array, inverse_hessian: InverseHessian, minimiser: Minimiser
) -> Iterator[Iterate]:
    """Evaluate, ask the minimiser what to do, do it; until it has a reason to end."""
    xp: Any = array_module(x)
    numbers = xp.empty(7, dtype=x.dtype)  # read together: a GPU is waited for once an evaluation
    trial, d, gradient = x, xp.zeros_like(x), xp.zeros_like(x)
    step, iterations, evaluations = next(minimiser)._replace(length=0.0), -1, 0
    while step.reason is None:
        value, new = objective(trial)
        evaluations += 1
        # Wild steps may overflow; the line search sees that in the numbers and draws back.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            change, size = new - gradient, abs(new)
            numbers[0], numbers[1], numbers[2] = new @ d, change @ d, gradient @ d
            numbers[3], numbers[4], numbers[5] = value, size.max(), size.sum()
            numbers[6] = abs(d).max()
            found = Evaluation(step.length, *to_numpy(numbers).tolist())
            step = minimiser.send(found)
            if step.curvature > 0:
                inverse_hessian.learn(found.step * d, change, step.curvature)
            if step.scale > 0:
                inverse_hessian.forget(step.scale)
            if step.accept:
                x, gradient, at_x = trial, new, (found.value, found.gradient_norm)
                iterations += 1
            if step.accept or step.scale > 0:
                d = inverse_hessian.direction(gradient)
            trial = x + step.length * d
        if step.accept or step.reason:
            yield Iterate(x.copy(), *at_x, iterations, evaluations, step.reason)


class InverseHessian:
    """H for problems like x, (n,), from the last `history` pairs; before the first, H = I.

    A new pair borders R⁻¹ with the column −R⁻¹·S·y and a 1 on the diagonal. The oldest leaves with
    its row and column: the inverse of what is left of a triangular matrix is what is left of its
    inverse. So the pairs may lie in a ring, where the newest takes the place of the oldest.
    """

    def __init__(self, x: Array, history: int) -> None:
        xp: Any = array_module(x)
        self.S, self.Y = (xp.empty((history, len(x)), dtype=x.dtype) for _ in range(2))
        self.inverse, self.gram = (xp.zeros((history, history), dtype=x.dtype) for _ in range(2))
        self.count, self.scale = 0, 1.0  # how many pairs there have been, and γ

    def forget(self, scale: float) -> None:
        """Drop all pairs: H = scale·I."""
        self.count, self.scale = 0, scale
        self.inverse[...] = 0

    def learn(self, s: Array, y: Array, curvature: float) -> None:
        """Take in the pair s, y, each (n,), whose sᵀy is the curvature, above 0."""
        slot, k = self.count % len(self.S), self.count + 1
        self.S[slot], self.Y[slot] = s / sqrt(curvature), y / sqrt(curvature)
        inverse, gram, y = self.inverse[:k, :k], self.gram[:k, :k], self.Y[slot]
        inverse[slot] = 0
        inverse[:, slot] = -(inverse @ (self.S[:k] @ y))
        inverse[slot, slot] = 1
        gram[slot] = gram[:, slot] = self.Y[:k] @ y
        self.count, self.scale = k, 1 / gram[slot, slot]

    def direction(self, g: Array) -> Array:
        """Return −H·g, (n,), for a gradient g, (n,): the formula, from right to left."""
        k = self.count
        S, Y, inverse, gram = self.S[:k], self.Y[:k], self.inverse[:k, :k], self.gram[:k, :k]
        u = inverse @ (S @ g)
        v = (u + self.scale * (gram @ u - Y @ g)) @ inverse
        return self.scale * (u @ Y - g) - v @ S

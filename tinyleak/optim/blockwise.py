"""Least squares of unknowns in blocks, as the pixels of a batch's images, without the whole matrix.

`levenberg_marquardt` forms JᵀJ of all n unknowns. Here each step's system

    (JᵀJ + λ·diag(JᵀJ)) s = −Jᵀr

is solved by conjugate gradients, by products with J and Jᵀ, and only the blocks of JᵀJ on its
diagonal are formed, one for each image. Their Cholesky factors precondition it: where images hardly
share directions of J they nearly solve it (Nocedal and Wright 2006, "Numerical Optimization",
section 5.1). Bounds are kept as in `optim.bounds`, and λ follows as in `gauss_newton`.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np

from tinyleak.backend import Array
from tinyleak.optim.bounds import solver
from tinyleak.optim.conjugate_gradients import conjugate_gradients
from tinyleak.optim.gauss_newton import FLOOR, LEAST_DAMPING, SUCCESS, Fit

DAMPING = 1e-9
"""The first λ."""

PRODUCTS, LEFT = 600, 1e-4
"""Of conjugate gradients in a step, at most, and the share of the first residual that may be left,
squared and in the preconditioner's units."""

ROUNDS = 8
"""How often a step is solved, at most, with more unknowns held at a bound each time."""

KEPT = 6
"""Steps for which blocks are kept: they take as long as all else in one or two."""

FAILURE, MOST_FAILURES = 100.0, 5
"""What λ is multiplied with where a step fails, and how many may, one after the other."""


class Blockwise(Protocol):
    """A residual r(x), (m,), of x, (n,), with products with its Jacobian J = ∂r/∂x."""

    def value(self, x: Array) -> Array:
        """Return r(x), (m,)."""

    def slope(self, x: Array, r: Array) -> Array:
        """Return Jᵀr, (n,)."""

    def along(self, x: Array, v: Array) -> Array:
        """Return J v, (m,)."""

    def blocks(self, x: Array) -> Array:
        """Return the blocks on the diagonal of JᵀJ, (G, n/G, n/G)."""


def blockwise_least_squares(
    residual: Blockwise,
    start: Array,
    *,
    lowest: float,
    highest: float,
    max_iterations: int,
    goal: float,
) -> Iterator[Fit]:
    """Minimise ‖r(x)‖² within bounds; yield as `levenberg_marquardt` does.

    Args:
        residual: r, products with J, and the blocks.
        start: (n,).
        lowest: no unknown may be less.
        highest: no unknown may be more.
        max_iterations: steps at most.
        goal: a value at or below which the problem has converged.
    """
    x, damping, steps, evaluations, steepest = start.clip(lowest, highest), DAMPING, 0, 1, math.inf
    r = residual.value(x)
    while True:
        value = float(r @ r)
        over = "out of iterations" if steps >= max_iterations else None
        reason = "converged" if value <= goal else over
        yield Fit(x.copy(), value, steepest, damping, steps, evaluations, reason)
        if reason is not None:
            return
        if steps % KEPT == 0:
            system = _System(residual, x)
        slope = residual.slope(x, r)
        free = ~(((x <= lowest) & (slope > 0)) | ((x >= highest) & (slope < 0)))
        steepest = 2.0 * float(np.abs(slope * free).max())
        for _ in range(MOST_FAILURES):
            s = system.step(x, -slope * free, free, (lowest - x, highest - x), damping)
            r_end = residual.value((x + s).clip(lowest, highest))
            evaluations += 1
            if float(r_end @ r_end) < value:
                break
            damping *= FAILURE
        else:
            yield Fit(x.copy(), value, steepest, damping, steps, evaluations, "stalled")
            return
        expected = value - float(np.square(r + residual.along(x, s)).sum())
        share = min((value - float(r_end @ r_end)) / expected, 1.0) if expected > 0 else 1.0
        damping = max(LEAST_DAMPING, max(SUCCESS, 1.0 - (2.0 * share - 1.0) ** 3) * damping)
        x, r, steps = (x + s).clip(lowest, highest), r_end, steps + 1


class _System:
    """JᵀJ where it was last looked at: its blocks, and what damping is a multiple of."""

    def __init__(self, residual: Blockwise, x: Array) -> None:
        self.residual, self.blocks = residual, residual.blocks(x)
        diagonal = np.concatenate([np.diag(block) for block in self.blocks])
        self.scale = np.maximum(diagonal, FLOOR * diagonal.max())

    def step(
        self, x: Array, downhill: Array, free: Array, bounds: tuple[Array, Array], damping: float
    ) -> Array:
        """Return the s between bounds that about solves (JᵀJ + λ·scale) s = downhill.

        Unknowns that it would take across a bound are put on it, and the others solved for again.
        """

        def times(free: Array, direction: Array) -> Array:
            image = self.residual.slope(x, self.residual.along(x, direction))
            return (image + damping * self.scale * direction) * free

        s, left, products, enough = np.zeros_like(x), downhill, PRODUCTS, 0.0
        for _ in range(ROUNDS):
            precondition = self._solver(free, damping)
            enough = enough or LEFT * float(left @ precondition(left))
            rough = conjugate_gradients(partial(times, free), left, products, enough, precondition)
            s, products = s + rough.s, products - rough.products
            inside = s.clip(*bounds)
            crossing = inside != s
            if products <= 0 or not crossing.any():
                break
            s, free = inside, free & ~crossing
            left, products = downhill * free - times(free, s), products - 1
        return s.clip(*bounds)

    def _solver(self, free: Array, damping: float) -> Callable[[Array], Array]:
        """Return what solves the blocks' systems for unknowns that are free; the others are 0."""
        size = self.blocks.shape[1]
        parts = []
        for index, block in enumerate(self.blocks):
            some = np.flatnonzero(free[index * size : (index + 1) * size])
            there = index * size + some
            damped = block[np.ix_(some, some)]
            damped[np.diag_indices(len(some))] += damping * self.scale[there]
            if len(some):
                parts.append((there, solver(damped)))

        def solve(right: Array) -> Array:
            answer = np.zeros_like(right)
            for there, inverse in parts:
                answer[there] = inverse(right[there])
            return answer

        return solve

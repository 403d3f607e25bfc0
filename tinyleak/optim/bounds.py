"""A step of least squares between bounds and within a radius, and the systems that it solves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

import numpy as np

from tinyleak.backend import Array, array_module

MOST_HELD = 5
"""Rounds of putting unknowns on their bounds and solving again, at most; each costs a factor."""

LEAST_DAMPING = 1e-15
"""Below the rounding of JᵀJ in float64 a λ has no effect."""
WITHIN, MOST_DAMPINGS = 0.1, 10
"""How near to the radius a step's length is to be, relative to it (Moré 1978, section 5), and the
dampings tried for that; one or two are enough as a rule."""


def damping_within(
    gram: Array, slope: Array, scale: Array, radius: float, damping: float
) -> tuple[float, float]:
    """Return the λ for which (gram + λ·scale) s = −slope is about as long as the radius at most.

    The length of s is √(Σ scale·s²). Its inverse is nearly straight in λ, and concave, so Newton's
    method finds where it is 1 / radius (Moré 1978, section 5).

    Args:
        gram: (n, n), symmetric; its diagonal is written to, and restored.
        slope: (n,).
        scale: (n,), positive.
        radius: above 0; infinite for the least λ.
        damping: the λ to begin with.

    Returns:
        λ, `LEAST_DAMPING` at least, and the length.
    """
    diagonal = array_module(gram).einsum("ii->i", gram)
    undamped, damping = diagonal.copy(), max(LEAST_DAMPING, damping)
    for _ in range(MOST_DAMPINGS):
        diagonal[...] = undamped + damping * scale
        solve = _solver(gram)
        step = solve(-slope)
        length = float((scale * step) @ step) ** 0.5
        if not length < inf:
            damping *= 10.0
            continue
        excess = length / radius - 1.0
        if abs(excess) <= WITHIN or (excess < 0 and damping <= LEAST_DAMPING) or length == 0.0:
            break
        pull = scale * step / length
        fall = float(pull @ solve(pull))
        damping = max(LEAST_DAMPING, damping + excess / fall) if fall > 0 else 10.0 * damping
    diagonal[...] = undamped
    return damping, length


def bounded_step(
    gram: Array, slope: Array, low: Array, high: Array, *, rounds: int = MOST_HELD
) -> Array:
    """Return the s between the bounds that about minimises ½ sᵀ gram s + slopeᵀ s.

    Unknowns that a step would take across a bound are put on it, and the others solved for again.

    Args:
        gram: (n, n), symmetric.
        slope: (n,).
        low: (n,), the lower bounds.
        high: (n,), the upper bounds.
        rounds: how often to solve again, at most.
    """
    xp: Any = array_module(slope)
    step = _solve(gram, -slope)
    crossing = (step < low) | (step > high)
    held = xp.zeros(len(slope), dtype=bool)
    for _ in range(rounds):
        if not bool(crossing.any()):
            break
        held |= crossing
        step = xp.where(held, step.clip(low, high), step)
        inside, outside = xp.flatnonzero(~held), xp.flatnonzero(held)
        pull = slope[inside] + gram[xp.ix_(inside, outside)] @ step[outside]
        step[inside] = _solve(gram[xp.ix_(inside, inside)], -pull)
        crossing = ~held & ((step < low) | (step > high))
    return step.clip(low, high)


def _solve(matrix: Array, right: Array) -> Array:
    """Solve a symmetric system; the solution is NaN if it is singular."""
    return _solver(matrix)(right)


def _solver(matrix: Array) -> Callable[[Array], Array]:
    """Return what solves symmetric systems with this matrix, by one Cholesky factor of it.

    If rounding has left it indefinite, by LU. The solution of a singular one is NaN, from which a
    larger damping leads back.
    """
    xp: Any = array_module(matrix)
    if isinstance(matrix, np.ndarray):
        from scipy.linalg import cho_factor, cho_solve

        with suppress(np.linalg.LinAlgError):
            factor = cho_factor(matrix, check_finite=False)
            return lambda right: cho_solve(factor, right, check_finite=False)

    def solve(right: Array) -> Array:
        try:
            return xp.linalg.solve(matrix, right)
        except np.linalg.LinAlgError:  # as NumPy says; CuPy returns what is not finite itself
            return xp.full_like(right, xp.nan)

    return solve

"""A step of least squares between bounds, and the linear system that it solves."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from tinyleak.backend import Array, array_module

MOST_HELD = 5
"""Rounds of putting unknowns on their bounds and solving again, at most; each costs a factor."""


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
    """Solve a symmetric system: by Cholesky, or by LU if rounding has left it indefinite.

    The solution of a singular one is NaN, from which a larger damping leads back.
    """
    xp: Any = array_module(matrix)
    if isinstance(matrix, np.ndarray):
        from scipy.linalg import cho_factor, cho_solve

        with suppress(np.linalg.LinAlgError):
            return cho_solve(cho_factor(matrix, check_finite=False), right, check_finite=False)
    try:
        return xp.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:  # as NumPy says; CuPy returns what is not finite itself
        return xp.full_like(right, xp.nan)

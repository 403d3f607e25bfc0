"""A step of least squares between bounds, and the linear systems that are solved for it."""

from collections.abc import Callable
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
    step = solver(gram)(-slope)
    crossing = (step < low) | (step > high)
    held = xp.zeros(len(slope), dtype=bool)
    for _ in range(rounds):
        if not bool(crossing.any()):
            break
        held |= crossing
        step = xp.where(held, step.clip(low, high), step)
        inside, outside = xp.flatnonzero(~held), xp.flatnonzero(held)
        pull = slope[inside] + gram[xp.ix_(inside, outside)] @ step[outside]
        step[inside] = solver(gram[xp.ix_(inside, inside)])(-pull)
        crossing = ~held & ((step < low) | (step > high))
    return step.clip(low, high)


def raised_damping(gram: Array, slope: Array, scale: Array, radius: float, damping: float) -> float:
    """Return a λ nearer to that for which the solution of gram s = −slope is as long as a radius.

    The length of s is √(Σ scale·s²). Its inverse is concave in λ and nearly straight, so that a
    step of Newton's method towards 1 / radius leads up, and not too far (Moré 1978, section 5).

    Args:
        gram: (n, n), symmetric, with λ·scale on its diagonal.
        slope: (n,).
        scale: (n,), positive.
        radius: above 0, less than the length.
        damping: λ as it is.

    Returns:
        λ, at least twice what it is.
    """
    solve = solver(gram)
    step = solve(slope)
    length = float(scale @ step**2) ** 0.5
    pull = scale * step / length
    fall = float(pull @ solve(pull))
    return max(2 * damping, damping + (length / radius - 1) / fall) if fall > 0 else 10 * damping


def solver(matrix: Array) -> Callable[[Array], Array]:
    """Return what solves a symmetric system: by Cholesky, or LU if rounding left it indefinite.

    The solution of a singular one is NaN, from which a larger damping leads back.
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

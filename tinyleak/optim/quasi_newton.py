"""L-BFGS: a direction from the last steps, a length from a line search.

From the last m steps s and gradient changes y, BFGS builds an approximation H of the inverse
Hessian that explains the newest pair, H·y = s. The two-loop recursion (Nocedal and Wright,
algorithm 7.4) applies it, pair by pair. Here each loop is one product (their section 7.2; Byrd,
Nocedal and Schnabel 1994). Let every pair be scaled to sᵀy = 1, which does not change H, and be a
row of S and Y, the oldest first. With R the upper triangle of S·Yᵀ, and γ the newest sᵀy / yᵀy,

    u = R⁻¹·S·g,    r = γ·(g − Yᵀ·u),    H·g = r + Sᵀ·R⁻ᵀ·(u − Y·r).    (lessons/07_lbfgs.py)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias

from tinyleak.backend import Array, array_module
from tinyleak.optim.descent import REASONS, LineSearch

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
    from tinyleak.optim.batch import Batch  # beside the path
    from tinyleak.optim.limits import checked, course_of, own_start

    x = own_start(start, axes=1)
    limits = goal, line_search, history, max_iterations, max_evaluations
    course = course_of(x.dtype, *limits, tolerance_gradient, tolerance_change, inner_iterations)
    return _iterates(checked(objective), Batch(x, course, InverseHessian, history))


def _iterates(objective: Objective, problem: Any) -> Iterator[Iterate]:
    """Evaluate, let the minimiser decide, do as it says; until it has a reason to end."""
    reason = None
    while reason is None:
        moved, course = problem.advance(objective), problem.course
        reason = REASONS[course.reason]
        if moved or reason:
            yield Iterate(problem.x.copy(), *course.numbers())


class InverseHessian:
    """H for a problem like x, (n,), or each of R like x, (R, n), from its last `history` pairs.

    A new pair borders R⁻¹ with the column −R⁻¹·S·y and a 1 on the diagonal. The oldest leaves with
    its row and column: the inverse of what is left of a triangular matrix is what is left of its
    inverse. So the pairs may lie in a ring, where the newest takes the place of the oldest. An
    empty place is zero, and adds nothing to any sum.
    """

    def __init__(self, x: Array, history: int) -> None:
        xp: Any = array_module(x)
        *several, n = x.shape
        self.S, self.Y = (xp.zeros((*several, history, n), dtype=x.dtype) for _ in range(2))
        self.inverse = xp.zeros((*several, history, history), dtype=x.dtype)
        self.scale = xp.ones((*several, 1), dtype=x.dtype)  # γ, and H = γ·I before the first pair
        self.counts = xp.zeros(several, dtype=int)  # how many pairs there have been

    def forget(self, scale: Any, rows: Any = ()) -> None:
        """Drop all pairs, of R problems those of some rows: H = scale·I."""
        for array in (self.S, self.Y, self.inverse, self.counts):
            array[rows] = 0
        self.scale[rows] = scale

    def learn(self, s: Array, y: Array, curvature: Any, rows: Any = ()) -> None:
        """Take in the pairs s, y, like x, whose sᵀy, the curvature, is above 0: some rows of R."""
        slot = self.counts[rows] % self.S.shape[-2]
        here = (*rows, slot)
        s, y = s / curvature**0.5, y / curvature**0.5
        self.S[here], self.Y[here], self.inverse[here] = s[rows], y[rows], 0
        column = -times(self.inverse, times(self.S, y))
        self.inverse[(*rows, slice(None), slot)] = column[rows]
        self.inverse[(*here, slot)] = 1
        self.scale[rows] = 1 / times(y[..., None, :], y)[rows]
        self.counts[rows] += 1

    def direction(self, g: Array) -> Array:
        """Return −H·g for gradients g, like x."""
        u = times(self.inverse, times(self.S, g))
        r = self.scale * (g - times(u, self.Y))
        v = times(u - times(self.Y, r), self.inverse)
        return -r - times(v, self.S)


def times(a: Array, b: Array) -> Array:
    """Return the product of a matrix and a vector, of a vector and a matrix, or of R such pairs."""
    if min(a.ndim, b.ndim) == 1:
        return a.dot(b)
    return (a @ b[..., None])[..., 0] if a.ndim > b.ndim else (a[..., None, :] @ b)[..., 0, :]

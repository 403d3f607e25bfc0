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
from math import inf
from typing import Any, TypeAlias

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.optim.descent import REASONS, LineSearch
from tinyleak.optim.line_search import Numbers, where

FIRST_ROOM = 8  # for pairs; doubled when they are more, so that short runs stay cheap

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
    from tinyleak.optim.limits import Course, checked, make_minimiser, own_start, require_numbers

    x = own_start(start, axes=1)
    minimiser = make_minimiser(
        *(x.dtype, line_search, history, max_iterations, max_evaluations),
        *(tolerance_gradient, tolerance_change, inner_iterations),
    )
    require_numbers(goal)
    course = Course(minimiser, np.float64(goal), max_iterations, max_evaluations)
    return _iterates(checked(objective), Batch(x, history, course))


def _iterates(objective: Objective, problem: Any) -> Iterator[Iterate]:
    """Evaluate, ask the minimiser what to do, do it; until it has a reason to end."""
    course, reason = problem.course, None
    while reason is None:
        step = problem.advance(objective)
        reason = REASONS[step.reason]
        if step.accept or reason:
            numbers = float(course.value), float(course.gradient_norm)
            counts = int(course.iterations), int(course.evaluations)
            yield Iterate(problem.x.copy(), *numbers, *counts, reason)


class InverseHessian:
    """H for a problem like x, (n,), or for each of R like x, (R, n), from its last pairs.

    A new pair borders R⁻¹ with the column −R⁻¹·S·y and a 1 on the diagonal. The oldest leaves with
    its row and column: the inverse of what is left of a triangular matrix is what is left of its
    inverse. So the pairs may lie in a ring, where the newest takes the place of the oldest. An
    empty place is zero and adds nothing to any sum, so that problems may have different counts.
    """

    def __init__(self, x: Array, history: int) -> None:
        self.xp: Any = array_module(x)
        *several, n = x.shape
        self.history, room = history, min(history, FIRST_ROOM)
        self.S, self.Y = (self.xp.zeros((*several, room, n), dtype=x.dtype) for _ in range(2))
        self.inverse = self.xp.zeros((*several, room, room), dtype=x.dtype)
        self.scale = self.xp.ones((*several, 1), dtype=x.dtype)  # γ
        self.counts = np.zeros(several, int)[()]  # how many pairs there have been
        self.most = 1  # so far as S, Y and R⁻¹ are in use

    def forget(self, scale: Numbers) -> None:
        """Drop all pairs of a problem whose scale is above 0: H = scale·I."""
        rows = self._send(scale > 0)
        for array in (self.S, self.Y, self.inverse):
            array[rows] = 0
        self.scale[rows] = column(self.S, scale)[rows] if rows else scale
        self.counts = where(scale > 0, 0, self.counts)

    def learn(self, s: Array, y: Array, curvature: Numbers) -> None:
        """Take in the pair s, y of a problem whose sᵀy, the curvature, is above 0."""
        adding, slots = curvature > 0, self.counts % self.history
        self.counts = self.counts + adding
        self._make_room(min(int(self.counts.max()), self.history))
        rows = self._send(adding)
        at = (*rows, self.xp.asarray(slots[adding]) if rows else int(slots))
        root = column(s, np.sqrt(abs(curvature)))
        s, y = s / root, y / root
        self.S[at], self.Y[at], self.inverse[at] = s[rows], y[rows], 0
        S, _, inverse = self._pairs()
        bordered = -times(inverse, times(S, y))
        self.inverse[(*rows, slice(self.most), at[-1])] = bordered[rows]
        self.inverse[(*at, at[-1])] = 1
        self.scale[rows] = 1 / (y * y).sum(-1, keepdims=True)[rows]

    def direction(self, g: Array) -> Array:
        """Return −H·g for a gradient g."""
        S, Y, inverse = self._pairs()
        u = times(inverse, times(S, g))
        r = self.scale * (g - times(Y.swapaxes(-1, -2), u))
        v = times(inverse.swapaxes(-1, -2), u - times(Y, r))
        return -r - times(S.swapaxes(-1, -2), v)

    def keep(self, rows: Array) -> None:
        """Keep only the problems at these rows."""
        at = self.xp.asarray(rows)
        self.S, self.Y, self.inverse = self.S[at], self.Y[at], self.inverse[at]
        self.scale, self.counts = self.scale[at], self.counts[rows]

    def _pairs(self) -> tuple[Array, Array, Array]:
        """Return S, Y and R⁻¹ as far as any problem has filled them."""
        k = self.most
        return self.S[..., :k, :], self.Y[..., :k, :], self.inverse[..., :k, :k]

    def _send(self, condition: Numbers) -> tuple[Array, ...]:
        """Return the index of the problems for which it holds; of a single one that is ()."""
        if not isinstance(condition, np.ndarray):
            return ()
        return (self.xp.asarray(np.flatnonzero(condition)),)

    def _make_room(self, most: int) -> None:
        """Double the room if it does not suffice; the arrays stay contiguous."""
        self.most, room = max(1, most), self.S.shape[-2]
        if most > room:
            none, more = [(0, 0)] * (self.S.ndim - 2), (0, min(2 * room, self.history) - room)
            self.S, self.Y = (self.xp.pad(a, (*none, more, (0, 0))) for a in (self.S, self.Y))
            self.inverse = self.xp.pad(self.inverse, (*none, more, more))


def times(matrix: Array, vector: Array) -> Array:
    """Return the product of a matrix and a vector, or of each of R."""
    return matrix.dot(vector) if vector.ndim == 1 else (matrix @ vector[..., None])[..., 0]


def column(x: Array, numbers: Numbers) -> Any:
    """Return numbers to multiply x by, (n,) or (A, n): sent to its device where there are many."""
    if x.ndim == 1 or np.ndim(numbers) == 0:
        return float(numbers)
    return array_module(x).asarray(np.asarray(numbers, dtype=x.dtype)[:, None])

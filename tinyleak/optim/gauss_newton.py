"""Levenberg–Marquardt: nonlinear least squares, by solving a linear one again and again.

Gradient matching is a sum of squares ‖r(x)‖², which L-BFGS does not know. Near a solution, with
J = ∂r/∂x, it is ‖r + J s‖² for a step s, and the smallest of that is where

    (JᵀJ + λ·diag(JᵀJ)) s = −Jᵀr.

With λ = 0 that is Gauss and Newton's step, which converges quadratically where the residual can
vanish. A larger λ makes the step shorter and turns it downhill (Levenberg 1944, Marquardt 1963): λ
falls when a step succeeded and rises when it did not. It rises as well until the step is no longer
than a radius, at first the length of x itself (Moré 1978, "The Levenberg–Marquardt algorithm"): a
long one that succeeds can lead to where no other does. That is all the line search there is.

An iteration costs one JᵀJ, about m·n² operations, and ⅓·n³ for its Cholesky factor: much more than
one of L-BFGS, but tens of them can replace thousands.

Bounds are kept by a projected step (`optim.bounds`): unknowns that it would take across a bound are
put on the bound, and the others are solved for again. A second step holds the unknowns that the
gradient pushes against a bound. Where the problem is ill-conditioned that choice can be wrong and
costs tens of steps, but sometimes it is the better one: both are tried, and the lower is taken.

Lesson: lessons/11_batches.py
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tinyleak.backend import Array, array_module, to_numpy
from tinyleak.optim.bounds import bounded_step, raised_damping
from tinyleak.optim.limits import own_start, require_counts, require_numbers

LEAST_DAMPING = 1e-15  # below the rounding of JᵀJ in float64 a λ has no effect
SUCCESS, FAILURE = 1 / 100, 2.0
"""Factors of λ. After a step that went down by a share ρ of what was expected it is multiplied by
1 − (2ρ − 1)³, but no less than `SUCCESS`; after one that did not by `FAILURE`, and after the next
in a row by twice as much, and so on. (Madsen, Nielsen and Tingleff 2004, "Methods for non-linear
least squares problems", section 2.2, where the first is 1 / 3. The radius allows for less.)"""
GOOD = 0.75
"""From this share ρ on (Moré, section 4) the radius becomes twice the step's length, if that is
more; after a failure half of it."""
BEYOND = 0.2
"""How much longer than the radius a step may be (Moré, section 5, takes 0.1 and tries more λ)."""
MOST_RAISES = 10  # times that λ is raised for the radius, at most; one or two are enough as a rule
MOST_FAILURES = 10
"""Steps that may fail one after the other: by then λ has grown by 10¹⁶, or the radius shrunk."""
FLOOR = 1e-14
"""The smallest damping of an unknown, as a share of the largest: an unknown on which r does not
depend stays where it is."""
PATIENCE = 10  # iterations without progress after which the problem has stalled


class Residual(Protocol):
    """What is to be made small: r, (m,), as a function of x, (n,), whose Jacobian is J = ∂r/∂x."""

    def value(self, x: Array) -> Array:
        """Return r(x), (m,)."""

    def slope(self, x: Array, r: Array) -> Array:
        """Return Jᵀr, (n,), for the r that `value` returned at x."""

    def gram(self, x: Array) -> Array:
        """Return JᵀJ, (n, n), which the caller may write to."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Where the problem is."""

    x: Array = field(repr=False)  # (n,) the iterate, on the device of the start
    value: float  # ‖r(x)‖²
    gradient_norm: float  # the largest component of ∂‖r‖²/∂x, in magnitude, at the iterate before
    damping: float  # the λ with which the next step will be tried
    iterations: int  # steps made so far
    evaluations: int  # residuals computed so far; each iteration has a JᵀJ besides
    # None while it runs, then "converged" (the goal is reached), "stationary" (the gradient has all
    # but vanished elsewhere), "stalled" (no step leads lower, or none by enough), "non-finite" (the
    # start is) or "out of iterations".
    reason: str | None


def levenberg_marquardt(
    residual: Residual,
    start: Array | Sequence[float],
    *,
    lowest: npt.ArrayLike = -inf,
    highest: npt.ArrayLike = inf,
    damping: float = LEAST_DAMPING,
    radius: float = 1.0,
    max_iterations: int = 100,
    tolerance_gradient: float = 1e-15,
    tolerance_change: float = 1e-10,
    goal: float = -inf,
) -> Iterator[Fit]:
    """Minimise ‖r(x)‖²; yield where it is at the start, after each step, and at the end.

    Args:
        residual: r, Jᵀr and JᵀJ.
        start: (n,), float64 or float32, of the array module that is to do the work; whole numbers
            become float64. Copied.
        lowest: no unknown may be less; one bound for all, or (n,).
        highest: no unknown may be more, likewise.
        damping: the first λ, above 0; more than that if the radius asks for it.
        radius: the first, above 0, in units of the length of x; infinite where bounds are enough.
        max_iterations: steps at most.
        tolerance_gradient: stationary when the largest component of the gradient has fallen to this
            share of the first one.
        tolerance_change: stalled when ten steps together lowered the value by less than this share.
        goal: a value at or below which the problem has converged.

    Raises:
        ValueError, TypeError: a setting out of range, or a start or an answer that does not fit.
    """
    x = own_start(start)
    require_counts(0, max_iterations=max_iterations)
    require_numbers(goal, tolerance_gradient=tolerance_gradient, tolerance_change=tolerance_change)
    if not 0 < damping < inf:
        raise ValueError(f"damping is {damping}; it must be above 0 and finite")
    if not radius > 0:
        raise ValueError(f"radius is {radius}; it must be above 0")
    bounds = [_bound(lowest, x), _bound(highest, x)]
    if not bool((bounds[0] < bounds[1]).all()):
        raise ValueError("a lower bound is not below the upper one; give lowest < highest")
    return _Descent(residual, bounds[0], bounds[1], damping, radius).run(
        x, max_iterations, tolerance_gradient, tolerance_change, goal
    )


class _Descent:
    """One descent: what it minimises, its λ and its radius."""

    def __init__(
        self, residual: Residual, lowest: Array, highest: Array, damping: float, radius: float
    ) -> None:
        self.residual = residual
        self.lowest, self.highest = lowest, highest
        self.damping, self.radius = damping, radius
        self.scale: Any = None
        self.evaluations = 0

    def run(
        self,
        start: Array,
        max_iterations: int,
        tolerance_gradient: float,
        tolerance_change: float,
        goal: float,
    ) -> Iterator[Fit]:
        x = start.clip(self.lowest, self.highest)
        r = self._value(x)
        values = [_square(r)]
        gradient_norm, steepest = inf, None

        def fit(reason: str | None = None) -> Fit:
            steps = len(values) - 1
            return Fit(
                x.copy(), values[-1], gradient_norm, self.damping, steps, self.evaluations, reason
            )

        if not np.isfinite(values[-1]):
            yield fit("non-finite")
            return
        while True:
            if values[-1] <= goal:
                yield fit("converged")
                return
            if len(values) > max_iterations:
                yield fit("out of iterations")
                return
            if _slow(values, tolerance_change):
                yield fit("stalled")
                return
            yield fit()
            slope = self.residual.slope(x.copy(), r.copy())
            free = self._free(x, slope)
            gradient_norm = float(abs(2 * slope[free]).max()) if len(free) else 0.0
            steepest = gradient_norm if steepest is None else steepest
            if gradient_norm <= tolerance_gradient * steepest:
                yield fit("stationary")
                return
            found = self._step(x, slope, free, values[-1])
            if found is None:
                yield fit("stalled")
                return
            x, r = found
            values.append(_square(r))

    def _value(self, x: Array) -> Array:
        self.evaluations += 1
        r = self.residual.value(x.copy()).copy()
        if r.ndim != 1:
            raise ValueError(f"the residual answered with shape {r.shape}; it must be (m,)")
        return r

    def _free(self, x: Array, slope: Array) -> npt.NDArray[np.int64]:
        """Return which unknowns are not held at a bound by the gradient."""
        held = ((x <= self.lowest) & (slope > 0)) | ((x >= self.highest) & (slope < 0))
        return np.flatnonzero(~to_numpy(held))

    def _step(
        self, x: Array, slope: Array, free: npt.NDArray[np.int64], value: float
    ) -> tuple[Array, Array] | None:
        """Raise λ until a step leads lower; return where it leads, and the residual there."""
        xp: Any = array_module(x)
        gram = self.residual.gram(x.copy())
        diagonal = xp.einsum("ii->i", gram)  # a view, through which the damping is put in
        undamped = diagonal.copy()
        # Never less than it has been, or an unknown that has become weak would run away.
        scale = xp.maximum(undamped, FLOOR * undamped.max())
        if self.scale is None:
            self.scale = scale
            self.radius *= self._length(x) or inf
        self.scale = xp.maximum(scale, self.scale)
        moving = [np.arange(len(x))]
        if len(free) < len(x):
            moving.append(free)
        for failures in range(MOST_FAILURES):
            for _ in range(MOST_RAISES):
                diagonal[...] = undamped + self.damping * self.scale
                ends = [self._end(x, slope, gram, some) for some in moving]
                if min(self._length(end - x) for end in ends) <= (1 + BEYOND) * self.radius:
                    break
                parts = gram[xp.ix_(free, free)], slope[free], self.scale[free]
                self.damping = raised_damping(*parts, self.radius, self.damping)
            residuals = [self._value(end) for end in ends]
            squares = [_square(r) for r in residuals]
            lower = [index for index, square in enumerate(squares) if square < value]
            if lower:  # NaN never is
                best = min(lower, key=squares.__getitem__)
                s = ends[best] - x
                expected = float(self.damping * (self.scale * s) @ s - 2 * slope @ s - s @ gram @ s)
                share = min((value - squares[best]) / expected, 1.0) if expected > 0 else 1.0
                factor = max(SUCCESS, 1.0 - (2.0 * share - 1.0) ** 3)
                self.damping = max(LEAST_DAMPING, factor * self.damping)
                if share >= GOOD:
                    self.radius = max(self.radius, 2.0 * self._length(s))
                return ends[best], residuals[best]
            self.damping *= FAILURE * 2.0**failures
            if self.radius < inf:
                self.radius = min(self.radius, *(self._length(end - x) for end in ends)) / 2
        return None

    def _end(self, x: Array, slope: Array, gram: Array, moving: npt.NDArray[np.int64]) -> Array:
        """Return where a step of these unknowns leads."""
        xp: Any = array_module(x)
        low, high = (self.lowest - x)[moving], (self.highest - x)[moving]
        some = gram if len(moving) == len(x) else gram[xp.ix_(moving, moving)]
        end = x.copy()
        end[moving] += bounded_step(some, slope[moving], low, high)
        return end.clip(self.lowest, self.highest)  # rounding may have crossed a bound

    def _length(self, s: Array) -> float:
        """Return the length of a step in units in which all unknowns matter alike."""
        return float(self.scale @ s**2) ** 0.5


def _bound(bound: npt.ArrayLike, start: Array) -> Array:
    array: Any = array_module(start).asarray(bound, dtype=start.dtype)
    if array.shape not in ((), start.shape):
        raise ValueError(f"a bound has shape {array.shape}; give one number, or {len(start)}")
    return array


def _square(r: Array) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # a wild step is drawn back from
        return float(r @ r)


def _slow(values: list[float], tolerance_change: float) -> bool:
    """Whether the last `PATIENCE` steps together lowered the value by too little."""
    if len(values) <= PATIENCE:
        return False
    return values[-1] > (1 - tolerance_change) * values[-1 - PATIENCE]

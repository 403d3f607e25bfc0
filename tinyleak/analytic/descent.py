"""How far δ of a point is from the column space, and the way down from there; see `records`."""

import math

import numpy as np

from tinyleak.analytic.deltas import Deltas
from tinyleak.analytic.points import Points, RowSpace
from tinyleak.backend import Array

CONVERGED = 1e-26
"""f at which it is zero: float64 rounds δ to 1e-16 of its length, and sums of it to 1e-13."""

BOTTOM = 1e-11
"""Below this f a step that leaves more than nine tenths of it is the last: the rest is rounding."""

FIRST_DAMPING, SUCCESS, FAILURE, FAILURES = 1e-3, 0.2, 5.0, 8
"""Of Levenberg and Marquardt's λ, as in `optim.gauss_newton`; no step fails nine times."""

STEPS = 40  # steps of one attempt, at most: one that leads to a record takes 10 to 25


class Descent:
    """f of points of a row space, and Levenberg and Marquardt's steps on it."""

    def __init__(self, space: RowSpace, deltas: Deltas, bounds: tuple[float, float] | None) -> None:
        self.space, self.deltas, self.bounds = space, deltas, bounds
        self.targets = np.eye(deltas.cut.model.classes)

    def descend(
        self,
        points: Points,
        label: int,
        t: Array,
        goal: float = CONVERGED,
        steps: int = STEPS,
        outside: float = 0.0,
        softness: float = 0.0,
        U: Array | None = None,
        known: Array | None = None,
    ) -> Array:
        """Minimise f from t on, by Levenberg and Marquardt's steps; return where it ends.

        The last four arguments are those of `evaluate`.
        """
        how = outside, softness, U, known
        now, damping = self.evaluate(points, label, t, *how), FIRST_DAMPING
        for step in range(steps if len(t) else 0):
            for _ in range(FAILURES):
                f, gram, slope = now
                damped = gram + damping * np.diag(np.diag(gram) + np.finfo(float).tiny)
                try:
                    move = np.linalg.solve(damped, slope)
                except np.linalg.LinAlgError:
                    move = np.zeros_like(t)
                new = self.evaluate(points, label, t - move, *how)
                if new[0] < f:
                    break
                damping *= FAILURE
            else:
                return t
            t, now, damping = t - move, new, max(damping * SUCCESS, 1e-15)
            gain = 1.0 - new[0] / f
            if new[0] < goal or (gain < 1e-6 and step > 5) or (new[0] < BOTTOM and gain < 0.1):
                break
        return t

    def evaluate(
        self,
        points: Points,
        label: int,
        t: Array,
        outside: float = 0.0,
        softness: float = 0.0,
        U: Array | None = None,
        known: Array | None = None,
    ) -> tuple[float, Array, Array]:
        """Return f at t, the Gauss–Newton matrix (n, n) and half the slope (n,).

        Args:
            points: what t are coordinates of.
            label: whose δ.
            t: (n,).
            outside: what the squared distance of h from its bounds counts for.
            softness: of a ReLU's slope.
            U: (O, k), the column space, orthonormal; all of it by default.
            known: (O, m), known δ, orthonormal: what they explain does not count as δ's length, so
                that the search looks for something new.
        """
        U = self.space.U if U is None else U
        _, h, z = points.at(t)
        delta, J = self.deltas.along(z, self.targets[label], points.z, softness)
        rest, within = delta - U @ (U.T @ delta), J @ U
        new = delta if known is None else delta - known @ (known.T @ delta)
        length = float(np.linalg.norm(new)) or math.inf
        # With r = (I − UUᵀ) δ / ‖new‖ it is ∂r = ((I − UUᵀ) ∂δ − r (new·∂δ) / ‖new‖) / ‖new‖.
        rest, along = rest / length, J @ new / length
        f, back = float(rest @ rest), J @ rest
        slope = back - f * along
        gram = J @ J.T - within @ within.T - np.outer(along, back) - np.outer(slope, along)
        gram, slope = gram / length**2, slope / length
        if outside:
            assert self.bounds is not None, "there are bounds"
            excess = h - np.clip(h, *self.bounds)
            axes = points.h[:, excess != 0.0]
            f += outside * float(excess @ excess)
            gram += outside * axes @ axes.T
            slope += outside * (points.h @ excess)
        return f, gram, slope

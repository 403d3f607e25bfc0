"""Gauss and Newton's method without a matrix: each step by conjugate gradients, cut short.

`levenberg_marquardt` forms JᵀJ, which costs n² numbers and m·n² operations. Here only products
with J and Jᵀ are asked for, two for each step of conjugate gradients on

    (JᵀJ + λ) s = −Jᵀr,

which ends early: far from a solution an exact step is worth no more than a rough one (Dembo,
Eisenstat and Steihaug 1982). Unknowns that the gradient pushes against a bound are held there, and
a step is cut off at the bounds.

A rough step hardly moves in directions that hardly show in r. With as many products as there are
unknowns the matrix is formed of them, and the step is exact, within the bounds.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from tinyleak.backend import Array
from tinyleak.gradient import vjp
from tinyleak.optim.bounds import bounded_step
from tinyleak.optim.conjugate_gradients import conjugate_gradients
from tinyleak.program import trace
from tinyleak.tensor import Tensor

FIRST_DAMPING, LEAST_DAMPING = 1e-3, 1e-12
"""λ at first and at least, for residuals whose length is about 1."""

ROUGH = 0.03
"""How much of the linear system's residual may be left; at 0.003 the searches took twice as long
and ended at the same places."""

MOST_FAILURES = 8  # steps that may fail one after the other: λ has grown by 10⁸ by then


class Traced:
    """A residual r(x, …) of Tensors with products with its Jacobian in x, all three as programs."""

    def __init__(self, function: Callable[..., Tensor], size: int, *held: Array) -> None:
        self.held, x = held, np.zeros(size)  # what it depends on beside x, (n,)
        self._u = np.zeros(function(*map(Tensor, (x, *held))).shape)

        def back(x: Tensor, u: Tensor, *held: Tensor) -> Tensor:
            return vjp({function(x, *held): u}, [x])[0]

        def along(x: Tensor, v: Tensor, u: Tensor, *held: Tensor) -> Tensor:
            return vjp({back(x, u, *held): v}, [u])[0]  # linear in u, which does not matter

        self._value = trace(function, x, *held, check=False)
        self._back = trace(back, x, self._u, *held, check=False)
        self._along = trace(along, x, x, self._u, *held, check=False)

    def value(self, x: Array) -> Array:
        """Return r(x), (m,)."""
        return self._value(x, *self.held)[0]

    def back(self, x: Array, u: Array) -> Array:
        """Return Jᵀu, (n,)."""
        return self._back(x, u, *self.held)[0]

    def along(self, x: Array, v: Array) -> Array:
        """Return J v, (m,)."""
        return self._along(x, v, self._u, *self.held)[0]


class Reached(NamedTuple):
    """Where a search ended, and ‖r‖² there."""

    x: Array
    value: float


def truncated_gauss_newton(
    residual: Traced,
    start: Array,
    *,
    lowest: float = -np.inf,
    highest: float = np.inf,
    steps: int = 30,
    products: int = 100,
    goal: float = 0.0,
    scales: Iterable[float] = (math.inf,),
    rough: float = ROUGH,
    damping: float = FIRST_DAMPING,
    progress: float = 1.0,
) -> Reached:
    """Minimise ‖r(x)‖² within bounds; end where no step leads lower.

    With a finite scale s, Σ s² log(1 + r²/s²) in its place: about r² for what is smaller than s,
    while what is much larger, an outlier, hardly pulls. Each step is one of least squares, with
    each number weighed by 1 / (1 + r²/s²) (Holland and Welsch 1977).

    Args:
        residual: r and products with its Jacobian.
        start: (n,).
        lowest: no unknown may be less.
        highest: no unknown may be more.
        steps: at most, at each scale.
        products: of conjugate gradients, at most, for each of them; n or more make it exact.
        goal: a value that is small enough.
        scales: one after the other, each from where the one before ended.
        rough: how much of a linear system's residual may be left.
        damping: λ at first, at each scale.
        progress: the share of itself to which a step must lower the cost for another to be made.
    """
    x, most = np.clip(start, lowest, highest), damping
    r = residual.value(x)
    for scale in scales:
        damping = min(damping, most)
        value = _cost(r, scale)
        for _ in range(steps):
            weights = 1.0 / (1.0 + (r / scale) ** 2)
            slope = residual.back(x, weights * r)
            free = ~(((x <= lowest) & (slope > 0)) | ((x >= highest) & (slope < 0)))
            if not free.any():
                break
            if products < len(x):
                step = _rough_step(residual, x, weights, slope, free, products, rough)
            else:
                step = _exact_step(residual, x, weights, slope, free, lowest, highest)
            for _ in range(MOST_FAILURES):
                s = step(damping)
                end = np.clip(x + s, lowest, highest)
                r_end = residual.value(end)
                value_end = _cost(r_end, scale)
                if value_end < value:
                    break
                damping *= 10.0
            else:
                break
            expected = float(weights @ (r**2 - (r + residual.along(x, s)) ** 2))
            share = (value - value_end) / expected if expected > 0 else 1.0
            factor = 0.1 if share > 0.5 else 1.0 if share > 0.1 else 3.0
            damping = max(LEAST_DAMPING, factor * damping)
            slow = value_end > progress * value
            x, r, value = end, r_end, value_end
            if value <= goal or slow:
                break
    return Reached(x, float(r @ r))


def _cost(r: Array, scale: float) -> float:
    """Return Σ s² log(1 + r²/s²); of an infinite scale it is ‖r‖²."""
    return float(r @ r if scale == math.inf else scale**2 * np.sum(np.log1p((r / scale) ** 2)))


def _rough_step(
    residual: Traced,
    x: Array,
    weights: Array,
    slope: Array,
    free: Array,
    products: int,
    rough: float,
) -> Callable[[float], Array]:
    """Return about −(JᵀWJ + λ)⁻¹ slope, for the unknowns that are free, as a function of λ."""
    downhill = -slope * free
    enough = rough**2 * float(downhill @ downhill)

    def step(damping: float) -> Array:
        def times(direction: Array) -> Array:
            image = residual.back(x, weights * residual.along(x, direction))
            return image * free + damping * direction

        return conjugate_gradients(times, downhill, products, enough).s

    return step


def _exact_step(
    residual: Traced,
    x: Array,
    weights: Array,
    slope: Array,
    free: Array,
    lowest: float,
    highest: float,
) -> Callable[[float], Array]:
    """Return the same without a remainder, and so that it ends within the bounds."""
    some = np.flatnonzero(free)
    unit = np.eye(len(x))[some]
    gram = np.stack([residual.back(x, weights * residual.along(x, e))[some] for e in unit])
    low, high = lowest - x[some], highest - x[some]

    def step(damping: float) -> Array:
        s = np.zeros_like(x)
        s[some] = bounded_step(gram + damping * np.eye(len(some)), slope[some], low, high)
        return s

    return step

"""How far an image's features, and the gradients below them, are from the client's; and a search.

Where errors are of one size their squares are added up. What is left at the client's image is not:
float32 rounds large numbers more than small ones. Then Σ log(‖r‖² + s²) is minimised, over parts of
which each has an error of its own size.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from tinyleak.attacks.shown import Shown
from tinyleak.backend import Array
from tinyleak.gradient import grad
from tinyleak.ops import add, log, reshape, sum
from tinyleak.program import trace
from tinyleak.tensor import Tensor

Shape = tuple[int, int, int, int]
Objective = Callable[[Array], tuple[float, Array]]

ITERATIONS = 3000
"""At most; the networks of benchmarks/own_networks.py take 200 to 3,000 in float32."""


class StoppedError(KeyboardInterrupt):
    """Ctrl-C during a search for an image, with the best pixels so far, (n,)."""

    def __init__(self, x: Array) -> None:
        super().__init__()
        self.x = x


class End(NamedTuple):
    """Where a search ended: the distance, the pixels, and how often it looked."""

    value: float
    x: Array
    evaluations: int


def objective_of(shape: Shape, shown: Shown, gradients: Mapping[str, Array] | None) -> Objective:
    """Return the relative distance between features, and between the gradients below if given."""
    return _objective(shape, shown, gradients, lambda part, s: sum(part * part))(0.0)


def rounded_objective_of(
    shape: Shape, shown: Shown, gradients: Mapping[str, Array], rounding: float
) -> Objective:
    """Return Σ m log(‖r‖² + rounding²) over the parts r of that distance, of m numbers each.

    It is least where the image is the likeliest, if the size of each part's error is unknown.
    """

    def counted(part: Tensor, s: Tensor) -> Tensor:
        return log(sum(part * part) + s) * float(math.prod(part.shape))

    return _objective(shape, shown, gradients, counted)(rounding**2)


def _objective(
    shape: Shape,
    shown: Shown,
    gradients: Mapping[str, Array] | None,
    counted: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[float], Objective]:
    size = math.prod(shape)

    def function(z: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        parts = shown.parts(reshape(z, shape), gradients)
        total = reduce(add, [counted(part, variance) for part in parts])
        return total, grad(total, z)

    program = trace(function, np.zeros(size), np.ones(()), check=False)

    def at(variance: float) -> Objective:
        def evaluate(z: Array) -> tuple[float, Array]:
            value, gradient = program(z, np.array(variance))
            return float(value), gradient

        return evaluate

    return at


@contextmanager
def keeping_the_best(objective: Objective, start: Array) -> Iterator[Objective]:
    """Give an objective whose best pixels a `StoppedError` has, where Ctrl-C ends the block."""
    best = End(math.inf, start, 0)

    def watched(x: Array) -> tuple[float, Array]:
        nonlocal best
        value, slope = objective(x)
        if value < best.value:
            best = End(value, x.copy(), 0)
        return value, slope

    try:
        yield watched
    except KeyboardInterrupt:
        raise StoppedError(best.x) from None


def search_in_range(
    objective: Objective,
    start: Array,
    goal: float,
    lowest: float = 0.0,
    highest: float = 1.0,
    iterations: int = ITERATIONS,
) -> End:
    """Minimise within [0, 1] or other bounds, by the L-BFGS-B of Byrd, Lu, Nocedal and Zhu (1995).

    It ends at the goal, or after so many iterations or evaluations.

    Raises:
        StoppedError: Ctrl-C.
    """
    from scipy.optimize import minimize

    def stop_when_near(intermediate_result: Any) -> None:
        if intermediate_result.fun <= goal:
            raise StopIteration

    start = np.clip(start, lowest, highest)
    with keeping_the_best(objective, start) as watched:
        end = minimize(
            watched,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(lowest, highest)] * len(start),
            callback=stop_when_near,
            options={
                "maxcor": 50,
                "maxiter": iterations,
                "maxfun": iterations,
                "ftol": 0.0,
                "gtol": 0.0,
            },
        )
    return End(float(end.fun), end.x, end.nfev)

"""Stochastic gradient descent on any loss, with a program replayed at every step.

Lesson: lessons/06b_training.py
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tinyleak.backend import Array
from tinyleak.gradient import grad
from tinyleak.interop import whole
from tinyleak.ops import mean, sum
from tinyleak.program import Program, trace
from tinyleak.tensor import Tensor

Loss: TypeAlias = Callable[[Mapping[str, Tensor], Any], Tensor]
Rate: TypeAlias = float | Callable[[int], float]
Gradients: TypeAlias = dict[str, Array]
Direction: TypeAlias = Callable[[str, Array, int], Array]

KEPT_SQUARES, TINY = 0.999, 1e-8
"""Adam's β₂ and ε, as its authors recommend (Kingma and Ba 2015, algorithm 1)."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What training came to."""

    params: dict[str, Array]  # after the last step, by name
    losses: npt.NDArray[np.float64]  # (steps,), of each step's batch, before the step

    def __repr__(self) -> str:
        first, last = self.losses[0], self.losses[-1]
        return f"Trained({len(self.losses)} steps, loss {first:.4g} → {last:.4g})"


def descend(
    loss: Loss,
    params: Mapping[str, Array],
    draw: Callable[[], Any],
    *,
    steps: int,
    learning_rate: Rate = 0.1,
    optimiser: str = "sgd",
    momentum: float = 0.9,
    protect: Callable[[Gradients], Gradients] | None = None,
    copies: tuple[int, ...] = (),
    compiled: bool = True,
    progress: bool | None = None,
) -> Trained:
    """Minimise a loss by steps against its gradient on one batch after another.

    Args:
        loss: takes parameters by name and a batch, and returns the loss: (), or `copies`.
        params: where to start, by name; they are left as they are.
        draw: returns the next batch: arrays, which the loss is given as Tensors. If not `compiled`,
            it may be anything, and is given to the loss as it is.
        steps, learning_rate, optimiser, progress: as `train` takes them.
        momentum: how much of the last direction is kept, in [0, 1); Adam's β₁ (Kingma, Ba 2015).
        protect: returns what is used in place of each gradient.
        copies: leading axes of separate copies of the parameters, which the loss is given; with
            them, `protect` is given the gradient of each copy, and returns their mean.
        compiled: replay a program for each shape of batch, traced when it first occurs.

    Raises:
        ValueError: a setting out of range.
    """
    steps = whole(steps, 1, "{} steps were asked for; give at least 1 step")
    if not 0 <= momentum < 1 or optimiser not in OPTIMISERS:
        raise ValueError(
            f"steps by {optimiser!r} with momentum {momentum} were asked for; give one of "
            f"{', '.join(OPTIMISERS)}, and a momentum in [0, 1)"
        )
    fixed = isinstance(learning_rate, Real) and 0 < learning_rate < math.inf
    if not fixed and not callable(learning_rate):
        raise ValueError(f"the learning rate must be positive and finite, not {learning_rate!r}")
    weights, losses = dict(params), np.empty(steps)
    programs: dict[object, Program] | None = {} if compiled else None
    direction = OPTIMISERS[optimiser](momentum)
    for step in _with_bar(steps, losses, shown=progress):
        separate = {name: np.broadcast_to(w, (*copies, *w.shape)) for name, w in weights.items()}
        losses[step], gradients = _evaluate(loss, separate, draw(), programs)
        if protect is not None:
            gradients = protect(gradients)
        rate = float(learning_rate(step) if callable(learning_rate) else learning_rate)
        for name, weight in weights.items():
            weights[name] = weight - rate * direction(name, gradients[name], step)
    return Trained(weights, losses)


def _evaluate(
    loss: Loss, weights: Gradients, batch: Any, programs: dict[object, Program] | None
) -> tuple[float, Gradients]:
    """Return the mean loss, and the gradient for each weight; by the program for such batches."""
    parts = () if programs is None else tuple(batch)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(weights, tensors, strict=False))
        losses = loss(named, batch if programs is None else tensors[len(weights) :])
        # The sum over copies of the weights has, for each copy, that copy's gradient.
        return mean(losses), *grad(sum(losses), list(named.values()))

    arrays, shapes = (*weights.values(), *parts), tuple(array.shape for array in parts)
    if programs is None:
        value, *gradients = [found.numpy() for found in function(*map(Tensor, arrays))]
    else:
        if shapes not in programs:
            programs[shapes] = trace(function, *arrays, check=False)
        value, *gradients = programs[shapes](*arrays)
    return float(value), dict(zip(weights, gradients, strict=True))


def _sgd(momentum: float) -> Direction:
    last: Gradients = {}

    def direction(name: str, gradient: Array, step: int) -> Array:
        last[name] = momentum * last.get(name, 0.0) + gradient
        return last[name]

    return direction


def _adam(momentum: float) -> Direction:
    means: Gradients = {}
    squares: Gradients = {}

    def direction(name: str, gradient: Array, step: int) -> Array:
        means[name] = momentum * means.get(name, 0.0) + (1 - momentum) * gradient
        squares[name] = KEPT_SQUARES * squares.get(name, 0.0) + (1 - KEPT_SQUARES) * gradient**2
        # Both began at 0, which the divisors make up for.
        square = squares[name] / (1 - KEPT_SQUARES ** (step + 1))
        return means[name] / (1 - momentum ** (step + 1)) / (np.sqrt(square) + TINY)

    return direction


OPTIMISERS: dict[str, Callable[[float], Direction]] = {"sgd": _sgd, "adam": _adam}


def _with_bar(steps: int, losses: Array, *, shown: bool | None) -> Iterator[int]:
    """Count the steps, with tqdm's bar and the last loss if it is to be shown."""
    if shown is None:
        shown = sys.stderr is not None and sys.stderr.isatty()
    if not shown:
        yield from range(steps)
        return
    from tqdm import trange

    with trange(steps, file=sys.stderr, dynamic_ncols=True, leave=False) as bar:
        for step in bar:
            yield step
            bar.set_postfix_str(f"loss {losses[step]:.3g}", refresh=False)

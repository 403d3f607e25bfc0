"""Past kinks in two halves, in turn: values by the gradients above them, the image by its values.

The gradient of a convolution, G = Σ δ hᵀ, is linear in the h that comes into it. Where features are
shown, all that is open of δ is which element of each window is the largest, and a channel's row of
G knows of its own few windows alone: with h nearly right most channels agree with it to rounding,
the others are outliers. So values h within the network are sought by robust regression, as if they
were free of the image, all channels with one weight. Then the image is sought that has these
values, those that are off with less weight. It has fewer pixels than there are values, so that its
own are nearer to the client's: again from there. The kinks of one half do not stop the search in
the other, as they do where all is sought at once.

What is left then is at kinks. Where all values are right it is left to robust regression once more,
by these and the gradients below them, all channels with one weight. Else values are brought to
rounding, those that the gradients tell are told from others, and the image is sought by them where
it is sure which element of a window they are (`by_largest`), and at last by all numbers together,
with the kinks of the upper half as the values have them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyleak.attacks.by_largest import by_largest
from tinyleak.attacks.distances import (
    Objective,
    StoppedError,
    objective_of,
    search_in_range,
)
from tinyleak.attacks.further_down import Cut, cut_of
from tinyleak.attacks.kinks import Choices, Kinks
from tinyleak.attacks.outliers import without_outliers
from tinyleak.attacks.shown import Below, Shown, in_a_row
from tinyleak.attacks.smoothed import LEAST_SEEN, random_signs, squares
from tinyleak.backend import Array
from tinyleak.gradient import grad
from tinyleak.ops import relu, reshape
from tinyleak.ops import sum as total
from tinyleak.optim.truncated import Reached, Traced, truncated_gauss_newton
from tinyleak.program import trace
from tinyleak.tensor import Tensor

TURNS, PROGRESS = 16, 0.9
"""At most, and to what share of itself the distance of the image from the values must fall in each.
CIFAR's network takes three or four before training, and about six after it."""

LARGEST, PRODUCTS = 0, 100
"""The power of ten that s² is at most, where values may be far off, and products of each step."""

DOUBTS, ITERATIONS = (math.inf, 0.03, 0.01, 0.003), 100
"""Errors, as shares of the mean, beyond which a value counts less in the search for the image, one
after the other, and how many iterations each has."""

ALONE = 300  # iterations by values alone, in turn with robust regression

PASSES = 8
"""At most, in which values are told apart, and the image sought by them and by all together."""

TOLD: dict[str, Any] = {
    **{"steps": 4, "products": 600, "rough": 1e-4, "damping": 1e-9},
    "scales": (1e-4, 1e-6),
}
"""How values are brought to rounding. Of CIFAR's after training some are hardly told: steps of 100
products that are damped by 1e-3 left 4e-7 where these leave 2e-14."""

JOLT, SAME = 0.01, 1e-3
"""The noise, in their mean, from which values are sought again, and how near those that are told
come back: of 8,192 of a trained client about 300 did not, all wrong ones but one among them."""

HELD: dict[str, Any] = {
    **{"steps": 3, "products": 400, "rough": 0.01, "damping": 1e-7},
    "scales": (1e-2, 1e-3, 1e-4, 1e-5),
}
"""How the image is sought by all together, with the upper half's winners held."""


def by_halves(
    shown: Shown,
    gradients: Mapping[str, Array],
    image: Array,
    lowest: float,
    highest: float,
    goal: float,
) -> Array | None:
    """Search in turn for values within the network, and for the image that has them.

    Args:
        shown: features, and the network below them.
        gradients: the client's, by name.
        image: to begin with, (1, C, H, W).
        lowest: what pixels are at least.
        highest: what they are at most.
        goal: a squared relative distance that is small enough.

    Returns:
        The pixels, (C·H·W,); None for a network that cannot be cut where gradients show values.

    Raises:
        StoppedError: Ctrl-C; it has the pixels so far.
    """
    cut = cut_of(shown, gradients, image)
    if cut is None:
        return None
    halves = _Halves(cut, gradients, image, (lowest, highest), goal)
    try:
        values, told, left = halves.in_turn()
        if left <= goal:
            left = halves.with_those_below(values, told)
        if left > goal:
            halves.all_together(values)
    except KeyboardInterrupt as stopped:
        raise StoppedError(getattr(stopped, "x", halves.x)) from None
    return halves.x


class _Halves:
    """The searches in both halves; `x` is the image so far."""

    def __init__(
        self,
        cut: Cut,
        gradients: Mapping[str, Array],
        image: Array,
        bounds: tuple[float, float],
        goal: float,
    ) -> None:
        self.cut, self.gradients, self.bounds, self.goal = cut, gradients, bounds, goal
        self.shape, self.x = image.shape, image.ravel()
        self.pixels = _Pixels(cut.below, image.shape, cut.values.size)
        self.upper = (1, 1, 1, cut.values.size)
        self.above = _residual(cut.above, gradients, self.upper)

    def in_turn(self) -> tuple[Array, Array, float]:
        """Return values, which of them gradients depend on, and ‖r‖² above them."""
        before = left = math.inf
        for _ in range(TURNS):
            if left > self.goal:
                at = self.pixels.values(self.x)
                values, left = _robust(self.above, at, self.cut.lowest, math.inf)
                told = _seen(self.above, values)
            self.x, apart = self.pixels.search(self.x, values, told, *self.bounds)
            if apart <= self.goal or apart > PROGRESS * before:
                break
            before = apart
        return values, told, left

    def with_those_below(self, values: Array, told: Array) -> float:
        """Search by right values and the gradients below, in turn with values; return ‖r‖²."""
        lower = self.cut.values_shown(values, self.goal, np.flatnonzero(told))
        residual, before = _residual(lower, self.gradients, self.shape), math.inf
        alone = objective_of(self.shape, lower, None)
        for _ in range(TURNS):
            self.x, left = _robust(residual, self.x, *self.bounds)
            apart, self.x, _ = search_in_range(alone, self.x, self.goal, *self.bounds, ALONE)
            if left <= self.goal or apart > PROGRESS * before:
                break
            before = apart
        return left

    def all_together(self, values: Array) -> None:
        """Search by values as far as they are told, and then by all with the winners they have."""
        (lowest, highest), best = self.bounds, Reached(self.x, math.inf)
        for _ in range(PASSES):
            values, told = _told(self.above, values, self.cut.lowest)
            at = self.x.reshape(self.shape)
            near = by_largest(self.cut.below, values, told, at, lowest, highest)
            if near is None:
                near, _ = self.pixels.search(self.x, values, told, lowest, highest)
            choices, _ = Kinks(self.cut.above.below).at(Tensor(values.reshape(self.upper)))
            held = [one.winners() for one in choices]
            whole = _residual(self.cut.shown, self.gradients, self.shape, held)
            here = truncated_gauss_newton(whole, near, lowest=lowest, highest=highest, **HELD)
            self.x, before = here.x, best.value
            best = here if here.value < before else best
            if here.value <= self.goal or here.value > PROGRESS * before:
                break
            values = self.pixels.values(self.x)
        self.x = best.x


def _robust(residual: Traced, x: Array, lowest: float, highest: float) -> Reached:
    return without_outliers(residual, x, lowest, highest, largest=LARGEST, products=PRODUCTS)


def _told(residual: Traced, start: Array, lowest: float) -> tuple[Array, Array]:
    """Return values, (n,), with which all but outliers are zero, and which of them that tells.

    These come back from noise on them: others can be anything without a difference.
    """
    values = truncated_gauss_newton(residual, start, lowest=lowest, **TOLD).x
    mean = float(np.mean(np.abs(values)))
    noise = np.random.default_rng(0).standard_normal(len(values)) * (values > lowest)
    again = truncated_gauss_newton(residual, values + JOLT * mean * noise, lowest=lowest, **TOLD).x
    return values, np.abs(again - values) < SAME * mean


def _seen(residual: Traced, x: Array) -> Array:
    """Return of which numbers a residual depends, (n,)."""
    count = len(residual.value(x))
    seen = squares(residual, x, random_signs(np.random.default_rng(0), count))
    return seen > LEAST_SEEN * seen.max()


def _residual(
    shown: Shown,
    gradients: Mapping[str, Array],
    shape: tuple[int, ...],
    held: Sequence[Array] = (),
) -> Traced:
    """Return that of features and the gradients below, of which each row has one weight.

    It is of the numbers that come into the network below the features, of this shape. The last
    kinks, as many as are `held`, take these elements, (n,) numbers each, not the largest.
    """
    kinks = Kinks(shown.below)
    below, opens = kinks.at(Tensor(np.zeros(shape)))
    free = len(below) - len(held)
    known = shown.with_pattern(opens)
    weights = [_of_rows(gradients[name].astype(float)) for name in shown.lower]

    def chosen(number: int, choices: Choices) -> Tensor:
        return choices.largest() if number < free else choices.chosen(held[number - free])

    def residual(z: Tensor) -> Tensor:
        onward = kinks.replay(reshape(z, shape), chosen, open_top=opens)
        found = relu(onward) if opens else onward
        parts = known.differences(found, gradients, onward)
        first = len(parts) - len(weights)
        weighed = [part * Tensor(w) for part, w in zip(parts[first:], weights, strict=True)]
        return in_a_row([*parts[:first], *weighed])

    return Traced(residual, math.prod(shape))


def _of_rows(gradient: Array) -> Array:
    """Return what rows of a gradient are multiplied by so that each has one length, or none."""
    if gradient.ndim == 1:
        return np.ones_like(gradient)
    lengths = np.linalg.norm(gradient.reshape(len(gradient), -1), axis=1)
    some = lengths > 0
    weights = np.zeros_like(lengths)
    weights[some] = float(np.linalg.norm(lengths)) / math.sqrt(some.sum()) / lengths[some]
    return weights.reshape(-1, *[1] * (gradient.ndim - 1))


class _Pixels:
    """The network below values, and a search for the pixels that have them."""

    def __init__(self, below: Below, shape: tuple[int, ...], count: int) -> None:
        def values(z: Tensor) -> Tensor:
            found = below(reshape(z, shape))
            assert found is not None, "it was found before"
            return reshape(found, (-1,))

        def distance(z: Tensor, wanted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            apart = (values(z) - wanted) * weights
            value = total(apart * apart)
            return value, grad(value, z)

        z, each = np.zeros(math.prod(shape)), np.zeros(count)
        self._values = trace(values, z, check=False)
        self._distance = trace(distance, z, each, each, check=False)

    def values(self, x: Array) -> Array:
        """Return the values of pixels, (n,)."""
        return self._values(x)[0]

    def search(
        self, x: Array, wanted: Array, told: Array, lowest: float, highest: float
    ) -> tuple[Array, float]:
        """Return the pixels that come nearest to the values that are told, and how near at first.

        That is the squared relative distance while all of them count alike.
        """
        mean, length = float(np.mean(np.abs(wanted))), float(np.linalg.norm(wanted))
        ends = []
        for doubt in DOUBTS:
            apart = (self.values(x) - wanted) / (doubt * mean)
            objective = self._weighed(wanted, told / np.sqrt(1.0 + apart**2) / length)
            ends.append(search_in_range(objective, x, 0.0, lowest, highest, ITERATIONS))
            x = ends[-1].x
        return x, ends[0].value

    def _weighed(self, wanted: Array, weights: Array) -> Objective:
        def objective(x: Array) -> tuple[float, Array]:
            value, slope = self._distance(x, wanted, weights)
            return float(value), slope

        return objective

"""Kinks made smooth: the way past ReLU and max pooling, where a search by features stalls.

Which units are active, and which element of a window is the largest, is a pattern of yes and no.
The gradient of the layers below jumps wherever the pattern changes, so that every search for an
image ends at the first wrong one. Here both are smoothed by a temperature t that falls: max(a, b)
becomes b + t·softplus((a − b)/t), the largest of a window their mean weighted by softmax(x/t).

A smoothed network is another network, and its solution is another image. So its residual is
corrected by what smoothing changes at the image found so far, r_t(z) − r_t(z₀) + r(z₀), as in
deferred correction: then the client's image is a solution at every temperature once z₀ is near.

At the uppermost ReLU the pattern is known: the features that are shown are positive where its units
are active. The gradient below is taken with that pattern, without any ReLU there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from tinyleak.attacks.shown import Below, Shown
from tinyleak.backend import Array
from tinyleak.gradient import depending_on, topological_order, vjp
from tinyleak.ops import (
    concatenate,
    exp,
    max,
    reshape,
    softplus,
    stop_gradient,
    sum,
    take,
)
from tinyleak.ops.winners import Windows, elements_of_windows
from tinyleak.optim.truncated import Reached, truncated_gauss_newton, undamped
from tinyleak.program import trace
from tinyleak.tensor import Tensor

TEMPERATURES = tuple(0.7**k for k in range(36))
"""Shares of the spread of what a kink compares. Steps of 0.5 end at more wrong patterns."""

LEAST, PROGRESS = 18, 0.9
"""How many temperatures, at least, and to what share of itself the distance must fall at each
further one. An end at a hundredth of the spread, rather than at LEAST's four-hundredth, met more
wrong patterns; of 3,072 pixels the distance falls on until the twentieth or thirtieth."""

POOLING = 3.0
"""Times as high for max pooling: of 1, 3, 6 and 15 the best on a CNN with two pools."""

WARMER, ROUNDS = 6, 10
"""After so many temperatures the residual is corrected, and how often at each. Of seven images of a
network with three convolutions and two heads 10 rounds brought all back, 6 four."""

JOLT, CYCLES, MANY_PIXELS = 0.05, 3, 1024
"""The standard deviation of the noise on the best image so far from which the cooler temperatures
are gone through again, and how often; not with so many pixels, where one cycle takes minutes."""

CLOSE = 1e-8
"""Where a search with the right pattern ends is below this, one with a wrong pattern above 1e-6."""

SHARP = 1e-9
"""A temperature at which a network is itself, but for the pattern that is known."""

STEPS, LAST_STEPS = 3, 30
"""Steps of Gauss and Newton in each round, and at the end without smoothing."""


def past_kinks(
    shown: Shown,
    gradients: Mapping[str, Array],
    start: Array,
    lowest: float,
    highest: float,
    goal: float,
) -> Reached | None:
    """Search for the image that has the features that are shown, and the gradient below them.

    Args:
        shown: of what layer, and the network below it.
        gradients: the client's, by name.
        start: (1, C, H, W).
        lowest: what pixels are at least.
        highest: what they are at most.
        goal: a squared relative distance that is small enough.

    Returns:
        The pixels, (C·H·W,), and the squared relative distance there, without smoothing; None for
        a network without kinks.
    """
    shape = start.shape
    smoothed, known = _Smoothed(shown.below, Tensor(start)), shown
    if not smoothed.spreads:
        return None
    if smoothed.opens and shown.features is not None:
        known = replace(shown, slopes=shown.slopes * (shown.features > 0))

    def at_temperature(z: Tensor, temperature: Tensor) -> Tensor:
        images = reshape(z, shape)
        features = smoothed(images, temperature)
        opened = smoothed(images, temperature, open_top=True)
        return _in_a_row(known.differences(features, gradients, opened))

    def exactly(z: Tensor, _: Tensor) -> Tensor:
        features = shown.below(reshape(z, shape))
        assert features is not None, "it was found before"
        return _in_a_row(shown.differences(features, gradients))

    soft, exact = _Traced(at_temperature, start.size), _Traced(exactly, start.size)
    inside = partial(truncated_gauss_newton, lowest=lowest, highest=highest, goal=goal)
    best, rng = Reached(start.ravel(), math.inf), np.random.default_rng(0)
    for cycle in range(CYCLES if start.size <= MANY_PIXELS else 1):
        z = best.x if cycle == 0 else best.x + JOLT * rng.standard_normal(start.size)
        before = math.inf
        for k in range(WARMER * (cycle > 0), len(TEMPERATURES)):
            if k >= LEAST and best.value > PROGRESS * before:
                break
            before = best.value
            for _ in range(ROUNDS if k >= WARMER else 1):
                soft.set(TEMPERATURES[k], at=z if k >= WARMER else None)
                z = inside(soft, z, steps=STEPS).x
                value = float(np.sum(exact.value(z) ** 2))
                best = Reached(z, value) if value < best.value else best
        best = inside(exact, best.x, steps=LAST_STEPS)
        if best.value > goal:
            end = undamped(exact, best.x, lowest=lowest, highest=highest)
            best = min(best, end, key=lambda reached: reached.value)
        if best.value <= CLOSE:
            break
    return best


def _in_a_row(parts: list[Tensor]) -> Tensor:
    return concatenate([reshape(part, (-1,)) for part in parts], axis=0)


class _Traced:
    """A residual at a temperature, with products with its Jacobian, as programs."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], size: int) -> None:
        z, t = np.zeros(size), np.ones(())
        self._u = np.zeros(function(Tensor(z), Tensor(t)).shape)

        def back(z: Tensor, t: Tensor, u: Tensor) -> Tensor:
            return vjp({function(z, t): u}, [z])[0]

        def along(z: Tensor, t: Tensor, u: Tensor, v: Tensor) -> Tensor:
            return vjp({back(z, t, u): v}, [u])[0]  # linear in u, which therefore does not matter

        self._value = trace(function, z, t, check=False)
        self._back = trace(back, z, t, self._u, check=False)
        self._along = trace(along, z, t, self._u, z, check=False)
        self.set(1.0)

    def set(self, temperature: float, at: Array | None = None) -> None:
        """Set the temperature, and correct the residual by what it changes at an image."""
        self._offset: Array | float = 0.0
        if at is not None:
            self._temperature = np.array(SHARP)
            sharp = self.value(at)
            self._temperature = np.array(temperature)
            self._offset = self.value(at) - sharp
        self._temperature = np.array(temperature)

    def value(self, x: Array) -> Array:
        return np.asarray(self._value(x, self._temperature)[0] - self._offset)

    def back(self, x: Array, u: Array) -> Array:
        return self._back(x, self._temperature, u)[0]

    def along(self, x: Array, v: Array) -> Array:
        return self._along(x, self._temperature, self._u, v)[0]


class _Smoothed:
    """A network below a layer with its kinks made smooth: its graph, replayed otherwise.

    Attributes:
        spreads: the standard deviation of what each kink compares, at an image.
        opens: whether a ReLU is all that stands between the features and what is linear.
    """

    def __init__(self, below: Below, image: Tensor) -> None:
        self._below = below
        features = below(image)
        assert features is not None, "it was found before"
        order = topological_order(features)
        by_image = depending_on([image], order)
        kinks = [node for node in order if node in by_image and _is_kink(node)]
        self.spreads = [float(np.std(_compared(node))) or 1.0 for node in kinks]
        self.opens = _top(features) is not None

    def __call__(self, images: Tensor, temperature: Tensor, *, open_top: bool = False) -> Tensor:
        """Return the features, (1, F); with `open_top` without the uppermost ReLU."""
        features = self._below(images)
        assert features is not None, "it was found before"
        order, top = topological_order(features), _top(features)
        by_images, spreads = depending_on([images], order), iter(self.spreads)
        new = {images: images}
        for node in order:
            if node is images or node not in by_images or node.primitive is None:
                new[node] = node
                continue
            inputs = [new[one] for one in node.inputs]
            heat = temperature * next(spreads) if _is_kink(node) else temperature
            if node is top:
                new[node] = inputs[0] if open_top else node.primitive(*inputs)
            elif not _is_kink(node):
                new[node] = node.primitive(*inputs, **node.params)
            elif node.primitive.name == "maximum":
                new[node] = inputs[1] + softplus((inputs[0] - inputs[1]) / heat) * heat
            else:
                winners = node.inputs[1]
                x = new[winners.inputs[0]]
                new[node] = _soft_largest(x, POOLING * heat, **winners.params)
        return new[features]


def _name(node: Tensor) -> str | None:
    return None if node.primitive is None else node.primitive.name


def _is_kink(node: Tensor) -> bool:
    """Whether a node is the larger of two, or takes the largest of each window."""
    pools = _name(node) == "take" and _name(node.inputs[1]) == "winners"
    return pools or _name(node) == "maximum"


def _compared(kink: Tensor) -> Array:
    first, second = kink.inputs
    return first.data - second.data if _name(kink) == "maximum" else first.data


def _top(features: Tensor) -> Tensor | None:
    """Return the ReLU above which values are only moved or pooled, so that its pattern shows."""
    node = features
    while _name(node) in ("reshape", "transpose", "broadcast_to", "take"):
        node = node.inputs[0]
    if _name(node) == "maximum" and not node.inputs[1].inputs and not node.inputs[1]._array.any():
        return node
    return None


def _soft_largest(x: Tensor, heat: Tensor, *, down: Windows, across: Windows) -> Tensor:
    """Return the mean of each window of (…, H, W, C), weighted by softmax(x / heat): (n,)."""
    starts, steps, first, slices = elements_of_windows(np, x.shape, down, across)
    places, inside = [], []
    for step, (windows, _) in zip(steps, slices, strict=True):
        here, there = starts + steps[first], np.zeros(starts.shape)  # one in the image for others
        here[windows], there[windows] = starts[windows] + step, 1.0
        places.append(here.ravel())
        inside.append(there.ravel())
    values = reshape(take(reshape(x, (-1,)), np.concatenate(places), axis=0), (len(places), -1))
    weights = exp((values - stop_gradient(max(values, 0))) / heat) * Tensor(np.stack(inside))
    return sum(weights * values, 0) / sum(weights, 0)

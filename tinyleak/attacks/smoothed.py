"""Kinks made smooth: the way past ReLU and max pooling, where a search by features stalls.

Which units are active, and which element of a window is the largest, is a pattern of yes and no.
The gradient of the layers below jumps wherever the pattern changes, so that every search for an
image ends at the first wrong one. Here both are smoothed by a temperature t that falls: max(a, b)
becomes b + t·softplus((a − b)/t), the largest of a window their mean weighted by softmax(x/t).

A smoothed network is another network, and its solution is another image. So its residual is
corrected by what smoothing changes at the image found so far, r_t(z) − r_t(z₀) + r(z₀), as in
deferred correction: then the client's image is a solution at every temperature once z₀ is near.
What is wrong of the pattern at the end is left to robust regression (`outliers`). Where that ends
as well, most of the image is right and a few places are not: these get noise, and all is done again
from there. Windows whose largest element is known, with no further kinks below them, are not
smoothed (`known_maxima`).
"""

import math
from collections.abc import Mapping
from functools import partial, reduce

import numpy as np

from tinyleak.attacks.distances import StoppedError, objective_of
from tinyleak.attacks.kinks import Choices, Kinks
from tinyleak.attacks.known_maxima import known_maxima
from tinyleak.attacks.outliers import in_turn_with_features
from tinyleak.attacks.shown import Shown, in_a_row
from tinyleak.backend import Array
from tinyleak.ops import add, exp, relu, reshape, softplus, stop_gradient
from tinyleak.optim.truncated import Reached, Traced, truncated_gauss_newton
from tinyleak.tensor import Tensor

TEMPERATURES = tuple(0.7**k for k in range(36))
"""Shares of the spread of what a kink compares. Steps of 0.5 end at more wrong patterns."""

LEAST, PROGRESS = 18, 0.9
"""How many temperatures, at least, and to what share of itself the distance must fall at each
further one. An end at a hundredth of the spread, rather than at LEAST's four-hundredth, met more
wrong patterns; of 3,072 pixels the distance falls on until the twentieth or thirtieth."""

POOLING = 3.0
"""Times as high for max pooling: of 1, 3, 6 and 15 the best on a CNN with two pools."""

WARMER, ROUNDS = 6, 4
"""After so many temperatures the residual is corrected, and how often at each."""

JOLT, CYCLES, AGAIN = 0.1, 3, 3
"""The standard deviation, over all pixels, of the noise on the best image so far from which the
temperatures are gone through again, how often, and from which of them: what is wrong there is wrong
in a few places, and these the features show."""

SIGNS, LEAST_SEEN = 16, 1e-6
"""How many random signs tell where features are off; and a pixel that features hardly see counts as
seen by so much of what one is seen at most."""

CLOSE = 1e-8
"""Where a search with the right pattern ends is below this, one with a wrong pattern above 1e-6: so
near, features are those of the image, as far as they tell."""

SHARP = 1e-9
"""A temperature at which a network is itself, but for the pattern that is known."""

EVERY = 2
"""At so many temperatures robust regression is tried, and first after WARMER: from there it brings
back a network with two convolutions and pools, and after the eighth CIFAR's."""

STEPS = 3
"""Steps of Gauss and Newton in each round."""

LAST_STEPS, PRODUCTS, EXACT, UNDAMPED = 30, 300, 1e-3, 1e-7
"""Steps at the end, without smoothing, of so many products at most, solved to that share, and λ at
first. Steps that are rough, or damped, cross kinks that the way to the image does not."""


def past_kinks(
    shown: Shown,
    gradients: Mapping[str, Array],
    start: Array,
    lowest: float,
    highest: float,
    goal: float,
    cycles: int = CYCLES,
) -> Reached | None:
    """Search for the image that has the features that are shown, and the gradient below them.

    Args:
        shown: of what layer, and the network below it.
        gradients: the client's, by name.
        start: (1, C, H, W).
        lowest: what pixels are at least.
        highest: what they are at most.
        goal: a squared relative distance that is small enough.
        cycles: how often the temperatures are gone through.

    Returns:
        The pixels, (C·H·W,), and the squared relative distance there, without smoothing; None for
        a network without kinks.

    Raises:
        StoppedError: Ctrl-C; it has the best so far.
    """
    shape, made = start.shape, _softened(shown, gradients, start)
    if made is None:
        return None
    soft, spreads, shares = made

    def exactly(z: Tensor) -> Tensor:
        return in_a_row(shown.parts(reshape(z, shape), gradients))

    exact = Traced(exactly, start.size)
    inside = partial(truncated_gauss_newton, lowest=lowest, highest=highest, goal=goal)
    to_end = partial(
        inside, exact, steps=LAST_STEPS, products=PRODUCTS, rough=EXACT, damping=UNDAMPED
    )
    alone = objective_of(start.shape, shown, None) if shown.count >= start.size else None
    robust = partial(in_turn_with_features, exact, alone, lowest, highest, goal)
    close, rng = max(CLOSE, goal), np.random.default_rng(0)

    def cooled(x: Array, temperature: float, at: Array | None) -> Reached:
        nonlocal shares
        soft.cool(temperature, None if at is None else np.concatenate([at, shares]))
        z = np.concatenate([x, shares])
        z = inside(soft, z, steps=STEPS if spreads else LAST_STEPS).x
        z, shares = z[: x.size], z[x.size :]
        return Reached(z, float(np.sum(exact.value(z) ** 2)))

    best = here = Reached(start.ravel(), math.inf)
    try:
        for cycle in range(cycles):
            if cycle > 0:
                here = Reached(_jolted(exact, best.x, shown.count, rng), math.inf)
            before = math.inf
            first = AGAIN if cycle > 0 else 0
            # Below the uppermost ReLU, whose pattern is known, there may be nothing to cool.
            for k in range(first, len(TEMPERATURES)) if spreads else (WARMER - 1,):
                if k >= LEAST and best.value > PROGRESS * before:
                    break
                before, ends = best.value, [here]
                for _ in range(ROUNDS if k >= WARMER else 1):
                    at = ends[-1].x if k >= WARMER else None
                    ends.append(cooled(ends[-1].x, TEMPERATURES[k], at))
                here, best = ends[-1], min(best, *ends, key=_distance)
                here = best if best.value <= close else here
                if k + 1 == WARMER or (k >= WARMER and k % EVERY == 0) or here.value <= close:
                    best = min(best, robust(here.x), key=_distance)
                if best.value <= close:
                    break
            best = to_end(best.x)
            if best.value <= close:
                break
    except KeyboardInterrupt:
        raise StoppedError(best.x) from None
    return best


def _softened(
    shown: Shown, gradients: Mapping[str, Array], start: Array
) -> tuple["_Corrected", list[float], Array] | None:
    """Return the smoothed residual of pixels and shares, the kinks' spreads, and shares at first.

    None if there are no kinks; no shares where no window's largest element is known.
    """
    kinks, image, features = Kinks(shown.below), Tensor(start), shown.features
    choices, opens = kinks.at(image)
    spreads = [one.spread for one in choices]
    if not spreads and not opens:
        return None
    known = shown.with_pattern(opens)
    # Of features alone the largest of a window is enough: which it is decides of gradients below.
    # Above further kinks, as for CIFAR's image itself, shares brought it no nearer.
    shared = features is not None and known.lower and len(choices) == 1
    maxima = known_maxima(kinks, image, features) if features is not None and shared else None
    shares = np.zeros(0) if maxima is None else np.full(maxima.size, 1.0 / maxima.elements)

    def smoothed(z: Tensor, temperature: Tensor) -> Tensor:
        images = reshape(z[: start.size], start.shape)
        soft, parts = partial(_soft, [temperature * s for s in spreads]), list[Tensor]()

        def at_kink(number: int, choices: Choices) -> Tensor:
            if maxima is None:
                return soft(number, choices)
            value, zeros = maxima.mixed(z[start.size :], choices)
            parts.extend(zeros)
            return value

        opened = kinks.replay(images, at_kink, open_top=True)
        if maxima is None:
            found = kinks.replay(images, at_kink)
        else:
            found = relu(opened) if opens else opened
        return in_a_row([*known.differences(found, gradients, opened), *parts])

    return _Corrected(smoothed, start.size + shares.size, np.ones(())), spreads, shares


def _jolted(exact: Traced, x: Array, count: int, rng: np.random.Generator) -> Array:
    """Return an image with noise where the first numbers of the residual, its features, are off.

    How far, of each pixel, Σ Jᵢⱼ² rᵢ² / Σ Jᵢⱼ² tells; sums over i are means over random signs.
    """
    r = exact.value(x)
    signs = random_signs(rng, len(r))
    signs[:, count:] = 0.0
    off, seen = squares(exact, x, signs * r), squares(exact, x, signs)
    heat = off / (seen + LEAST_SEEN * seen.max()) if off.any() else np.ones_like(x)
    return x + JOLT * heat / math.sqrt(np.mean(heat**2)) * rng.standard_normal(len(x))


def random_signs(rng: np.random.Generator, count: int) -> Array:
    """Return rows, (SIGNS, count), of −1 and 1."""
    return rng.choice([-1.0, 1.0], (SIGNS, count))


def squares(residual: Traced, x: Array, rows: Array) -> Array:
    """Return Σ (Jᵀu)², (n,), over rows u: for random signs about SIGNS · Σ Jᵢⱼ² over i."""
    return np.square([residual.back(x, row) for row in rows]).sum(axis=0)


def _distance(reached: Reached) -> float:
    return reached.value


class _Corrected(Traced):
    """A residual at a temperature, corrected by what the temperature changes at an image."""

    _offset: Array | float = 0.0

    def cool(self, temperature: float, at: Array | None) -> None:
        """Set the temperature, and correct the residual at an image; None is to leave it so."""
        self._offset = 0.0
        if at is not None:
            self.held = (np.array(SHARP),)
            sharp = self.value(at)
        self.held = (np.array(temperature),)
        if at is not None:
            self._offset = self.value(at) - sharp

    def value(self, x: Array) -> Array:
        """Return r(x), (m,)."""
        return super().value(x) - self._offset


def _soft(heats: list[Tensor], number: int, choices: Choices) -> Tensor:
    """Return a smooth largest of what a kink chooses among, (n,)."""
    elements, heat = choices.elements, heats[number]
    if not choices.pools:
        first, second = elements
        return second + softplus((first - second) / heat) * heat
    heat = POOLING * heat
    largest = stop_gradient(choices.largest())
    weights = [
        exp((one - largest) / heat) * Tensor(there)
        for one, there in zip(elements, choices.inside, strict=True)
    ]
    total = reduce(add, [one * weight for one, weight in zip(elements, weights, strict=True)])
    return total / reduce(add, weights)

"""Too few features: first the values at the network's waist, then the image that has them.

A layer such as VGG's first linear one has fewer features than an image has pixels. Search for the
pixels, by features and the gradients below together, then ends at wrong kinks of many layers. But a
convolution's gradient G = Σ δ hᵀ is linear in its input h, so that the gradients of a few layers
below the features may determine what comes into them: more numbers than pixels, and few kinks above
them. Found, these are features themselves, enough of them, with fewer layers below; this goes layer
by layer as "R-GAP" does (Zhu and Blaschko 2021), with nothing inverted and no noise added up, since
the image is brought to the whole gradient at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tinyleak.attacks.distances import StoppedError
from tinyleak.attacks.kinks import relu_of
from tinyleak.attacks.shown import Shown, sum_of
from tinyleak.attacks.smoothed import past_kinks
from tinyleak.backend import Array
from tinyleak.gradient import depending_on, grad, topological_order
from tinyleak.nn.split import computed_again
from tinyleak.ops import reshape, sum
from tinyleak.tensor import Tensor

STARTS, LARGE = 6, 5.0
"""From so many starts the values are searched for, and how many times as large as those of noise
they are at first: as large as usual brought back none of three values, these three of five."""

ERRORS = 100.0
"""A ReLU's values below so many times √(what is left), as a share of their mean, are zero: of nine
clients of small networks zeros came out up to 10 times as large, the least others 40,000 times."""


def shown_at_waist(
    shown: Shown, gradients: Mapping[str, Array], start: Array, goal: float, close: float, seed: int
) -> Shown | None:
    """Search for the values at a network's waist, and return what is then shown of an image.

    Args:
        shown: too few features, and the network below them.
        gradients: the client's, by name.
        start: (1, C, H, W), an image whose values the search starts from.
        goal: a squared relative distance that is small enough.
        close: one at which the values are those of the client's image.
        seed: decides the starts.

    Returns:
        None for a network without a waist, or without kinks above it, and where the search does
        not arrive.

    Raises:
        StoppedError: Ctrl-C; it has the start, since values are no image.
    """
    narrowest = _waist(shown, start)
    if narrowest is None:
        return None
    number, waist = narrowest

    def upper(values: Tensor) -> Tensor:
        order, through = _through(shown, Tensor(np.zeros_like(start)))
        return computed_again(order[-1], {through[number]: reshape(values, waist.shape)})

    def below(images: Tensor) -> Tensor:
        return reshape(_through(shown, images)[1][number], (1, -1))

    sent = _parameters_above(shown, waist)
    above = Shown(shown.layer, shown.features, shown.slopes, upper, sent)
    lowest = -math.inf if relu_of(waist) is None else 0.0
    size, rng = LARGE * float(np.mean(np.abs(waist.data))), np.random.default_rng(seed)
    for _ in range(STARTS):
        values = size * np.abs(1.0 + rng.standard_normal((1, 1, 1, waist.data.size)))
        try:
            found = past_kinks(above, gradients, values, lowest, math.inf, goal, cycles=1)
        except StoppedError:
            raise StoppedError(start.ravel()) from None
        if found is None:
            return None
        if found.value <= close:
            break
    else:
        return None
    # A unit counts as active wherever its value is above zero, however little.
    error = ERRORS * math.sqrt(found.value) * float(np.mean(np.abs(found.x)))
    features = Tensor(np.where(found.x > lowest + error, found.x, 0.0).reshape(1, -1))
    slopes = grad(sum(upper(features) * Tensor(shown.slopes)), features).data
    lower = {name: weight for name, weight in shown.lower.items() if name not in sent}
    return Shown(shown.layer, features.data, slopes, below, lower)


def _waist(shown: Shown, start: Array) -> tuple[int, Tensor] | None:
    """Return which of the nodes that all paths lead through is the narrowest, and that node.

    It has as many numbers as an image at least, no more than there are gradients above it, and
    some below. Of equals it is the lowest that a ReLU bounds: the more gradients are above it.
    """
    whole, found = sum_of(shown.lower), []
    for number, node in enumerate(_through(shown, Tensor(start))[1]):
        above, size = sum_of(_parameters_above(shown, node)), math.prod(node.shape)
        if start.size <= size <= above < whole:
            found.append((size, relu_of(node) is None, number, node))
    return min(found)[2:] if found else None  # no two have one number


def _parameters_above(shown: Shown, node: Tensor) -> dict[str, Tensor]:
    """Return the parameters below the features that a node does not depend on."""
    under = set(topological_order(node))
    return {name: weight for name, weight in shown.lower.items() if weight not in under}


def _through(shown: Shown, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the graph's nodes in order, and those that every path from the images leads through.

    An edge over a node goes from one before it to one after it.
    """
    features = shown.below(images)
    assert features is not None, "it was found before"
    order = topological_order(features)
    by_images = depending_on([images], order)
    nodes = [node for node in order if node in by_images]
    place = {node: k for k, node in enumerate(nodes)}
    reach = list(range(len(nodes)))  # how far the edges from each node lead
    for node in nodes:
        for one in node.inputs:
            if one in place:
                reach[place[one]] = max(reach[place[one]], place[node])
    through, farthest = [], 0
    for k, node in enumerate(nodes):
        if farthest <= k:
            through.append(node)
        farthest = max(farthest, reach[k])
    return order, through

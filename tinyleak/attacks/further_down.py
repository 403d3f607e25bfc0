"""Too few features: first values farther down the network, layer by layer, then the image.

A layer such as VGG's first linear one has fewer features than an image has pixels. Search for the
pixels, by features and the gradients below together, then ends at wrong kinks of many layers. But a
convolution's gradient G = Σ δ hᵀ is linear in its input h, so that the gradients of a layer or two,
or a residual block, below the features determine what comes into them where there are more of them
than values, and there are few kinks above these. Found, these are features themselves, with fewer
layers below: so it goes on, until there are as many as pixels. This is the way of "R-GAP" (Zhu and
Blaschko 2021), with nothing inverted and no noise added up, since the image is brought to the whole
gradient at the end.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyleak.attacks.distances import StoppedError
from tinyleak.attacks.kinks import relu_of
from tinyleak.attacks.shown import Below, Shown
from tinyleak.attacks.smoothed import CLOSE, past_kinks
from tinyleak.backend import Array
from tinyleak.gradient import depending_on, grad, topological_order
from tinyleak.nn.split import computed_again
from tinyleak.ops import reshape, take
from tinyleak.ops import sum as total
from tinyleak.tensor import Tensor

ENOUGH = 1.5
"""The next values are the nearest of which there are so many gradients above for each number, or
those with most; and where there are some that a ReLU bounds, of these."""

STARTS, LARGE = 7, 5.0
"""From so many starts values are searched for, and how many times as large as those of noise they
are at first, but for the first time. Of VGG's values as large as usual brought back none of seven,
these three of five; of ResNet's as large as usual all, these not all."""

ERRORS = 100.0
"""A ReLU's values below so many times √(what is left), as a share of their mean, are zero: of nine
clients of small networks zeros came out up to 10 times as large, the least others 40,000 times."""


def shown_further_down(
    shown: Shown, gradients: Mapping[str, Array], start: Array, goal: float, seed: int
) -> Shown | None:
    """Search for values ever farther down, and return the lowest that were found.

    Args:
        shown: too few features, and the network below them.
        gradients: the client's, by name.
        start: (1, C, H, W), an image whose values the search starts from.
        goal: a squared relative distance that is small enough.
        seed: decides the starts.

    Returns:
        The first that are as many as the image's pixels, or the last before a search did not
        arrive; None if no search did, or there are no kinks above.

    Raises:
        StoppedError: Ctrl-C; it has the start, since values are no image.
    """
    rng, lowest = np.random.default_rng(seed), None
    while shown.count < start.size and (cut := cut_of(shown, gradients, start)) is not None:
        try:
            found = _next(cut, gradients, goal, rng)
        except StoppedError:
            raise StoppedError(start.ravel()) from None
        if found is None:
            break
        shown = lowest = found
    return lowest


@dataclass(frozen=True, eq=False)
class Cut:
    """A network cut at values that all paths from the images lead through.

    Attributes:
        shown: the features, and the whole network below them.
        above: the same features, and the network from the values, (1, 1, 1, n), to them.
        below: the network from images to the values, (1, n).
        lowest: what values are at least: 0 of a ReLU.
        values: those of an image, (n,).
    """

    shown: Shown
    above: Shown
    below: Below
    lowest: float
    values: Array

    def values_shown(self, x: Array, left: float, told: Array | None = None) -> Shown:
        """Return values that were found, (n,), as what is shown, or those of the numbers `told`.

        Args:
            x: the values.
            left: the squared relative distance that they leave, apart from outliers.
            told: which of them the gradients above tell; None for all.
        """
        # A unit counts as active wherever its value is above zero, however little.
        error = ERRORS * math.sqrt(left) * float(np.mean(np.abs(x)))
        features = Tensor(np.where(x > self.lowest + error, x, 0.0).reshape(1, -1))
        onward = self.above.below(features)
        assert onward is not None, "it was found before"
        slopes = grad(total(onward * Tensor(self.shown.slopes)), features).data
        sent = self.above.lower
        lower = {name: weight for name, weight in self.shown.lower.items() if name not in sent}
        if told is None:
            return Shown(self.shown.layer, features.data, slopes, self.below, lower)

        def some(images: Tensor) -> Tensor:
            values = self.below(images)
            assert values is not None, "it was found before"
            return take(values, told, axis=1)

        return Shown(self.shown.layer, features.data[:, told], slopes[:, told], some, lower)


def cut_of(shown: Shown, gradients: Mapping[str, Array], image: Array) -> Cut | None:
    """Return a network cut at the next values that the gradients above may determine, if any do."""
    chosen = _chosen(shown, gradients, image)
    if chosen is None:
        return None
    number, node = chosen

    def upper(values: Tensor) -> Tensor:
        order, through = _through(shown, Tensor(np.zeros_like(image)))
        return computed_again(order[-1], {through[number]: reshape(values, node.shape)})

    def below(images: Tensor) -> Tensor:
        return reshape(_through(shown, images)[1][number], (1, -1))

    sent = _parameters_above(shown, node)
    above = Shown(shown.layer, shown.features, shown.slopes, upper, sent)
    return Cut(shown, above, below, -math.inf if relu_of(node) is None else 0.0, node.data.ravel())


def _next(
    cut: Cut, gradients: Mapping[str, Array], goal: float, rng: np.random.Generator
) -> Shown | None:
    """Return what is shown where a network is cut, if a search for these values arrives."""
    size = float(np.mean(np.abs(cut.values)))
    for large in [1.0] + [LARGE] * (STARTS - 1):
        values = large * size * np.abs(1.0 + rng.standard_normal((1, 1, 1, cut.values.size)))
        found = past_kinks(cut.above, gradients, values, cut.lowest, math.inf, goal, cycles=1)
        if found is None:
            return None
        if found.value <= max(CLOSE, goal):
            return cut.values_shown(found.x, found.value)
    return None


def _chosen(
    shown: Shown, gradients: Mapping[str, Array], start: Array
) -> tuple[int, Tensor] | None:
    """Return which node that all paths lead through is next, and that node."""
    found = []
    for number, node in enumerate(_through(shown, Tensor(start))[1]):
        above = _parameters_above(shown, node)
        share = sum([np.count_nonzero(gradients[name]) for name in above]) / node.data.size
        if len(above) < len(shown.lower) and share >= 1:
            found.append((relu_of(node) is not None, min(share, ENOUGH), number, node))
    return max(found)[2:] if found else None  # no two have one number


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

"""The kinks of a network: where ReLU and max pooling choose, and what else may stand there.

Max(a, b) chooses one of two, max pooling one element of each window. The graph of a network is
replayed with something else in their place: smoothed (`smoothed`).

At the uppermost ReLU the pattern is known: the features that are shown are positive where its units
are active. The gradient below is taken with that pattern, without any ReLU there.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import NamedTuple

import numpy as np

from tinyleak.attacks.shown import Below
from tinyleak.backend import Array
from tinyleak.gradient import depending_on, topological_order
from tinyleak.ops import add, broadcast_to, maximum, reshape, take
from tinyleak.ops.winners import elements_of_windows
from tinyleak.tensor import Tensor


class Choices(NamedTuple):
    """What n units, or windows, choose the largest of.

    Attributes:
        elements: of each the first, the second, …: (n,) each.
        inside: where these lie in the image: 1 or 0, (n,) each.
        pools: whether they are windows.
    """

    elements: list[Tensor]
    inside: list[Array]
    pools: bool

    @property
    def many(self) -> int:
        """How many choices there are."""
        return len(self.inside[0])

    def largest(self) -> Tensor:
        """Return the largest of each, (n,)."""
        return reduce(maximum, self.elements)

    def numbers(self) -> Array:
        """Return the elements as numbers, one row for each place: −∞ outside the image."""
        elements = np.stack([element.data for element in self.elements])
        return np.where(np.stack(self.inside) > 0, elements, -np.inf)

    def winners(self) -> Array:
        """Return which element is the first largest of each, (n,)."""
        return np.asarray(self.numbers().argmax(axis=0))

    def chosen(self, which: Array) -> Tensor:
        """Return the element of each that has this number, (n,)."""
        return reduce(add, [e * Tensor((which == k) * 1.0) for k, e in enumerate(self.elements)])

    @property
    def spread(self) -> float:
        """The standard deviation of what is compared."""
        numbers = self.numbers()
        if self.pools:
            return float(np.std(numbers[np.isfinite(numbers)])) or 1.0
        return float(np.std(numbers[0] - numbers[1])) or 1.0


AtKink = Callable[[int, Choices], Tensor]
"""What stands at the k-th kink, (n,), in place of the largest."""


class Kinks:
    """A network below a layer, replayed with something else at its kinks."""

    def __init__(self, below: Below) -> None:
        self._below = below

    def at(self, images: Tensor) -> tuple[list[Choices], bool]:
        """Return what each kink chooses among, the uppermost ReLU apart, and whether that is there.

        It is all that stands between the features and what is linear.
        """
        top, order, by_images = self._graph(images)
        kinks = [node for node in order if node in by_images and _is_kink(node) and node is not top]
        return [_choices(node, {}) for node in kinks], top is not None

    def any(self, images: Tensor) -> bool:
        """Whether there are kinks, the uppermost ReLU among them."""
        choices, opens = self.at(images)
        return bool(choices) or opens

    def replay(self, images: Tensor, at_kink: AtKink, *, open_top: bool = False) -> Tensor:
        """Return the features, (1, F); with `open_top` without the uppermost ReLU."""
        top, order, by_images = self._graph(images)
        new, number = {images: images}, 0
        for node in order:
            if node is images or node not in by_images or node.primitive is None:
                new[node] = node
            elif node is top and open_top:
                new[node] = new[node.inputs[0]]
            elif node is top or not _is_kink(node):
                new[node] = node.primitive(*[new[one] for one in node.inputs], **node.params)
            else:
                new[node] = reshape(at_kink(number, _choices(node, new)), node.shape)
                number += 1
        return new[order[-1]]

    def _graph(self, images: Tensor) -> tuple[Tensor | None, list[Tensor], set[Tensor]]:
        """Return the uppermost ReLU, all nodes in order, and those that depend on the images."""
        features = self._below(images)
        assert features is not None, "it was found before"
        order = topological_order(features)
        return relu_of(features), order, depending_on([images], order)


def _name(node: Tensor) -> str | None:
    return None if node.primitive is None else node.primitive.name


def _is_kink(node: Tensor) -> bool:
    """Whether a node is the larger of two, or takes the largest of each window."""
    pools = _name(node) == "take" and _name(node.inputs[1]) == "winners"
    return pools or _name(node) == "maximum"


def relu_of(features: Tensor) -> Tensor | None:
    """Return the ReLU above which values are only moved or pooled, so that its pattern shows."""
    node = features
    while _name(node) in ("reshape", "transpose", "broadcast_to", "take"):
        node = node.inputs[0]
    if _name(node) == "maximum" and not node.inputs[1].inputs and not node.inputs[1]._array.any():
        return node
    return None


def _choices(kink: Tensor, new: Mapping[Tensor, Tensor]) -> Choices:
    """Return what a kink chooses among, with what now stands for its inputs."""
    if _name(kink) == "maximum":
        pair = [broadcast_to(new.get(one, one), shape=kink.shape) for one in kink.inputs]
        elements = [reshape(one, (-1,)) for one in pair]
        return Choices(elements, [np.ones(elements[0].shape)] * 2, pools=False)
    winners = kink.inputs[1]
    x = new.get(winners.inputs[0], winners.inputs[0])
    starts, steps, first, slices = elements_of_windows(np, x.shape, **winners.params)
    elements, inside = [], []
    for step, (windows, _) in zip(steps, slices, strict=True):
        places, there = starts + steps[first], np.zeros(starts.shape)  # one in the image for others
        places[windows], there[windows] = starts[windows] + step, 1.0
        elements.append(take(reshape(x, (-1,)), places.ravel(), axis=0))
        inside.append(there.ravel())
    return Choices(elements, inside, pools=True)

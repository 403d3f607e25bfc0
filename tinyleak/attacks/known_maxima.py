"""Windows whose largest element is known, at the top: which one it was is a further unknown.

Where features come straight out of a max pooling, each says how large its window's largest element
is, and of the others that they are not larger. Which of them it was decides which place of the
layer below the gradient passes: choosing it by the largest of an image that is wrong makes a kink
of it, at which searches end. Here each window has shares pⱼ ≥ 0 that add up to 1 instead, its value
is Σ pⱼ eⱼ, and at the client's image pⱼ (M − eⱼ) = 0 and eⱼ ≤ M for the known largest M. All of
that is smooth, and bilinear in shares and in what comes into the convolution below, as blind
deconvolution is.
"""

import math
from typing import NamedTuple

import numpy as np

from tinyleak.attacks.kinks import Choices, Kinks
from tinyleak.backend import Array
from tinyleak.gradient import grad
from tinyleak.ops import maximum, reshape
from tinyleak.ops import sum as total
from tinyleak.tensor import Tensor

WEIGHT, IN_ALL = 0.5, 2.0
"""What pⱼ (M − eⱼ) and eⱼ − M, in the spread of what is compared, and what Σ pⱼ − 1 count, beside
features and gradients, each as a share: root mean squares of n windows. Of ten networks of a test
all come back, at half of it nine, and at four times as much none of three: shares then settle while
values are still wrong. Smoothed, seven of the ten do, and take four times as long."""


class KnownMaxima(NamedTuple):
    """The windows of the last kink, the uppermost ReLU apart.

    Attributes:
        order: the number of the feature that comes out of each window, (n,).
        largest: M of each window, (n,); zero below the uppermost ReLU where that is not active.
        active: 1 where it is, else 0, (n,).
        elements: how many a window has.
        spread: the standard deviation of what is compared.
    """

    order: Array
    largest: Array
    active: Array
    elements: int
    spread: float

    @property
    def size(self) -> int:
        """How many shares there are."""
        return self.elements * len(self.largest)

    def mixed(self, shares: Tensor, choices: Choices) -> tuple[Tensor, list[Tensor]]:
        """Return Σ pⱼ eⱼ, (n,), and what must be zero.

        Args:
            shares: (elements · n,), all of the first element first.
            choices: the elements.
        """
        n = len(self.largest)
        each = reshape(shares, (self.elements, n)) * Tensor(np.stack(choices.inside))
        weight = WEIGHT / (self.spread * math.sqrt(n))
        value, rest, parts = Tensor(np.zeros(n)), Tensor(-np.ones(n)), []
        for j, (element, inside) in enumerate(zip(choices.elements, choices.inside, strict=True)):
            share = each[j]
            over = element - Tensor(self.largest)
            parts += [share * over * Tensor(weight * self.active)]
            parts += [maximum(over, 0.0) * Tensor(weight * inside)]
            value, rest = value + share * element, rest + share
        return value, [*parts, rest * (IN_ALL / math.sqrt(n))]


def known_maxima(kinks: Kinks, images: Tensor, features: Array) -> KnownMaxima | None:
    """Return the windows that features, (1, F), come straight out of; None if there are none.

    They may be moved in between, and a ReLU may be above the windows or below them.

    Args:
        kinks: the network's below the features.
        images: any, (1, C, H, W).
        features: the client's.
    """
    choices, opens = kinks.at(images)
    if not choices or not choices[-1].pools or choices[-1].many != features.size:
        return None
    values, last = Tensor(np.zeros(features.size)), len(choices) - 1
    onward = kinks.replay(
        images, lambda k, choices: values if k == last else choices.largest(), open_top=True
    )

    places = 1.0 + np.arange(features.size)
    moved = grad(total(onward * Tensor(places.reshape(onward.shape))), values).numpy()
    if not np.array_equal(np.sort(moved), places):
        return None
    order = moved.astype(int) - 1
    largest = features.ravel()[order]
    active = (largest > 0) * 1.0 if opens else np.ones_like(largest)
    return KnownMaxima(order, largest, active, len(choices[-1].elements), choices[-1].spread)

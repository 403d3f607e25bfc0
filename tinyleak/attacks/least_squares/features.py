"""Where the features of a batch are is read off the last layer's gradient, and says where to look.

By its weight the last layer's gradient is G = Σᵢ (pᵢ − yᵢ) hᵢᵀ / N, where hᵢ are the features of
image i, pᵢ its probabilities and yᵢ its label. So the rows of G, (K, F), lie in the span of the N
features, and mostly are all of it while N < K. Every image's features must lie in that span,
whatever the labels are. With the labels and a bias the features themselves are known (see
`separation`):

    (I − VᵀV) (h(xᵢ) − cᵢ) = 0,

with the N right singular vectors of G as the rows of V and cᵢ = 0; or, once they are known, without
any V and with cᵢ = hᵢ. That holds however alike two images' probabilities are. Images of one label
in a network that has not been trained are the case where it matters: G is nearly of rank one, and
what tells them apart is a millionth of it, which gradient matching alone hardly sees.

Features that are known also part the images: h(x) = hᵢ is solved for each by itself, in a moment. A
digit has more pixels than the LeNet has features, but most of its pixels are black, as low as a
pixel can be: then the features determine it alone, and hardly anything is left to be matched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinyleak.analytic.labels import last_layer
from tinyleak.analytic.unmix import EXPLAINED, separate
from tinyleak.attacks.least_squares.last_layer import LastLayer
from tinyleak.attacks.least_squares.residual import GradientResidual
from tinyleak.backend import Array
from tinyleak.nn.model import Model
from tinyleak.optim import levenberg_marquardt

GAP = 1e3
"""How many times larger than the next the last singular value of the span must be."""

ROUNDING = 1e-14
"""How exact a gradient is at best, as a share of its entries' root mean square: float64."""

WORTH = 2.0
"""Images with more pixels than so many times their features are not tried: it takes long there, and
even half of the pixels at a bound would not be enough."""

SAME = 1e-28
"""The squared distance of features, as a share of their square, at which an image has them."""

REACHED = 1e-12
"""The same, at which it has them as far as features that were read off a gradient are right."""

STILL = 0.9
"""An image stands still if ten steps lower that distance by less than this share."""

MOST_ALONE = 50
"""Steps of one image, at most."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the features of a batch are: each image's in a flat of its own.

    Attributes:
        points: (N, F), one that each image's flat goes through.
        span: (D, F), the directions of all of them, orthonormal; none, if the features are known.
    """

    points: Array
    span: Array

    @property
    def is_known(self) -> bool:
        """Whether the features themselves are known."""
        return len(self.span) == 0


class FeatureResidual:
    """The residual of an attack, and below it how far each image's features are from their place.

    Attributes:
        gradient: the difference between gradients; it has a last layer.
        place: where the features are.
        weight: what their distance is multiplied with.
    """

    def __init__(self, gradient: GradientResidual, place: Place, weight: float) -> None:
        assert gradient.last is not None, "a place was read off it"
        self.last: LastLayer = gradient.last
        self.gradient, self.place, self.weight = gradient, place, weight

    def features(self, x: Array) -> Array:
        """Return each image's features: (N, F)."""
        return self.last.features(self.gradient.images(x))

    def outside(self, x: Array) -> Array:
        """Return how far each image's features are from their place: (N, F)."""
        return self._project(self.features(x) - self.place.points)

    def value(self, x: Array) -> Array:
        """Return the residual of the gradient and that of the features, (P + N·F,)."""
        with np.errstate(all="ignore"):
            outside = self.weight * self.outside(x)
        return np.concatenate([self.gradient.value(x), outside.ravel()])

    def slope(self, x: Array, r: Array) -> Array:
        """Return Jᵀr, (n,)."""
        shape = self.place.points.shape
        below = self.weight * r[-self.place.points.size :].reshape(shape)
        slope = self.gradient.slope(x, r[: -self.place.points.size])
        by_images = self.last.back(self.gradient.images(x), self._project(below))
        slope[: by_images.size] += by_images.ravel()
        return slope

    def gram(self, x: Array) -> Array:
        """Return JᵀJ, (n, n): that of the gradient, and each image's own."""
        moved = self.gradient.moved_features(x)
        gram = self.gradient.gram(x, moved)
        outside = self.weight * self._project(moved)
        pixels = self.gradient.matching.image_size // len(self.place.points)
        for first in range(0, self.gradient.matching.image_size, pixels):
            here = slice(first, first + pixels)
            gram[here, here] += outside[here] @ outside[here].T
        return gram

    def _project(self, rows: Array) -> Array:
        return rows - (rows @ self.place.span.T) @ self.place.span


def read_span(model: Model, shared: Mapping[str, Array], batch: int) -> Place | None:
    """Read what the features of a batch span off the last layer's gradient, if it shows that.

    Args:
        model: the network.
        shared: the gradient of the mean cross-entropy over the batch, by name, float64.
        batch: N.

    Returns:
        The span, of N directions; None if N is K or more, if the last layer is not linear, or if
        the gradient is not exact enough: a defence or single precision hides the smallest ones.
    """
    try:
        weight, _ = last_layer(model)
    except ValueError:
        return None
    gradient = shared[weight]
    if batch >= min(gradient.shape):
        return None
    _, sizes, axes = np.linalg.svd(gradient, full_matrices=False)
    if sizes[batch - 1] <= GAP * sizes[batch]:
        return None
    return Place(np.zeros((batch, gradient.shape[1])), axes[:batch])


def read_features(
    model: Model,
    params: Mapping[str, Array],
    shared: Mapping[str, Array],
    labels: Sequence[int] | Array,
    guess: Array,
    rng: np.random.Generator,
    starts: int,
) -> Place | None:
    """Search for the features themselves, near a guess and elsewhere.

    Args:
        model: the network.
        params: its weights, by name.
        shared: the gradient of the mean cross-entropy over the batch, by name, float64.
        labels: (N,), of which the span could be read.
        guess: (N, F), the features of the images so far.
        rng: decides where else is searched.
        starts: how often, the guess counted.

    Returns:
        The features, in the order of the labels, and of one label in any; None if none were found
        that make the gradient to its last digits, as where one of several labels is wrong, or if
        the last layer has no bias or its gradient is missing.
    """
    weight, bias = last_layer(model)
    if bias is None or not shared[bias].any():
        return None
    # What is left beside the N images is rounding, of float64 or of float32.
    sizes = np.linalg.svd(shared[weight], compute_uv=False)
    variance = float(sizes[len(labels)]) ** 2 / guess.shape[1]
    found = separate(
        model,
        params,
        shared,
        labels,
        variance=variance,
        rounding=ROUNDING,
        guess=guess,
        starts=starts,
        rng=rng,
    )
    if found.misfit > EXPLAINED or not found.doubts.all():
        return None
    return Place(found.features, np.zeros((0, guess.shape[1])))


class _Alone:
    """How far the features of one image are from what they should be, as a residual."""

    def __init__(self, last: LastLayer, wanted: Array, shape: tuple[int, ...]) -> None:
        self.last, self.wanted, self.shape = last, wanted, shape

    def value(self, x: Array) -> Array:
        return self.last.features(x.reshape(self.shape))[0] - self.wanted

    def slope(self, x: Array, r: Array) -> Array:
        return self.last.back(x.reshape(self.shape), r[None]).ravel()

    def gram(self, x: Array) -> Array:
        moved = self.last.moved(x.reshape(self.shape))
        return moved @ moved.T


def images_with(
    model: Model, params: Mapping[str, Array], features: Array, images: Array
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Move each of some images, in [0, 1], to where it has the features that are given.

    Args:
        model: the network.
        params: its weights, by name, float64.
        features: (N, F).
        images: (N, C, H, W), where to begin.

    Returns:
        The images, (N, C, H, W), and which of them are taken to be determined by their features,
        (N,): those that reach them with no more pixels free, between black and white, than there
        are features. The others stay where they are, as all do that are too large for it.
    """
    found, determined = images.copy(), np.zeros(len(images), np.bool_)
    if images[0].size > WORTH * features.shape[1]:
        return found, determined
    last = LastLayer(model, params, 1)
    for index, (wanted, image) in enumerate(zip(features, images, strict=True)):
        square = float(wanted @ wanted)
        residual = _Alone(last, wanted, (1, *image.shape))
        *_, fit = levenberg_marquardt(
            residual,
            image.ravel(),
            lowest=0.0,
            highest=1.0,
            goal=SAME * square,
            tolerance_change=STILL,
            max_iterations=MOST_ALONE,
        )
        free = np.count_nonzero((fit.x > 0.0) & (fit.x < 1.0))
        if free <= wanted.size and fit.value <= REACHED * square:
            found[index], determined[index] = fit.x.reshape(image.shape), True
    return found, determined

"""The last layer's gradient confines the features of a batch to a subspace.

Least squares then searches only there.

The gradient of the last layer's weight is G = Σᵢ (pᵢ − yᵢ) hᵢᵀ / N, where hᵢ are the features of
image i, pᵢ its probabilities and yᵢ its label. So every row of G, (K, F), is a mixture of the N
features, and mostly G's row space is all that they span while N < K. Every image's features lie in
it, whatever the labels are. With the labels and a bias the features themselves are known (see
`tinyleak.analytic.mixture`):

    (I − VᵀV) (h(xᵢ) − cᵢ) = 0,

with an orthonormal basis of the row space as the rows of V, and cᵢ = 0; or, once the features are
known, without any V and with cᵢ = hᵢ. That holds however similar two images' probabilities are.
Images of one label in a network that has not been trained are the case where it matters: G is
nearly of rank one, and what tells them apart is a millionth of it, which gradient matching alone
hardly sees.

Known features also separate the images: h(x) = hᵢ is solved for each alone, in a moment. A digit
has more pixels than the LeNet has features, but most of its pixels are black, as low as a pixel can
be: then the features determine it alone, and hardly anything is left to be matched.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinyleak.analytic.label_search import explanation
from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.analytic.mixture import GAP
from tinyleak.attacks.least_squares.last_layer import LastLayer
from tinyleak.attacks.least_squares.residual import GradientResidual
from tinyleak.backend import Array
from tinyleak.nn.model import Model
from tinyleak.optim import levenberg_marquardt

WORTH = 2.0
"""Images with more pixels than so many times their features are not solved for alone: it takes
long, and even with half of the pixels at a bound the features would not determine the rest."""

SAME = 1e-28
"""The squared distance of features, relative to their square, at which an image has them: 1e-14 is
float64's rounding; of a coarser gradient it is that dtype's."""

REACHED, ERRING, FARTHER = 1e-12, 2.0, 10.0
"""The same, at which it has them as exactly as features inferred from a gradient are known: to 1e-6
of their length, or so many times what they may err by (the first, squared, ends the search)."""

DARK = 0.1
"""Where the search for one image begins: from there it takes two thirds of the steps that it takes
from noise, on digits. One in nine ends elsewhere, and is begun again from the image so far."""

STILL = 0.9
"""The search for one image ends once ten steps leave more than this share of that distance."""

FIRST_DAMPING = 1e-4
"""The first λ; bounds keep steps short. Without it images take half as many steps more."""

MOST_ALONE = 50  # steps of one image, at most: one that its features determine needs fewer


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FeatureSubspace:
    """Where the features of a batch lie: each image's in an affine subspace of its own."""

    points: Array  # (N, F), a point of each image's subspace
    span: Array  # (D, F), the directions of all, orthonormal; none if the features are known
    errors: Array  # (N,), how far features that are known may be from the client's

    @property
    def is_known(self) -> bool:
        """Whether the features themselves are known."""
        return len(self.span) == 0


class FeatureResidual:
    """The residual of an attack, and below it how far each image's features are from its subspace.

    That distance is multiplied with the `weight`. The `gradient` has a last layer.
    """

    def __init__(
        self, gradient: GradientResidual, subspace: FeatureSubspace, weight: float
    ) -> None:
        assert gradient.last is not None, "its gradient gave the subspace"
        self.last: LastLayer = gradient.last
        self.gradient, self.subspace, self.weight = gradient, subspace, weight

    def features(self, x: Array) -> Array:
        """Return each image's features: (N, F)."""
        return self.last.features(self.gradient.images(x))

    def outside(self, x: Array) -> Array:
        """Return the part of each image's features that is outside its subspace: (N, F)."""
        return self._project(self.features(x) - self.subspace.points)

    def value(self, x: Array) -> Array:
        """Return the residual of the gradient and that of the features, (P + N·F,)."""
        with np.errstate(all="ignore"):
            outside = self.weight * self.outside(x)
        return np.concatenate([self.gradient.value(x), outside.ravel()])

    def slope(self, x: Array, r: Array) -> Array:
        """Return Jᵀr, (n,)."""
        shape = self.subspace.points.shape
        below = self.weight * r[-self.subspace.points.size :].reshape(shape)
        slope = self.gradient.slope(x, r[: -self.subspace.points.size])
        by_images = self.last.back(self.gradient.images(x), self._project(below))
        slope[: by_images.size] += by_images.ravel()
        return slope

    def gram(self, x: Array) -> Array:
        """Return JᵀJ, (n, n): that of the gradient, and each image's own."""
        feature_jacobian = self.gradient.feature_jacobian(x)
        gram = self.gradient.gram(x, feature_jacobian)
        outside = self.weight * self._project(feature_jacobian)
        pixels = self.gradient.matching.image_size // len(self.subspace.points)
        for first in range(0, self.gradient.matching.image_size, pixels):
            here = slice(first, first + pixels)
            gram[here, here] += outside[here] @ outside[here].T
        return gram

    def _project(self, rows: Array) -> Array:
        return rows - (rows @ self.subspace.span.T) @ self.subspace.span


def read_span(layer: LastLayerGradient) -> FeatureSubspace | None:
    """Infer the span of a batch's features from the last layer's gradient, if it is exact enough.

    Returns:
        The span, of N directions; None if N is K or more, or if the gradient is not exact enough: a
        defence or single precision hides the smallest singular values.
    """
    batch, (classes, size) = layer.batch, layer.weight.shape
    if batch >= min(classes, size):
        return None
    balanced = layer.balanced
    noise = balanced.variance
    if balanced.standing_out(GAP**2 * noise) < batch:
        return None
    basis = np.linalg.qr(balanced.decomposition[2][:batch, :size].T)[0].T
    return FeatureSubspace(np.zeros((batch, size)), basis, np.zeros(batch))


def read_features(
    layer: LastLayerGradient,
    labels: Sequence[int] | Array,
    guess: Array | None,
    rng: np.random.Generator,
    starts: int,
) -> FeatureSubspace | None:
    """Search for the features themselves, first near a guess if there is one, then elsewhere.

    Args:
        layer: the last layer's gradient.
        labels: (N,).
        guess: (N, F), the features of the images so far.
        rng: draws where else is searched.
        starts: how many starts, the guess counted.

    Returns:
        The features, in the order of the labels, and of one label in any order. None if none were
        found that make the gradient to its last digits, as where one of several labels is wrong; or
        if the last layer has no bias, or the bias's gradient is zero.
    """
    found = explanation(layer, labels, starts, guess, rng)
    if found is None:
        return None
    return FeatureSubspace(found.features, np.zeros((0, layer.weight.shape[1])), found.errors)


class _Alone:
    """How far the features of one image are from those `wanted`, as a residual."""

    def __init__(self, last: LastLayer, shape: tuple[int, ...]) -> None:
        self.last, self.shape, self.wanted = last, shape, np.zeros(0)
        self.dark = np.full(math.prod(shape), DARK)
        self._gram_of_dark = self._gram(self.dark)

    def value(self, x: Array) -> Array:
        return self.last.features(x.reshape(self.shape))[0] - self.wanted

    def slope(self, x: Array, r: Array) -> Array:
        return self.last.back(x.reshape(self.shape), r[None]).ravel()

    def gram(self, x: Array) -> Array:
        # The search for every image begins there.
        return self._gram_of_dark.copy() if np.array_equal(x, self.dark) else self._gram(x)

    def _gram(self, x: Array) -> Array:
        jacobian = self.last.jacobian(x.reshape(self.shape))
        return jacobian @ jacobian.T


def images_with(
    model: Model, params: Mapping[str, Array], features: FeatureSubspace, images: Array
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Move each of some images, in [0, 1], to where it has the features that are given.

    Args:
        model: the network.
        params: its weights, by name, float64.
        features: of N images, known.
        images: (N, C, H, W), the images so far.

    Returns:
        The images, (N, C, H, W), and which of them are taken to be determined by their features,
        (N,): those that reach them with no more pixels strictly between black and white than there
        are features. The others stay where they are, as do all that are too large for it. Images
        of which only the mean of their features is known are all where a search for that ends.
    """
    found, determined = images.copy(), np.zeros(len(images), np.bool_)
    if images[0].size > WORTH * features.points.shape[1]:
        return found, determined
    alone = _Alone(LastLayer(model, params, 1), (1, *images[0].shape))
    for index, image in enumerate(images):
        wanted = alone.wanted = features.points[index]
        known = bool(np.isfinite(features.errors[index]))
        if not known and index and np.array_equal(wanted, features.points[index - 1]):
            found[index] = found[index - 1]
            continue
        square = float(wanted @ wanted)
        expected = float(features.errors[index]) ** 2 if known else 0.0
        for start in (alone.dark, image.ravel()):
            *_, fit = levenberg_marquardt(
                alone,
                start,
                lowest=0.0,
                highest=1.0,
                damping=FIRST_DAMPING,
                radius=np.inf,
                goal=max(SAME * square, ERRING**2 * expected),
                tolerance_change=STILL,
                max_iterations=MOST_ALONE,
            )
            if not known:
                found[index] = fit.x.reshape(image.shape)
                break
            free = np.count_nonzero((fit.x > 0.0) & (fit.x < 1.0))
            reached = max(REACHED * square, FARTHER**2 * expected)
            if free <= wanted.size and fit.value <= reached:
                found[index], determined[index] = fit.x.reshape(image.shape), True
                break
    return found, determined

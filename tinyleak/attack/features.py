"""The features of a batch span what the last layer's gradient shows, and so say where to look.

By its weight the last layer's gradient is G = Σᵢ (pᵢ − yᵢ) hᵢᵀ / N, where hᵢ are the features of
image i, pᵢ its probabilities and yᵢ its label. So the rows of G, (K, F), lie in the span of the N
features, and are all of it while N < K. Every image's features must lie in that span:

    (I − VᵀV) h(xᵢ) = 0,   with the N right singular vectors of G as the rows of V.

That holds whatever the labels are and however alike two images' probabilities. Images of one label
in a network that has not been trained are the case where it matters: G is nearly of rank one, and
what tells them apart is a millionth of it, which gradient matching alone hardly sees.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinyleak.attack.labels import last_layer
from tinyleak.attack.last_layer import LastLayer
from tinyleak.attack.matching import Model
from tinyleak.attack.residual import GradientResidual
from tinyleak.backend import Array

GAP = 1e3
"""How many times larger than the next the last singular value of the span must be."""


class FeatureResidual:
    """The residual of an attack, and below it how far each image's features are from their span.

    Attributes:
        gradient: the difference between gradients; it has a last layer.
        span: (N, F), orthonormal rows.
        weight: what the features' distance is multiplied with.
    """

    def __init__(self, gradient: GradientResidual, span: Array, weight: float) -> None:
        assert gradient.last is not None, "a span was read off it"
        self.last: LastLayer = gradient.last
        self.gradient, self.span, self.weight = gradient, span, weight

    def outside(self, x: Array) -> Array:
        """Return the part of each image's features outside the span: (N, F)."""
        return self._project(self.last.features(self.gradient.images(x)))

    def value(self, x: Array) -> Array:
        """Return the residual of the gradient and that of the features, (P + N·F,)."""
        with np.errstate(all="ignore"):
            outside = self.weight * self.outside(x)
        return np.concatenate([self.gradient.value(x), outside.ravel()])

    def slope(self, x: Array, r: Array) -> Array:
        """Return Jᵀr, (n,)."""
        below = self.weight * r[-self.span.size :].reshape(self.span.shape)
        slope = self.gradient.slope(x, r[: -self.span.size])
        by_images = self.last.back(self.gradient.images(x), self._project(below))
        slope[: by_images.size] += by_images.ravel()
        return slope

    def gram(self, x: Array) -> Array:
        """Return JᵀJ, (n, n): that of the gradient, and each image's own."""
        moved = self.gradient.moved_features(x)
        gram = self.gradient.gram(x, moved)
        outside = self.weight * self._project(moved)
        pixels = self.gradient.matching.image_size // len(self.span)
        for first in range(0, self.gradient.matching.image_size, pixels):
            here = slice(first, first + pixels)
            gram[here, here] += outside[here] @ outside[here].T
        return gram

    def _project(self, rows: Array) -> Array:
        return rows - (rows @ self.span.T) @ self.span


def read_span(model: Model, shared: Mapping[str, Array], batch: int) -> Array | None:
    """Read what the features of a batch span off the last layer's gradient, if it shows that.

    Args:
        model: the network.
        shared: the gradient of the mean cross-entropy over the batch, by name, float64.
        batch: N.

    Returns:
        (N, F), orthonormal rows; None if N is K or more, if the last layer is not linear, or if the
        gradient is not exact enough: a defence or single precision hides the smallest directions.
    """
    try:
        weight, _ = last_layer(model)
    except ValueError:
        return None
    gradient = shared[weight]
    if batch >= min(gradient.shape):
        return None
    _, sizes, axes = np.linalg.svd(gradient, full_matrices=False)
    return axes[:batch] if sizes[batch - 1] > GAP * sizes[batch] else None

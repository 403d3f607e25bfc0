"""The features of a batch span what the last layer's gradient shows, and so say where to look.

By its weight the last layer's gradient is G = Σᵢ (pᵢ − yᵢ) hᵢᵀ / N, where hᵢ are the features of
image i, pᵢ its probabilities and yᵢ its label. So the rows of G, (K, F), lie in the span of the N
features, and are all of it while N < K. Every image's features must lie in that span:

    (I − VᵀV) h(xᵢ) = 0,   with the N right singular vectors of G as the rows of V.

That holds whatever the labels are and however alike two images' probabilities. Images of one label
in a network that has not been trained are the case where it matters: G is nearly of rank one, and
what tells them apart is a millionth of it, which gradient matching alone hardly sees.

The features themselves are a gradient, too: h = ∂logit₀/∂(row 0 of the last weight).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tinyleak.attack.labels import last_layer
from tinyleak.attack.matching import Model
from tinyleak.attack.residual import GradientResidual, Places
from tinyleak.backend import Array
from tinyleak.grad import grad
from tinyleak.ops import broadcast_to, reshape, sum
from tinyleak.program import Program, trace
from tinyleak.tensor import Tensor

AT_ONCE = 28
"""How many features are differentiated at once."""

GAP = 1e3
"""How many times larger than the next the last singular value of the span must be."""


@dataclass
class Features:
    """What the features of a batch span, and how far a dummy's are from it.

    Attributes:
        model: the network, whose last layer is linear.
        params: its weights, by name.
        span: (N, F), orthonormal rows.
    """

    model: Model
    params: Mapping[str, Array]
    span: Array
    _forward: Program = field(init=False, repr=False)
    _back: Program = field(init=False, repr=False)
    _rows: Program = field(init=False, repr=False)

    def __post_init__(self) -> None:
        image = np.zeros((1, *self.model.image_shape))
        batch, size = self.span.shape
        images = np.repeat(image, batch, axis=0)
        self._forward = trace(self._features_of, images, check=False)
        self._back = trace(self._back_of, images, np.zeros((batch, size)), check=False)
        self._rows = trace(self._rows_of, image, np.zeros((AT_ONCE, size)), check=False)

    def outside(self, images: Array) -> Array:
        """Return the part of each image's features outside the span: (N, F)."""
        return self._project(self._forward(images)[0])

    def back(self, images: Array, r: Array) -> Array:
        """Return ∂⟨outside(images), r⟩/∂images, for r of (N, F): of the images' shape."""
        return np.array(self._back(images, self._project(r))[0])

    def jacobian(self, image: Array) -> Array:
        """Return the derivative of one image's part outside, (F, n), for (1, C, H, W)."""
        size = self.span.shape[1]
        matrix = np.empty((size, image.size))
        covectors = np.zeros((AT_ONCE, size))
        for start in range(0, size, AT_ONCE):
            count = min(AT_ONCE, size - start)
            covectors[:] = 0.0
            covectors[np.arange(count), start + np.arange(count)] = 1.0
            matrix[start : start + count] = self._rows(image, covectors)[0][:count]
        return matrix - self.span.T @ (self.span @ matrix)

    def _project(self, rows: Array) -> Array:
        return rows - (rows @ self.span.T) @ self.span

    def _features_of(self, images: Tensor) -> Tensor:
        """(M, F), the features of images (M, C, H, W), as a gradient by M copies of the weights."""
        copies = images.shape[0]
        params = {
            name: broadcast_to(Tensor(weight), shape=(copies, *weight.shape))
            for name, weight in self.params.items()
        }
        logits = self.model(params, reshape(images, (copies, 1, *self.model.image_shape)))
        weight, _ = last_layer(self.model)
        (rows,) = grad(sum(logits[:, :, 0]), [params[weight]])
        return rows[:, 0]

    def _back_of(self, images: Tensor, r: Tensor) -> Tensor:
        (moved,) = grad(sum(self._features_of(images) * r), [images])
        return moved

    def _rows_of(self, image: Tensor, covectors: Tensor) -> Tensor:
        """∂⟨h(x), u⟩/∂x for each row u of (R, F), at one image: (R, n)."""
        rows = covectors.shape[0]
        images = broadcast_to(image, shape=(rows, *self.model.image_shape))
        return reshape(self._back_of(images, covectors), (rows, -1))


class FeatureResidual:
    """The residual of an attack, and below it how far each image's features are from their span.

    Attributes:
        gradient: the difference between gradients.
        features: what the features span.
        weight: what their distance is multiplied with.
    """

    def __init__(self, gradient: GradientResidual, features: Features, weight: float) -> None:
        self.gradient, self.features, self.weight = gradient, features, weight
        self._columns = np.empty((0, 0))

    def value(self, x: Array) -> Array:
        """Return the residual of the gradient and that of the features, (P + N·F,)."""
        with np.errstate(all="ignore"):
            outside = self.weight * self.features.outside(self.gradient.images(x))
        return np.concatenate([self.gradient.value(x), outside.ravel()])

    def slope(self, x: Array, r: Array) -> Array:
        """Return Jᵀr, (n,)."""
        below = self.weight * r[-self.features.span.size :].reshape(self.features.span.shape)
        slope = self.gradient.slope(x, r[: -self.features.span.size])
        by_images = self.features.back(self.gradient.images(x), below)
        slope[: by_images.size] += by_images.ravel()
        return slope

    def jacobian(self, x: Array, columns: Places) -> Array:
        """Return columns of J, (P + N·F, k), in memory that the next call uses again."""
        above = self.gradient.jacobian(x, columns).T
        batch, size = self.features.span.shape
        shape = (len(columns), above.shape[1] + batch * size)
        if len(self._columns) < shape[0]:
            self._columns = np.empty(shape)
        out = self._columns[: shape[0]]
        out[:, : above.shape[1]] = above
        below = out[:, above.shape[1] :]
        below[:] = 0.0
        images = self.gradient.images(x)
        pixels = images[0].size
        for image in range(batch):
            here = slice(*np.searchsorted(columns, [image * pixels, (image + 1) * pixels]))
            matrix = self.weight * self.features.jacobian(images[image : image + 1])
            its_rows = slice(image * size, (image + 1) * size)
            below[here, its_rows] = matrix[:, columns[here] - image * pixels].T
        return out.T


def read_features(
    model: Model, params: Mapping[str, Array], shared: Mapping[str, Array], batch: int
) -> Features | None:
    """Read what the features of a batch span off the last layer's gradient, if it shows that.

    Args:
        model: the network.
        params: its weights, by name, float64.
        shared: the gradient of the mean cross-entropy over the batch, by name.
        batch: N.

    Returns:
        None if N is K or more, if the last layer is not linear, or if the gradient is not exact
        enough: a defence or single precision hides the smallest directions.
    """
    try:
        weight, _ = last_layer(model)
    except ValueError:
        return None
    gradient = shared[weight]
    if batch >= min(gradient.shape):
        return None
    _, sizes, axes = np.linalg.svd(gradient, full_matrices=False)
    if not sizes[batch - 1] > GAP * sizes[batch]:
        return None
    return Features(model, params, axes[:batch])

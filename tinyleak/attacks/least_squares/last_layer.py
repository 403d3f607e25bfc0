"""The features that come into the last layer, and the last layer's share of JᵀJ.

The share is computed without forming the last layer's rows of J. The gradient with respect to its
weight and bias is a sum of products,

    Σᵢ δᵢ hᵢᵀ   and   Σᵢ δᵢ,   with   δᵢ = (pᵢ − yᵢ) / N,

where hᵢ are the features of image i, pᵢ its probabilities and yᵢ its label. An unknown a of image i
changes its features by Hₐ = ∂hᵢ/∂a, (F,), and δᵢ by Dₐ = ∂δᵢ/∂a, (K,). So it changes the gradient
of the weight by Mₐ = δᵢ Hₐᵀ + Dₐ hᵢᵀ, (K, F), and that of the bias by Dₐ. For an unknown b of any
image,

    (JᵀJ)ₐᵦ = ⟨Mₐ, Mᵦ⟩ + Dₐ·Dᵦ = Hₐ·(Mᵦᵀδᵢ) + Dₐ·(Mᵦhᵢ + Dᵦ).

That takes F + K numbers for each unknown instead of K·F + K, and nearly half of a LeNet's weights
are in its last layer. The features are a gradient, too: h = ∂logit₀/∂(row 0 of the last weight), by
a copy of the weights for each image (`transforms.copies`); their derivatives are each a `vjp`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tinyleak.analytic.last_layer import last_layer_names
from tinyleak.backend import Array
from tinyleak.gradient import grad, vjp
from tinyleak.nn.losses import softmax
from tinyleak.nn.model import Model
from tinyleak.ops import reshape, sum
from tinyleak.program import Program, trace
from tinyleak.tensor import Tensor
from tinyleak.transforms import copies

AT_ONCE = 28
"""How many features are differentiated at once: it divides the 588 of a LeNet for MNIST."""

Indices = npt.NDArray[np.int64]


@dataclass(eq=False, repr=False)
class LastLayer:
    """The last layer of a network, and the features of a batch that come into it.

    If that layer is not linear it is a ValueError.
    """

    model: Model
    params: Mapping[str, Array]  # its weights, by name, float64
    batch: int  # N
    _forward: Program = field(init=False, repr=False)
    _back: Program = field(init=False, repr=False)
    _rows: Program = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.weight, self.bias = last_layer_names(self.model)
        size = self.model.shapes[self.weight][1]
        image = np.zeros((1, *self.model.image_shape))
        images = np.repeat(image, self.batch, axis=0)
        self._forward = trace(self._forward_of, images, check=False)
        self._back = trace(self._back_of, images, np.zeros((self.batch, size)), check=False)
        self._rows = trace(self._rows_of, image, np.zeros((AT_ONCE, size)), check=False)

    def features(self, images: Array) -> Array:
        """Return h of each of N images: (N, F)."""
        return np.array(self._forward(images)[0])

    def back(self, images: Array, r: Array) -> Array:
        """Return rᵀ ∂h/∂images, for r of (N, F): of the images' shape."""
        return np.array(self._back(images, r)[0])

    def jacobian(self, images: Array) -> Array:
        """Return the derivative of each image's h with respect to its own pixels: (N·C·H·W, F)."""
        size = self.model.shapes[self.weight][1]
        out = np.empty((images.size, size))
        for image, rows in zip(images, np.split(out, len(images)), strict=True):
            for start in range(0, size, AT_ONCE):
                (some,) = self._rows(image[np.newaxis], np.eye(AT_ONCE, size, start))
                rows[:, start : start + AT_ONCE] = some[: size - start].T
        return out

    def add_to(
        self,
        gram: Array,
        weight: float,
        images: Array,
        targets: Array,
        owners: Indices,
        H: Array,
        by_targets: Array,
    ) -> None:
        """Add the last layer's share of JᵀJ, for a mean loss.

        Args:
            gram: (n, n), what it is added to.
            weight: what it is multiplied with.
            images: (N, C, H, W).
            targets: (N, K), their labels.
            owners: (n,), the image that each unknown belongs to.
            H: (n, F), the derivative of that image's features with respect to each unknown.
            by_targets: (n, K), that of its label.
        """
        h, logits = self._forward(images)
        p = softmax(Tensor(logits)).data
        delta = (p - targets) / self.batch
        its_p, its_h, its_delta = p[owners], h[owners], delta[owners]
        by_logits = H @ self.params[self.weight].T
        by_p = its_p * (by_logits - _column(its_p, by_logits))
        D = (by_p - by_targets) / self.batch
        bias = 0.0 if self.bias is None else 1.0
        for image in range(self.batch):
            here = np.flatnonzero(owners == image)
            by_delta = _column(its_delta, delta[image]) * H + _column(D, delta[image]) * its_h
            by_h = _column(H, h[image]) * its_delta + (_column(its_h, h[image]) + bias) * D
            gram[here] += weight * (H[here] @ by_delta.T + D[here] @ by_h.T)

    def _forward_of(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features (M, F), a gradient of M copies of the weights, and the logits (M, K)."""
        count = images.shape[0]
        params = {name: copies(weight, count) for name, weight in self.params.items()}
        logits = self.model(params, reshape(images, (count, 1, *self.model.image_shape)))
        (rows,) = grad(sum(logits[:, :, 0]), [params[self.weight]])
        return rows[:, 0], logits[:, 0]

    def _back_of(self, images: Tensor, r: Tensor) -> Tensor:
        """rᵀ ∂h/∂images, for r of (M, F): of the images' shape."""
        return vjp({self._forward_of(images)[0]: r}, [images])[0]

    def _rows_of(self, image: Tensor, covectors: Tensor) -> Tensor:
        """uᵀ ∂h/∂x for each row u of (R, F), at one image: (R, n)."""
        rows = covectors.shape[0]
        return reshape(self._back_of(copies(image[0], rows), covectors), (rows, -1))


def _column(rows: Array, others: Array) -> Array:
    """Return the inner product of each row with its other, or with the one: (n, 1)."""
    return np.asarray((rows * others).sum(axis=1, keepdims=True))

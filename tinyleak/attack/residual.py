"""The difference between gradients, as a residual whose squares are to be made small.

The distance between gradients is ‖r‖² of the residual r = (g − g*) / ‖g*‖ with one entry for each
weight of the network. Its Jacobian by the dummies has a block for each image, since g is a mean
over the batch:

    ∂g/∂xᵢ · v = ∂/∂θ ⟨∂Lᵢ/∂xᵢ, v⟩ / N   and   ∂g/∂(logits of yᵢ) = Gᵢᵀ (diag(yᵢ) − yᵢyᵢᵀ) / N,

the first since mixed derivatives commute, the second since the loss is linear in the label: the K
rows of Gᵢ are the gradients that image i would give with each label. Both are reverse mode, many
directions at once along a leading axis.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tinyleak.attack.matching import Matching, Model, parameter_gradients
from tinyleak.backend import Array, to_numpy
from tinyleak.grad import grad
from tinyleak.nn.losses import cross_entropy, softmax
from tinyleak.ops import broadcast_to, concatenate, inner, reshape, sum
from tinyleak.program import trace
from tinyleak.tensor import Tensor

DIRECTIONS = 16
"""How many directions are differentiated along at once."""

Places = npt.NDArray[np.int64]


class GradientResidual:
    """The residual of one attack, as `levenberg_marquardt` wants it.

    The unknowns are the pixels of all images, followed by the label logits of those images whose
    label is not fixed.

    Attributes:
        matching: the attack; everything is computed in float64.
        targets: (N, K), the labels of those images whose label is fixed.
        unsettled: (M,) the images whose label is not.
    """

    def __init__(self, matching: Matching, targets: Array, unsettled: Places) -> None:
        self.matching, self.targets, self.unsettled = matching, targets, unsettled
        model = matching.model
        self._params = named(matching.params, model)
        self._shared = _flat(matching.shared, model)
        self._scale = np.full(self._shared.shape, np.sqrt(matching.weight.item()))
        if matching.precision is not None:
            self._scale *= np.sqrt(_flat(matching.precision, model))
        self._columns = np.empty((0, len(self._shared)))
        image = np.zeros((1, *model.image_shape))
        target = np.zeros((1, model.classes))
        directions = np.zeros((DIRECTIONS, image.size))
        images, targets = np.repeat(image, matching.batch, 0), np.repeat(target, matching.batch, 0)
        self._gradient = trace(self._gradient_of, images, targets, check=False)
        self._back = trace(self._back_of, images, targets, self._shared, check=False)
        self._along = trace(self._along_of, image, target, directions, check=False)
        self._by_label = trace(self._by_label_of, image, check=False)

    def value(self, x: Array) -> Array:
        """Return (g(x) − g*) √weight √precision, (P,)."""
        with np.errstate(all="ignore"):  # far from a solution overflow is expected, and handled
            (gradient,) = self._gradient(self.images(x), self.labels(x))
            return (gradient - self._shared) * self._scale

    def slope(self, x: Array, r: Array) -> Array:
        """Return Jᵀr, (n,)."""
        labels = self.labels(x)
        by_images, by_labels = self._back(self.images(x), labels, r * self._scale)
        by_logits = labels * (by_labels - (labels * by_labels).sum(axis=1, keepdims=True))
        return np.concatenate([by_images.ravel(), by_logits[self.unsettled].ravel()])

    def jacobian(self, x: Array, columns: Places) -> Array:
        """Return columns of J, (P, k), in memory that the next call uses again."""
        images, labels = self.images(x), self.labels(x)
        if len(self._columns) < len(columns):
            self._columns = np.empty((len(columns), len(self._shared)))
        out = self._columns[: len(columns)]
        pixels, classes = images[0].size, labels.shape[1]
        for image in range(len(images)):
            here = slice(*np.searchsorted(columns, [image * pixels, (image + 1) * pixels]))
            self._pixel_columns(
                images[image : image + 1],
                labels[image : image + 1],
                columns[here] - image * pixels,
                out[here],
            )
        for place, image in enumerate(self.unsettled):
            first = len(images) * pixels + place * classes
            here = slice(*np.searchsorted(columns, [first, first + classes]))
            (gradients,) = self._by_label(images[image : image + 1])
            y = labels[image]
            out[here] = ((np.diag(y) - np.outer(y, y)) @ gradients)[columns[here] - first]
        out *= self._scale / len(images)
        return out.T

    def images(self, x: Array) -> Array:
        """Return the images at x: (N, C, H, W)."""
        shape = (self.matching.batch, *self.matching.model.image_shape)
        return x[: self.matching.image_size].reshape(shape)

    def labels(self, x: Array) -> Array:
        """Return the labels at x, as probabilities: (N, K)."""
        labels = self.targets.copy()
        logits = x[self.matching.image_size :].reshape(len(self.unsettled), labels.shape[1])
        labels[self.unsettled] = softmax(Tensor(logits)).data
        return labels

    def _pixel_columns(self, image: Array, label: Array, pixels: Places, out: Array) -> None:
        """Fill (k, P) with N times the derivative of the gradient by these pixels of an image."""
        directions = np.zeros((DIRECTIONS, image.size))
        for start in range(0, len(pixels), DIRECTIONS):
            some = pixels[start : start + DIRECTIONS]
            directions[:] = 0.0
            directions[np.arange(len(some)), some] = 1.0
            (moved,) = self._along(image, label, directions)
            out[start : start + len(some)] = moved[: len(some)]

    def _gradient_of(self, images: Tensor, targets: Tensor) -> Tensor:
        """The gradient by all weights: (P,)."""
        params = {name: Tensor(weight) for name, weight in self._params.items()}
        found = parameter_gradients(self.matching.model, params, images, targets)
        return concatenate([reshape(part, (-1,)) for part in found.values()], axis=0)

    def _back_of(self, images: Tensor, targets: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of ⟨gradient, r⟩ by images and targets, of their shapes."""
        along = inner(self._gradient_of(images, targets), r, axes=1)
        by_images, by_targets = grad(along, [images, targets])
        return by_images, by_targets

    def _along_of(self, image: Tensor, target: Tensor, directions: Tensor) -> Tensor:
        """The derivative of one image's gradient along each of R directions: (R, P)."""
        rows = directions.shape[0]
        params = self._copies(rows)
        images = broadcast_to(image, shape=(rows, *image.shape))
        targets = broadcast_to(target, shape=(rows, *target.shape))
        loss = sum(cross_entropy(self.matching.model(params, images), targets))
        (by_images,) = grad(loss, [images])
        along = sum(by_images * reshape(directions, images.shape))
        return _rows(list(grad(along, list(params.values()))))

    def _by_label_of(self, image: Tensor) -> Tensor:
        """The gradient that one image gives with each label: (K, P)."""
        classes = self.matching.model.classes
        images = broadcast_to(image, shape=(classes, *image.shape))
        targets = Tensor(np.eye(classes)[:, np.newaxis])
        params = self._copies(classes)
        found = parameter_gradients(self.matching.model, params, images, targets)
        return _rows(list(found.values()))

    def _copies(self, rows: int) -> dict[str, Tensor]:
        """R copies of the weights, whose gradients are kept apart."""
        return {
            name: broadcast_to(Tensor(weight), shape=(rows, *weight.shape))
            for name, weight in self._params.items()
        }


def as_float64(array: Array) -> Array:
    """Return an array on the host, in float64."""
    return np.asarray(to_numpy(array), dtype=float)


def named(arrays: Mapping[str, Array], model: Model) -> dict[str, Array]:
    """Return one attack's arrays in the model's order and shapes, as float64 on the host."""
    return {name: as_float64(arrays[name]).reshape(shape) for name, shape in model.shapes.items()}


def _flat(arrays: Mapping[str, Array], model: Model) -> Array:
    return np.concatenate([array.ravel() for array in named(arrays, model).values()])


def _rows(parts: list[Tensor]) -> Tensor:
    """Put the gradients by all weights, (R, …) each, side by side: (R, P)."""
    return concatenate([reshape(part, (part.shape[0], -1)) for part in parts], axis=1)

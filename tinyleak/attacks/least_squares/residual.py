"""The difference between gradients, as a residual whose squares are to be made small.

The distance between gradients is ‖r‖² of the residual r = (g − g*) / ‖g*‖ with one entry for each
weight of the network. Its Jacobian J has a block of columns for each image, since g is a mean over
the batch:

    ∂g/∂xᵢ · v = ∂/∂θ ⟨∂Lᵢ/∂xᵢ, v⟩ / N   and   ∂g/∂(logits of yᵢ) = Gᵢᵀ (diag(yᵢ) − yᵢyᵢᵀ) / N,

the first since mixed derivatives commute, the second since the loss is linear in the label: the K
rows of Gᵢ are the gradients that image i would give with each label. The first is a `vjp` of
∂Lᵢ/∂xᵢ with respect to θ, for many directions v at once by `transforms.copies` of the weights; and
Jᵀr is a `vjp` of g. The last layer's rows of J are never formed: its share of JᵀJ is computed
without (see `last_layer`).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from tinyleak.analytic.last_layer import ends_linear
from tinyleak.attacks.least_squares.last_layer import Indices, LastLayer
from tinyleak.attacks.matching import Matching
from tinyleak.backend import Array, to_numpy
from tinyleak.gradient import grad, vjp
from tinyleak.nn.criteria import loss_of
from tinyleak.nn.losses import cross_entropy, softmax
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.ops import concatenate, reshape, sum
from tinyleak.program import Program, trace
from tinyleak.tensor import Tensor
from tinyleak.transforms import copies

DIRECTIONS = 16  # how many directions are differentiated along at once


class GradientResidual:
    """The residual of one attack, as `levenberg_marquardt` wants it.

    The unknowns are the pixels of all images, followed by the label logits of those images whose
    label is not fixed. Everything is computed in float64.
    """

    def __init__(self, matching: Matching, targets: Array, unsettled: Indices) -> None:
        """All images but the `unsettled`, (M,), have the labels `targets`, (N, K)."""
        self.matching, self.targets, self.unsettled = matching, targets, unsettled
        model = matching.model
        self._params = named(matching.params, model)
        self._shared = _flat(matching.shared, model) / matching.scale.item()
        self._scale = np.full(self._shared.shape, matching.scale.item())
        if matching.precision is not None:
            self._scale *= np.sqrt(_flat(matching.precision, model))
        # The network's last layer; None if its rows of J are computed like all others, because it
        # is not linear, the loss is another, or its gradient's entries have different weights.
        self.last = None
        own = loss_of(model) is cross_entropy
        if own and matching.precision is None and ends_linear(model):
            self.last = LastLayer(model, self._params, matching.batch)
        apart = () if self.last is None else (self.last.weight, self.last.bias)
        self._others = [name for name in model.shapes if name not in apart]
        whose = np.repeat(list(model.shapes), [weight.size for weight in self._params.values()])
        self._scale_of_others = self._scale[np.isin(whose, self._others)]
        image = np.zeros((1, *model.image_shape))
        target = np.zeros((1, model.classes))
        directions = np.zeros((DIRECTIONS, image.size))
        images, targets = np.repeat(image, matching.batch, 0), np.repeat(target, matching.batch, 0)
        self._gradient = trace(self._gradient_of, images, targets, check=False)
        self._back = trace(self._back_of, images, targets, self._shared, check=False)
        self._along = trace(self._along_of, image, target, directions, check=False)
        self._by_label = trace(self._by_label_of, image, check=False)

    @cached_property
    def _forward(self) -> Program:
        """The program of `_forward_of`, which few attacks need."""
        images = np.zeros((self.matching.batch, *self.matching.model.image_shape))
        return trace(self._forward_of, images, self.targets, images, self._shared, check=False)

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

    def along(self, x: Array, v: Array) -> Array:
        """Return J v, (P,); all labels are fixed."""
        (change,) = self._forward(self.images(x), self.labels(x), self.images(v), self._shared)
        return change * self._scale

    def blocks(self, x: Array) -> Array:
        """Return each image's own block of JᵀJ, (N, p, p); all labels are fixed."""
        features = None if self.last is None else self.feature_jacobian(x)
        pixels = np.split(np.arange(len(x)), self.matching.batch)
        return np.stack([self.gram(x, features, moving) for moving in pixels])

    def feature_jacobian(self, x: Array) -> Array:
        """Return the derivative of its image's features with respect to each unknown: (n, F)."""
        assert self.last is not None, "the last layer is linear"
        by_pixels = self.last.jacobian(self.images(x))
        return np.pad(by_pixels, [(0, len(x) - len(by_pixels)), (0, 0)])

    def gram(
        self, x: Array, feature_jacobian: Array | None = None, moving: Indices | None = None
    ) -> Array:
        """Return JᵀJ, (n, n).

        Args:
            x: (n,).
            feature_jacobian: that at x, if it has been computed.
            moving: (m,), rising, the unknowns that the answer, (m, m), is of; all by default.
        """
        images, labels = self.images(x), self.labels(x)
        moving = np.arange(len(x)) if moving is None else moving
        rows = self.rows(images, labels, moving)
        gram = rows @ rows.T
        del rows  # the largest array of all
        if self.last is not None:
            H = self.feature_jacobian(x) if feature_jacobian is None else feature_jacobian
            owners, by_labels = self._owners(labels)
            weight = self.matching.scale.item() ** 2
            some = owners[moving], H[moving], by_labels[moving]
            self.last.add_to(gram, weight, images, labels, *some)
        return gram

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

    def _owners(self, labels: Array) -> tuple[Indices, Array]:
        """Return the image of each unknown, (n,), and the derivative of its label, (n, K)."""
        (batch, classes), size = labels.shape, self.matching.image_size
        owners = np.repeat(np.arange(batch), size // batch)
        owners = np.concatenate([owners, np.repeat(self.unsettled, classes)])
        by_logits = [_by_logits(labels[image]) for image in self.unsettled]
        return owners, np.concatenate([np.zeros((size, classes)), *by_logits])

    def rows(self, images: Array, labels: Array, moving: Indices) -> Array:
        """Return columns of J as rows, but for the last layer's share of them: (m, P′)."""
        pixels, classes = images[0].size, labels.shape[1]
        out = np.empty((len(moving), len(self._scale_of_others)))
        for image in range(len(images)):
            one, here = slice(image, image + 1), np.flatnonzero(moving // pixels == image)
            for start in range(0, len(here), DIRECTIONS):
                some = here[start : start + DIRECTIONS]
                directions = np.zeros((DIRECTIONS, pixels))
                directions[np.arange(len(some)), moving[some] % pixels] = 1.0
                (columns,) = self._along(images[one], labels[one], directions)
                out[some] = columns[: len(some)]
        for index, image in enumerate(self.unsettled):
            first = images.size + index * classes
            (gradients,) = self._by_label(images[image : image + 1])
            here = np.flatnonzero((moving >= first) & (moving < first + classes))
            out[here] = _by_logits(labels[image])[moving[here] - first] @ gradients
        out *= self._scale_of_others / len(images)
        return out

    def _gradient_of(self, images: Tensor, targets: Tensor) -> Tensor:
        """The gradient with respect to all weights: (P,)."""
        params = {name: Tensor(weight) for name, weight in self._params.items()}
        found = parameter_gradients(self.matching.model, params, images, targets)
        return concatenate([reshape(part, (-1,)) for part in found.values()], axis=0)

    def _back_of(self, images: Tensor, targets: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of ⟨gradient, r⟩ with respect to images and targets, of their shapes."""
        by_images, by_targets = vjp({self._gradient_of(images, targets): r}, [images, targets])
        return by_images, by_targets

    def _forward_of(self, images: Tensor, targets: Tensor, v: Tensor, r: Tensor) -> Tensor:
        """The derivative of the gradient along images: that of ⟨Jᵀr, v⟩ with respect to any r."""
        return vjp({self._back_of(images, targets, r)[0]: v}, [r])[0]

    def _along_of(self, image: Tensor, target: Tensor, directions: Tensor) -> Tensor:
        """The derivative of one image's gradient along each of R directions: (R, P′)."""
        rows = directions.shape[0]
        params, images = self._copies(rows), copies(image, rows)
        loss = sum(
            loss_of(self.matching.model)(self.matching.model(params, images), copies(target, rows))
        )
        (by_images,) = grad(loss, [images])
        others = [params[name] for name in self._others]
        return _side_by_side(vjp({by_images: reshape(directions, images.shape)}, others))

    def _by_label_of(self, image: Tensor) -> Tensor:
        """The gradient that one image gives with each label: (K, P′)."""
        classes = self.matching.model.classes
        params, images = self._copies(classes), copies(image, classes)
        targets = Tensor(np.eye(classes)[:, np.newaxis])
        found = parameter_gradients(self.matching.model, params, images, targets)
        return _side_by_side([found[name] for name in self._others])

    def _copies(self, rows: int) -> dict[str, Tensor]:
        return {name: copies(weight, rows) for name, weight in self._params.items()}


def as_float64(array: Array) -> Array:
    """Return an array on the host, in float64."""
    return np.asarray(to_numpy(array), dtype=float)


def named(arrays: Mapping[str, Array], model: Model) -> dict[str, Array]:
    """Return one attack's arrays in the model's order and shapes, as float64 on the host."""
    return {name: as_float64(arrays[name]).reshape(shape) for name, shape in model.shapes.items()}


def _flat(arrays: Mapping[str, Array], model: Model) -> Array:
    return np.concatenate([array.ravel() for array in named(arrays, model).values()])


def _by_logits(y: Array) -> Array:
    """Return the derivative of a label, as probabilities, with respect to its logits: (K, K)."""
    return np.diag(y) - np.outer(y, y)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Put the gradients of the weights, (R, …) each, into rows: (R, P′)."""
    return concatenate([reshape(part, (part.shape[0], -1)) for part in parts], axis=1)

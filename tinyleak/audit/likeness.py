"""Jacobians at typical batches, rescaled to what a client's gradient tells of its own images.

How strongly a gradient depends on an image is about proportional to how wrong the network is of it:
J goes with ‖p − y‖, which in a trained network differs by decades from image to image. The last
layer's gradient tells it (see `tinyleak.analytic.unmix`). So typical images of the same labels are
taken, and each one's part of J is multiplied by the ratio of the client's ‖p − y‖ to its own; where
that cannot be told, all of J by the ratio of the gradients' lengths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic import LastLayerGradient, unmix
from tinyleak.analytic.probes import logits_of
from tinyleak.attacks.least_squares import Jacobian
from tinyleak.backend import Array
from tinyleak.nn.losses import one_hot, softmax
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.tensor import Tensor

MOST_MISFIT = 1e3
"""What was unmixed is not believed if its mean square error is larger, in units of the noise: that
noise is 30 times as large as it was taken to be, or the images are others."""

LEAST_ERROR_NORM = 1e-12
"""A typical image's ‖p − y‖ is not taken to be smaller: its Jacobian could not be scaled up."""


@dataclass(frozen=True)
class RescaledJacobian(Jacobian):
    """A Jacobian at typical images, with each image's part multiplied by a number.

    Attributes:
        scales: (N,).
    """

    scales: Array

    def times(self, directions: Tensor) -> dict[str, Tensor]:
        """Return J v for each row v of (R, n): for each parameter (R, …), of its shape."""
        return super().times(directions * self._pixels())

    def transposed_times(self, covectors: Mapping[str, Tensor]) -> Tensor:
        """Return Jᵀu for each of R: (R, n) from, for each parameter, (R, …) of its shape."""
        return super().transposed_times(covectors) * self._pixels()

    def _pixels(self) -> Tensor:
        return Tensor(np.repeat(self.scales, self.size // len(self.scales)))


def read_error_norms(layer: LastLayerGradient, labels: Sequence[int]) -> Array | None:
    """Return how wrong the network is of each of a client's images, ‖p − y‖: (N,), or None.

    None where the last layer does not tell: it has no bias; the batch is too large; or nothing was
    found that explains its gradient.
    """
    try:
        found = unmix(layer, labels)
    except ValueError:
        return None
    return found.error_norms if found.misfit < MOST_MISFIT else None


def rescaled_jacobians(
    model: Model,
    params: Mapping[str, Array],
    images: Array,
    labels: Array,
    wanted: list[int],
    error_norms: Array | None,
    length: float | None,
    examples: int,
) -> list[RescaledJacobian]:
    """Return Jacobians at typical batches of the client's labels, rescaled to its error norms.

    Args:
        model: the network.
        params: its weights, by name.
        images: (M, C, H, W), the typical ones.
        labels: (M,).
        wanted: (N,), the client's labels. Where too few typical images have one, others stand in.
        error_norms: (N,), the client's ‖p − y‖, or None if they are not known.
        length: of the client's gradient without its noise, or None if there is nothing but noise.
        examples: how many batches, at most.
    """
    candidates = {label: np.argsort(labels != label, kind="stable") for label in set(wanted)}
    found = []
    for example in range(min(examples, len(images) // len(wanted))):
        chosen: list[int] = []
        for label in wanted:
            after = example * len(wanted) + wanted[: len(chosen)].count(label)
            chosen.append(int(candidates[label][after]))
        targets = one_hot(np.asarray(wanted), model.classes)
        scales = np.ones(len(wanted))
        if error_norms is not None:
            probable = softmax(Tensor(logits_of(model, params, images[chosen]))).data
            own = np.linalg.norm(probable - targets, axis=1)
            scales = error_norms / np.maximum(own, LEAST_ERROR_NORM)
        elif length is not None:
            own = _length(model, params, images[chosen], targets)
            scales *= length / max(own, LEAST_ERROR_NORM)
        found.append(RescaledJacobian(model, params, images[chosen], targets, scales))
    return found


def _length(model: Model, params: Mapping[str, Array], images: Array, targets: Array) -> float:
    """Return the length of a batch's gradient."""
    weights = {name: Tensor(np.asarray(params[name], dtype=float)) for name in model.shapes}
    found = parameter_gradients(model, weights, Tensor(images), Tensor(targets))
    return math.sqrt(sum(float(np.sum(part.data**2)) for part in found.values()))

"""Typical batches made like the client's, as far as its gradient tells: in labels, and in doubt.

How strongly a gradient depends on the image goes with how unsure the network is of it: J is about
proportional to ‖p − y‖, which in a trained network differs by decades from image to image. The last
layer's gradient tells it (see `tinyleak.analytic.unmix`). So of typical images those
of the same labels are taken, and each one's part of J is multiplied with the client's doubt over
its own; where that cannot be told, all of J with the length of the client's gradient over theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.labels import logits_of
from tinyleak.analytic.unmix import separate
from tinyleak.attacks.least_squares import Jacobian
from tinyleak.backend import Array
from tinyleak.nn.losses import one_hot, softmax
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.tensor import Tensor

MOST_MISFIT = 1e3
"""What was read off the last layer is not believed if it fits worse, in units of the noise."""

LEAST_DOUBT = 1e-12
"""A typical image is not taken to be surer than that: nothing could be scaled up from it."""


@dataclass(frozen=True)
class Alike(Jacobian):
    """A Jacobian at typical images, of which each one's part is multiplied with a number.

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


def read_doubts(
    model: Model,
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    labels: Sequence[int],
    variance: float,
) -> Array | None:
    """Return how unsure the network is of each of a client's images, ‖p − y‖: (N,), or None.

    None where the last layer does not tell: it is not linear, or has no bias; the batch is too
    large; or nothing was found that explains its gradient.
    """
    try:
        read = separate(model, params, gradients, labels, variance=variance)
    except ValueError:
        return None
    return read.doubts if read.misfit < MOST_MISFIT else None


def alike(
    model: Model,
    params: Mapping[str, Array],
    images: Array,
    labels: Array,
    wanted: list[int],
    doubts: Array | None,
    length: float | None,
    examples: int,
) -> list[Alike]:
    """Return Jacobians at typical batches of the client's labels and doubts.

    Args:
        model: the network.
        params: its weights, by name.
        images: (M, C, H, W), the typical ones.
        labels: (M,).
        wanted: (N,), the client's labels. Where too few typical images have one, others stand in.
        doubts: (N,), the client's, or None, if they are not known.
        length: of the client's gradient without its noise, or None, if there is nothing but noise.
        examples: how many batches, at most.
    """
    places = {label: np.argsort(labels != label, kind="stable") for label in set(wanted)}
    found = []
    for example in range(min(examples, len(images) // len(wanted))):
        chosen: list[int] = []
        for label in wanted:
            after = example * len(wanted) + wanted[: len(chosen)].count(label)
            chosen.append(int(places[label][after]))
        targets = one_hot(np.asarray(wanted), model.classes)
        scales = np.ones(len(wanted))
        if doubts is not None:
            probable = softmax(Tensor(logits_of(model, params, images[chosen]))).data
            own = np.linalg.norm(probable - targets, axis=1)
            scales = doubts / np.maximum(own, LEAST_DOUBT)
        elif length is not None:
            own = _length(model, params, images[chosen], targets)
            scales *= length / max(own, LEAST_DOUBT)
        found.append(Alike(model, params, images[chosen], targets, scales))
    return found


def _length(model: Model, params: Mapping[str, Array], images: Array, targets: Array) -> float:
    """Return the length of a batch's gradient."""
    weights = {name: Tensor(np.asarray(params[name], dtype=float)) for name in model.shapes}
    found = parameter_gradients(model, weights, Tensor(images), Tensor(targets))
    return math.sqrt(sum(float(np.sum(part.data**2)) for part in found.values()))

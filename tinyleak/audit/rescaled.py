"""Jacobians at typical batches, rescaled to the client's own images.

How strongly a gradient depends on an image is about proportional to how wrong the network is about
it, ‖p − y‖, which in a trained network differs by decades from image to image. The last layer's
gradient determines it (see `tinyleak.analytic.mixture`). So typical images of the same labels are
taken, and each one's part of J is multiplied by the ratio of the client's ‖p − y‖ to its own; where
that is unknown, all of J by the ratio of the gradients' lengths. Where the labels are unknown, they
are those that the network gives the typical images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.jacobian import Jacobian
from tinyleak.analytic.probes import logits_of
from tinyleak.attacks.problem import length
from tinyleak.audit.shared import Shared
from tinyleak.backend import Array
from tinyleak.client import share
from tinyleak.data import Dataset
from tinyleak.nn.criteria import one_hot
from tinyleak.nn.losses import softmax
from tinyleak.nn.model import Model
from tinyleak.tensor import Tensor

LEAST_ERROR_NORM = 1e-12
"""A typical image's ‖p − y‖ counts as no smaller: p is rounded to 1e-16, and a Jacobian made of
rounding errors must not be scaled up."""


@dataclass(frozen=True, eq=False, repr=False)
class RescaledJacobian(Jacobian):
    """A Jacobian at typical images, with each image's part multiplied by a number."""

    scales: Array  # (N,)

    def times(self, directions: Tensor) -> dict[str, Tensor]:
        return super().times(directions * self._by_pixel())

    def transposed_times(self, covectors: Mapping[str, Tensor]) -> Tensor:
        return super().transposed_times(covectors) * self._by_pixel()

    def _by_pixel(self) -> Tensor:
        return Tensor(np.repeat(self.scales, self.size // len(self.scales)))


def rescaled_jacobians(
    model: Model,
    params: Mapping[str, Array],
    typical: Dataset,
    shared: Shared,
    batch: int,
    examples: int,
) -> list[Jacobian]:
    """Return Jacobians at typical batches of the client's labels, rescaled to its error norms.

    There are `examples` batches at most. Where too few typical images have one of the client's
    labels, others replace them.
    """
    found: list[Jacobian] = []
    for example in range(min(examples, len(typical) // batch)):
        chosen = _chosen(typical.labels, shared.labels, batch, example)
        labels = typical.labels[chosen] if shared.labels is None else np.asarray(shared.labels)
        images, targets = typical.images[chosen], one_hot(labels, model.classes)
        scales = np.ones(batch)
        if shared.error_norms is not None:
            probable = softmax(Tensor(logits_of(model, params, images))).data
            own = np.linalg.norm(probable - targets, axis=1)
            scales = shared.error_norms / np.maximum(own, LEAST_ERROR_NORM)
        elif shared.signal is not None:
            norm = length(share(model, params, images, labels)[0].gradients)
            scales *= shared.signal / max(norm, LEAST_ERROR_NORM)
        found.append(RescaledJacobian(model, params, images, targets, scales))
    return found


def _chosen(typical: Array, labels: Sequence[int] | None, batch: int, example: int) -> list[int]:
    """Return which typical images make up a batch; the k-th of a label differs from batch to batch.

    `typical` are (M,) their labels, `labels` (N,) the client's, or None if they are unknown;
    `example` is the number of the batch.
    """
    first = example * batch
    if labels is None:
        return list(range(first, first + batch))
    candidates = {one: np.argsort(typical != one, kind="stable") for one in set(labels)}
    return [
        int(candidates[label][first + list(labels[:position]).count(label)])
        for position, label in enumerate(labels)
    ]

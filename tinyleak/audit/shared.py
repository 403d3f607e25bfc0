"""What one shared gradient says of itself: how exact it is, and whose labels it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic import LastLayerGradient, infer_labels
from tinyleak.audit.likeness import read_error_norms
from tinyleak.backend import Array

FLOAT32_ROUNDING = 1e-5
"""Noise this small, relative to the gradient, is what rounding to float32 and adding up leave: 6e-8
for one rounding, and hundreds of them where the softmax is nearly the label."""

LEAST_SIGNAL = 0.1
"""The length of a gradient cannot be told if less than this part of the noise's square is left of
its own: the estimate of the noise is off by as much."""


@dataclass(frozen=True)
class Shared:
    """One shared gradient.

    Attributes:
        norm: its length.
        typical_norm: the mean length of the gradients of typical batches.
        zeros: which part of its numbers is exactly 0.
        noise: the variance of the noise on it, as its last layer tells; None if it does not tell.
        exact: whether that is no more than rounding.
        labels: those that the last layer tells, ascending; None if it does not tell.
        label_warning: why the labels may be wrong, or None.
        error_norms: (N,), how wrong the network is of each of the images, ‖p − y‖, in the order of
            the labels; None if that cannot be told.
        numbers: how many it has.
    """

    norm: float
    typical_norm: float
    zeros: float
    noise: float | None
    exact: bool
    labels: list[int] | None
    label_warning: str | None
    error_norms: Array | None
    numbers: int

    @property
    def signal(self) -> float | None:
        """The length that its gradient has without the noise; None if noise is nearly all of it."""
        noise = (self.noise or 0.0) * self.numbers
        left = self.norm**2 - noise
        return math.sqrt(left) if left > LEAST_SIGNAL * noise else None


def read_shared(
    gradients: Mapping[str, Array],
    layer: LastLayerGradient | None,
    typical_norm: float,
    *,
    probes: Array | None = None,
) -> Shared:
    """Return what a shared gradient says, without a search for the images.

    Args:
        gradients: the gradient, by name.
        layer: that of the last layer, or None if it is not linear.
        typical_norm: the mean length of the gradients of typical batches.
        probes: (M, C, H, W), images like the client's, which help to tell labels.

    Raises:
        ValueError: it is zero everywhere.
    """
    total = sum(array.size for array in gradients.values())
    norm = length(gradients)
    if norm == 0:
        raise ValueError(
            "the gradients are zero everywhere, so nothing can be read from them; check that the "
            "client's backward pass was run before they were saved"
        )
    noise, labels, warning, error_norms = None, None, None, None
    if layer is not None:
        inference = infer_labels(layer, probes=probes)
        labels, warning = inference.labels.tolist(), inference.warning
        noise, error_norms = layer.noise, read_error_norms(layer, labels)
    return Shared(
        norm=norm,
        typical_norm=typical_norm,
        zeros=sum(int((array == 0).sum()) for array in gradients.values()) / total,
        noise=noise,
        exact=noise is not None and math.sqrt(noise * total) < FLOAT32_ROUNDING * norm,
        labels=labels,
        label_warning=warning,
        error_norms=error_norms,
        numbers=total,
    )


def length(gradients: Mapping[str, Array]) -> float:
    """Return the norm of all gradients together."""
    squares = [float(np.sum(np.square(array, dtype=float))) for array in gradients.values()]
    return math.sqrt(math.fsum(squares))

"""What one shared gradient says of itself: how exact it is, and whose labels it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic import infer_labels
from tinyleak.analytic.labels import last_layer
from tinyleak.audit.likeness import read_doubts
from tinyleak.backend import Array
from tinyleak.nn.model import Model

ROUNDING = 1e-5
"""Noise this small, beside the gradient, is what rounding to float32 and adding up leaves."""

LEAST_SIGNAL = 0.1
"""A gradient of which so little is left beside its noise has no length that could be told."""


@dataclass(frozen=True)
class Shared:
    """One shared gradient.

    Attributes:
        norm: its length.
        typical_norm: the mean length of the gradients of typical batches.
        zeros: which part of its numbers is exactly 0.
        noise: the variance of the noise on it, as its last layer tells; None if that cannot.
        exact: whether that is no more than rounding.
        labels: those that the last layer tells, ascending; None if it cannot.
        doubt: why the labels may be wrong, or None.
        doubts: (N,), how unsure the network is of each of the images, ‖p − y‖, in the order of the
            labels; None if that cannot be told.
        numbers: how many it has.
    """

    norm: float
    typical_norm: float
    zeros: float
    noise: float | None
    exact: bool
    labels: list[int] | None
    doubt: str | None
    doubts: Array | None
    numbers: int

    @property
    def signal(self) -> float | None:
        """The length that its gradient has without the noise; None if noise is nearly all of it."""
        noise = (self.noise or 0.0) * self.numbers
        left = self.norm**2 - noise
        return math.sqrt(left) if left > LEAST_SIGNAL * noise else None


def read_shared(
    model: Model,
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    batch: int,
    typical_norm: float,
    *,
    probes: Array | None = None,
) -> Shared:
    """Return what a shared gradient says, without a search for the images.

    Args:
        model: the network.
        params: its weights, by name.
        gradients: the gradient, by name.
        batch: N.
        typical_norm: the mean length of the gradients of typical batches.
        probes: (M, C, H, W), images like the client's, which help to tell labels.

    Raises:
        ValueError: it is zero everywhere, or does not fit the model.
    """
    total = sum(array.size for array in gradients.values())
    norm = length(gradients)
    if norm == 0:
        raise ValueError(
            "the gradients are zero everywhere, so nothing can be read from them; check that the "
            "client's backward pass was run before they were saved"
        )
    noise = noise_variance(model, gradients)
    labels, doubt, doubts = None, None, None
    try:
        inference = infer_labels(model, params, gradients, batch, probes=probes)
        labels, doubt = inference.labels.tolist(), inference.warning
    except ValueError:  # the last layer is not linear
        pass
    else:
        doubts = read_doubts(model, params, gradients, labels, noise or 0.0)
    return Shared(
        norm=norm,
        typical_norm=typical_norm,
        zeros=sum(int((array == 0).sum()) for array in gradients.values()) / total,
        noise=noise,
        exact=noise is not None and math.sqrt(noise * total) < ROUNDING * norm,
        labels=labels,
        doubt=doubt,
        doubts=doubts,
        numbers=total,
    )


def noise_variance(model: Model, gradients: Mapping[str, Array]) -> float | None:
    """Estimate the variance of the noise on a gradient, from the gradient alone.

    Cross-entropy does not change if all logits rise together. So over the K classes the rows of
    the last layer's gradient add up to zero; what they add up to is the sum of K numbers' noise.

    Returns:
        The variance; None if the last layer is not linear, or there is one class only. It also
        counts rounding and pruning, and says nothing of noise that other layers alone have.
    """
    try:
        weight, bias = last_layer(model)
    except ValueError:
        return None
    if model.classes < 2:
        return None
    sums = np.asarray(gradients[weight], dtype=float).sum(axis=0)
    if bias is not None:
        sums = np.append(sums, np.asarray(gradients[bias], dtype=float).sum())
    return float(np.mean(sums**2)) / model.classes


def length(gradients: Mapping[str, Array]) -> float:
    """Return the norm of all gradients together."""
    squares = [float(np.sum(np.square(array, dtype=float))) for array in gradients.values()]
    return math.sqrt(math.fsum(squares))

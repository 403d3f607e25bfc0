"""Losses beside cross-entropy, of logits and targets as PyTorch has them, and labels as targets.

A network that is trained by another loss than cross-entropy has it as its `loss`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.interop import as_array
from tinyleak.nn.losses import cross_entropy, softmax
from tinyleak.ops import inner, sigmoid, softplus, sum
from tinyleak.tensor import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""A loss averaged over the batch, of logits (N, K) and targets (N, K)."""

LEAST_PROBABILITY = 1e-12
"""What a probability is held at before its logarithm: exact ones are 0 and 1."""


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return `log(1 + eᶻ) − y z`, averaged over batch and classes: each class is a yes or no.

    The logits and the targets, probabilities that need not add up to 1, are (…, N, K); the loss is
    (…).
    """
    total = sum(softplus(logits), axes=(-2, -1)) - inner(targets, logits, axes=2)
    return total * (1.0 / (logits.shape[-2] * logits.shape[-1]))


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Return `(z − y)²`, averaged over batch and classes: (…), of logits and targets (…, N, K)."""
    difference = logits - targets
    return inner(difference, difference, axes=2) * (1.0 / (logits.shape[-2] * logits.shape[-1]))


LOSSES: dict[str, Loss] = {
    "cross-entropy": cross_entropy,
    "bce": binary_cross_entropy,
    "mse": squared_error,
}
"""The losses that a client may have, by the name that they have on the command line."""


def targets_of(loss: str, dummies: Tensor) -> Tensor:
    """Return the targets that free numbers (…, N, K) stand for: all that a loss may have.

    They are a distribution over classes, a probability for each class, or the numbers themselves.
    """
    if loss == "mse":
        return dummies
    return sigmoid(dummies) if loss == "bce" else softmax(dummies)


def dummies_of(loss: str, targets: Array) -> Array:
    """Return numbers whose `targets_of` are these, up to probabilities of 0 and 1."""
    if loss == "mse":
        return targets
    odds = targets.clip(LEAST_PROBABILITY)
    if loss == "bce":
        odds = odds / (1.0 - targets).clip(LEAST_PROBABILITY)
    return np.asarray(np.log(odds))


def loss_of(model: Any) -> Loss:
    """Return the loss by which a network is trained: its own, else cross-entropy."""
    return getattr(model, "loss", cross_entropy)


def one_hot(labels: Array, classes: int, dtype: str = "float64") -> Array:
    """Return rows of probabilities that say each label for certain, (…, classes), from (…).

    Labels are whole numbers in [0, classes); any others are a ValueError.
    """
    labels = as_array(labels)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels of dtype {labels.dtype} were given; whole numbers are needed")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(
            f"label {wrong[0]} was given; with {classes} classes labels are in [0, {classes})"
        )
    return np.eye(classes, dtype=dtype)[labels]


def likeliest(soft: Array) -> Array:
    """Return the class (…) of rows of probabilities (…, K); of a single one whether it is yes."""
    return np.argmax(soft, axis=-1) if soft.shape[-1] > 1 else (soft[..., 0] > 0.5).astype(int)

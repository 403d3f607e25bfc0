"""What a loss makes of logits: δ = ∂L/∂z, of one image, for every loss that clients use.

Those that an attack is made with are affine in the targets y: δ = c (a(z) − B(z) y), with c = 1 for
the mean that PyTorch takes.
"""

from collections.abc import Callable

import numpy as np

from tinyleak.backend import Array

Residual = tuple[Array, Array]


def softmax(z: Array) -> Array:
    """Return the probabilities of logits (K,)."""
    powers = np.exp(z - z.max())
    return np.asarray(powers / powers.sum())


def sigmoid(z: Array) -> Array:
    """Return 1 / (1 + e^−z), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def cross_entropy(z: Array) -> Residual:
    """softmax(z) − y."""
    return softmax(z), np.eye(len(z))


def bce(z: Array) -> Residual:
    """(σ(z) − y) / K: binary cross-entropy with logits, a mean over K outputs."""
    return sigmoid(z) / len(z), np.eye(len(z)) / len(z)


def mse(z: Array) -> Residual:
    """2 (z − y) / K: the mean squared error of the logits."""
    return 2.0 * z / len(z), np.eye(len(z)) * (2.0 / len(z))


def softmax_twice(z: Array, label: int) -> Array:
    """The cross-entropy of probabilities that are taken for logits."""
    p = softmax(z)
    return _through_softmax(p, _less_one(softmax(p), label))


def mse_of_probabilities(z: Array, label: int) -> Array:
    """The mean squared error of softmax(z)."""
    p = softmax(z)
    return _through_softmax(p, _less_one(p, label) * (2.0 / len(z)))


def mse_of_sigmoids(z: Array, label: int) -> Array:
    """The mean squared error of σ(z)."""
    s = sigmoid(z)
    return 2.0 * s * (1.0 - s) * _less_one(s, label) / len(z)


def hinge(z: Array, label: int) -> Array:
    """The multi-class hinge loss, Σ max(0, 1 − z_y + z_j) / K (Crammer and Singer 2001)."""
    violated = np.where(1.0 - z[label] + z > 0.0, 1.0, 0.0)
    violated[label] -= violated.sum()
    return violated / len(z)


def _less_one(values: Array, label: int) -> Array:
    return values - np.eye(len(values))[label]


def _through_softmax(p: Array, pulled: Array) -> Array:
    """Return ∂L/∂z of p = softmax(z) for ∂L/∂p."""
    return np.asarray(p * (pulled - p @ pulled))


RESIDUALS: dict[str, Callable[[Array], Residual]] = {
    "cross-entropy": cross_entropy,
    "bce": bce,
    "mse": mse,
}
"""The losses that an attack may be made with."""

TWICE = "cross-entropy of probabilities (softmax applied twice)"
"""PyTorch's common mistake: its cross-entropy takes logits."""

OTHERS: dict[str, Callable[[Array, int], Array]] = {
    TWICE: softmax_twice,
    "mean squared error of probabilities": mse_of_probabilities,
    "mean squared error of sigmoids": mse_of_sigmoids,
    "hinge loss": hinge,
}
"""Losses that are only recognised: δ of logits and a label.

The focal loss is not among them: its δ is a multiple of the cross-entropy's (Lin et al. 2017)."""


def delta_of(loss: str, z: Array, targets: Array) -> Array:
    """Return δ, (K,), of logits and targets, (K,), by any of these losses."""
    if loss in OTHERS:
        return OTHERS[loss](z, int(np.argmax(targets)))
    without, by_targets = RESIDUALS[loss](z)
    return np.asarray(without - by_targets @ targets)

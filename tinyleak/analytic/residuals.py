"""What a loss makes of logits: δ = ∂L/∂z, of one image, for every loss that clients use.

All are affine in the targets y: δ = c (a(z) − B(z) y), with c = 1 for the mean that PyTorch takes.
"""

from __future__ import annotations

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


def softmax_twice(z: Array) -> Residual:
    """The cross-entropy of probabilities that are taken for logits."""
    p = softmax(z)
    jacobian = np.diag(p) - np.outer(p, p)
    return jacobian @ softmax(p), jacobian


def mse_of_probabilities(z: Array) -> Residual:
    """The mean squared error of softmax(z)."""
    p = softmax(z)
    jacobian = (np.diag(p) - np.outer(p, p)) * (2.0 / len(z))
    return jacobian @ p, jacobian


def mse_of_sigmoids(z: Array) -> Residual:
    """The mean squared error of σ(z)."""
    s = sigmoid(z)
    slope = 2.0 * s * (1.0 - s) / len(z)
    return slope * s, np.diag(slope)


RESIDUALS: dict[str, Callable[[Array], Residual]] = {
    "cross-entropy": cross_entropy,
    "bce": bce,
    "mse": mse,
}
"""The losses that an attack may be made with."""

OTHERS: dict[str, Callable[[Array], Residual]] = {
    "cross-entropy of probabilities (softmax applied twice)": softmax_twice,
    "mean squared error of probabilities": mse_of_probabilities,
    "mean squared error of sigmoids": mse_of_sigmoids,
}
"""Losses that are only recognised."""

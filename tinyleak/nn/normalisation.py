"""Normalisation: numbers brought to a common mean and variance, then scaled and shifted."""

from __future__ import annotations

from tinyleak.backend import Array
from tinyleak.nn.layers import as_row
from tinyleak.ops import mean, reshape, sqrt
from tinyleak.tensor import Tensor

EPSILON = 1e-5
"""PyTorch's default for both, added to a variance so that a constant can be divided by its root."""


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    epsilon: float = EPSILON,
) -> Tensor:
    """Scale and shift each channel, as batch norm does in evaluation mode (Ioffe and Szegedy 2015).

    The mean and the variance are constants that training has left, and do not depend on the batch.

    Args:
        x: (…, N, C, H, W).
        weight: (…, C).
        bias: (…, C).
        running_mean: (C,), by default 0, as before any training.
        running_var: (C,), not negative, by default 1.
        epsilon: added to the variance.

    Returns:
        (…, N, C, H, W): `(x − mean) / √(variance + epsilon) · weight + bias`.
    """
    if running_mean is not None:
        x = x - Tensor(running_mean.reshape(-1, 1, 1))
    if running_var is None:
        weight = weight * (1.0 + epsilon) ** -0.5
    else:
        weight = weight * Tensor((running_var + epsilon) ** -0.5)
    return x * _as_channels(weight) + _as_channels(bias)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Bring every row to mean 0 and variance 1, then scale and shift (Ba, Kiros and Hinton 2016).

    Args:
        x: (…, N, F).
        weight: (…, F).
        bias: (…, F).
        epsilon: added to the variance.

    Returns:
        (…, N, F).
    """
    centred = x - mean(x, -1, keepdims=True)
    variance = mean(centred * centred, -1, keepdims=True)
    return centred / sqrt(variance + epsilon) * as_row(weight) + as_row(bias)


def _as_channels(numbers: Tensor) -> Tensor:
    """(…, C) → (…, 1, C, 1, 1), to be spread over images and pixels."""
    return reshape(numbers, (*numbers.shape[:-1], 1, numbers.shape[-1], 1, 1))

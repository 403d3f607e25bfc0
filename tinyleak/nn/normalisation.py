"""Normalisation: numbers brought to a common mean and variance, then scaled and shifted."""

from tinyleak.backend import Array
from tinyleak.nn.layers import as_row, channels_first, channels_last
from tinyleak.ops import broadcast_to, mean, reshape, sqrt
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
    pixels = _as_rows(x)
    if running_mean is not None:
        pixels = pixels - Tensor(running_mean)
    if running_var is None:
        weight = weight * (1.0 + epsilon) ** -0.5
    else:
        weight = weight * Tensor((running_var + epsilon) ** -0.5)
    return _as_images(pixels * as_row(weight) + as_row(bias), x.shape)


def batch_norm_of_batch(
    x: Tensor, weight: Tensor, bias: Tensor, epsilon: float = EPSILON
) -> Tensor:
    """Scale and shift each channel, as batch norm does in training mode: by the batch's statistics.

    The images then depend on one another. Arguments and result are those of `batch_norm`.
    """
    found = _normalised(_as_rows(x), x.shape[-3], as_row(weight), as_row(bias), epsilon)
    return _as_images(found, x.shape)


def group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float = EPSILON
) -> Tensor:
    """Bring each group of channels of each image to mean 0 and variance 1 (Wu and He 2018).

    The C channels are split into `groups`, or it is a ValueError. With as many as channels it is
    instance norm, with one it is layer norm over the image. Other arguments, and the result, are
    those of `batch_norm`.
    """
    *leading, channels, height, width = x.shape
    if channels % groups:
        raise ValueError(f"group_norm cannot split {channels} channels into {groups} groups")
    pixels = reshape(channels_last(x), (*leading, height * width, channels))
    scale, shift = as_row(as_row(weight)), as_row(as_row(bias))
    found = _normalised(pixels, groups, scale, shift, epsilon)
    return channels_first(reshape(found, (*found.shape[:-2], height, width, channels)))


def _normalised(
    pixels: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float
) -> Tensor:
    """Bring pixels (…, P, C), for each group of channels together, to mean 0 and variance 1.

    Then scale and shift them; the scales are multiplied first, since they are few.
    """
    centred = pixels - _mean(pixels, groups)
    scale = (_mean(centred**2, groups) + epsilon) ** -0.5 * weight
    return centred * scale + bias


def _mean(pixels: Tensor, groups: int) -> Tensor:
    """Return the mean over pixels and each group of channels, (…, 1, C) from (…, P, C)."""
    *leading, channels = (by_channel := mean(pixels, -2, keepdims=True)).shape
    if groups == channels:
        return by_channel
    split = reshape(by_channel, (*leading, groups, channels // groups))
    together = broadcast_to(mean(split, -1, keepdims=True), shape=split.shape)
    return reshape(together, by_channel.shape)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Bring every row to mean 0 and variance 1, then scale and shift (Ba, Kiros and Hinton 2016).

    Rows are (…, N, F), weight and bias (…, F); `epsilon` is added to the variance.
    """
    centred = x - mean(x, -1, keepdims=True)
    variance = mean(centred * centred, -1, keepdims=True)
    return centred / sqrt(variance + epsilon) * as_row(weight) + as_row(bias)


def _as_rows(x: Tensor) -> Tensor:
    """(…, N, C, H, W) → (…, N·H·W, C): a row for each pixel."""
    *leading, batch, channels, height, width = x.shape
    return reshape(channels_last(x), (*leading, batch * height * width, channels))


def _as_images(pixels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo `_as_rows`; the pixels may have leading axes that the images lacked."""
    batch, channels, height, width = shape[-4:]
    images = (*pixels.shape[:-2], batch, height, width, channels)
    return channels_first(reshape(pixels, images))

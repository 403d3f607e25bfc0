"""Layers, as plain functions of Tensors.

Every layer maps over leading axes. Inputs are `(…, N, C, H, W)` or `(…, N, F)`; weights may have
matching leading axes, so that R networks run as one. Layouts are PyTorch's.

Lesson: lessons/05_convolution.py
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tinyleak.backend import Array
from tinyleak.ops import (
    erf,
    mean,
    relu,
    reshape,
    sigmoid,
    softplus,
    sqrt,
    tanh,
    transpose,
    unfold,
)
from tinyleak.ops.window import Pair
from tinyleak.tensor import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softplus": softplus,
    "relu": relu,
}
"""Activations by name. The attack needs a smooth one: relu is flat almost everywhere."""


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the activation of that name.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is unknown; choose from {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weightᵀ + bias`.

    Args:
        x: (…, N, F).
        weight: (…, O, F).
        bias: (…, O).

    Returns:
        (…, N, O).
    """
    out = x @ transpose(weight, (1, 0))
    return out if bias is None else out + _as_row(bias)


def linear_on_images(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `linear(flatten(x), weight, bias)` for channels-last images.

    `flatten` has the pixels of one channel after those of another, and the weights expect them so.
    The weights are brought into the order of the images, which change with every evaluation.

    Args:
        x: (…, N, H, W, C).
        weight: (…, O, C·H·W).
        bias: (…, O).

    Returns:
        (…, N, O).
    """
    height, width, channels = x.shape[-3:]
    weight_images = reshape(weight, (*weight.shape[:-1], channels, height, width))
    return linear(flatten(x), flatten(channels_last(weight_images)), bias)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
) -> Tensor:
    """Convolve (cross-correlate, as deep learning does), in PyTorch's layout.

    Args:
        x: (…, N, C, H, W).
        weight: (…, O, C, kH, kW).
        bias: (…, O).
        stride: how far the window moves, down and across.
        padding: zeros put above and below, left and right.

    Returns:
        (…, N, O, oH, oW).

    Raises:
        ValueError: too few axes, channels that differ, or a window that does not fit the image.
    """
    if x.ndim < 4 or weight.ndim < 4:
        raise ValueError(
            f"conv2d was given images of shape {x.shape} and a weight of shape {weight.shape}; "
            "it needs (…, N, C, H, W) and (…, O, C, kH, kW)"
        )
    _require_channels(x.shape[-3], "(…, N, C, H, W)", x, weight)
    image = convolve(channels_last(x), weight, bias, stride=stride, padding=padding)
    return transpose(image, (2, 0, 1))


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Pair,
    padding: Pair,
    squash: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Convolve channels-last images, as unfold and one matrix product.

    The windows lie contiguous so, and what one layer returns is what the next one takes.

    Args:
        x: (…, N, H, W, C).
        weight: (…, O, C, kH, kW).
        bias: (…, O), or None.
        stride: how far the window moves, down and across.
        padding: zeros put above and below, left and right.
        squash: an activation, applied before the rows of the product become images again.

    Returns:
        (…, N, oH, oW, O).

    Raises:
        ValueError: channels that differ, or a window that does not fit the image.
    """
    out_channels, channels, high, wide = weight.shape[-4:]
    _require_channels(x.shape[-1], "(…, N, H, W, C)", x, weight)
    windows = unfold(x, (high, wide), stride=stride, padding=padding)
    *leading, batch, rows, columns = windows.shape[:-3]
    lines = reshape(windows, (*leading, batch * rows * columns, high * wide * channels))
    matrix = reshape(transpose(weight, (2, 3, 1, 0)), (*weight.shape[:-4], -1, out_channels))
    out = lines @ matrix
    if bias is not None:
        out = out + _as_row(bias)
    if squash is not None:
        out = squash(out)
    return reshape(out, (*out.shape[:-2], batch, rows, columns, out_channels))


def _require_channels(channels: int, layout: str, x: Tensor, weight: Tensor) -> None:
    """Raise unless images of so many channels are what the weight is for."""
    if channels != weight.shape[-3]:
        raise ValueError(
            f"conv2d was given images of {channels} channels {layout} = {x.shape} and a weight for "
            f"{weight.shape[-3]} (…, O, C, kH, kW) = {weight.shape}; they must agree"
        )


def channels_last(x: Tensor) -> Tensor:
    """(…, C, H, W) → (…, H, W, C)."""
    return transpose(x, (1, 2, 0))


def avg_pool2d(x: Tensor, kernel: Pair, *, stride: Pair | None = None) -> Tensor:
    """Average over windows: (…, N, C, H, W) → (…, N, C, oH, oW); the stride defaults to the kernel.

    Raises:
        ValueError: the window does not fit the image.
    """
    windows = unfold(channels_last(x), kernel, stride=stride or kernel)
    return transpose(mean(windows, (-3, -2)), (2, 0, 1))


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Shift and scale each channel as batch norm does once it is trained, in evaluation form.

    The mean and the variance are constants that do not depend on the batch.

    Args:
        x: (…, N, C, H, W).
        weight: (…, C).
        bias: (…, C).
        running_mean: (C,), by default 0, as before any training.
        running_var: (C,), by default 1.
        epsilon: what is added to the variance.
    """
    if running_mean is not None:
        x = x - Tensor(running_mean.reshape(-1, 1, 1))
    if running_var is None:
        weight = weight * (1.0 + epsilon) ** -0.5
    else:
        weight = weight * Tensor((running_var + epsilon) ** -0.5)
    return x * _as_channels(weight) + _as_channels(bias)


def gelu(x: Tensor) -> Tensor:
    """Return `x · Φ(x)`, with Φ the distribution function of N(0, 1): a smooth relu."""
    return x * (0.5 + 0.5 * erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Tensor) -> Tensor:
    """Return gelu as the older BERTs approximate it, with a tanh in place of erf."""
    return x * (0.5 + 0.5 * tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Bring every row to mean 0 and variance 1, then scale and shift its elements.

    Args:
        x: (…, N, F).
        weight: (…, F).
        bias: (…, F).
        epsilon: what is added to the variance, so that a constant row can be divided by it.

    Returns:
        (…, N, F).
    """
    centred = x - mean(x, -1, keepdims=True)
    variance = mean(centred * centred, -1, keepdims=True)
    return centred / sqrt(variance + epsilon) * _as_row(weight) + _as_row(bias)


def flatten(x: Tensor) -> Tensor:
    """Make one row of each image: (…, N, C, H, W) → (…, N, C·H·W), or channels-last."""
    return reshape(x, (*x.shape[:-3], -1))


def _as_channels(numbers: Tensor) -> Tensor:
    """(…, C) → (…, 1, C, 1, 1), to be spread over images and pixels."""
    return reshape(numbers, (*numbers.shape[:-1], 1, numbers.shape[-1], 1, 1))


def _as_row(bias: Tensor) -> Tensor:
    """(…, O) → (…, 1, O), to be added to every row."""
    return reshape(bias, (*bias.shape[:-1], 1, bias.shape[-1]))

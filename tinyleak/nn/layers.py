"""Layers, as plain functions of Tensors.

Every layer maps over leading axes. Inputs are `(…, N, C, H, W)` or `(…, N, F)`; weights may have
matching leading axes, so that R networks run as one. Layouts are PyTorch's.

Lesson: lessons/05_convolution.py
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
from tinyleak.ops.window import Pair, window_counts
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
    """Return `linear(flatten(x), weight, bias)`, summed over the pixels in another order.

    It is the order in which `conv2d` leaves them in memory: the weights are brought into it, and
    the images, which change with every evaluation, stay where they are.

    Args:
        x: (…, N, C, H, W).
        weight: (…, O, C·H·W).
        bias: (…, O).

    Returns:
        (…, N, O).
    """
    weight_images = reshape(weight, (*weight.shape[:-1], *x.shape[-3:]))
    return linear(_channels_last_rows(x), _channels_last_rows(weight_images), bias)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
) -> Tensor:
    """Convolve (cross-correlate, as deep learning does), as unfold and one matrix product.

    Channels are the last axis inside, where the windows lie contiguous; since transposing moves no
    number, consecutive layers hand each other channels-last memory in this channels-first shape.

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
    *_, batch, channels, height, width = x.shape
    *leading, out_channels, in_channels, high, wide = weight.shape
    if channels != in_channels:
        raise ValueError(
            f"conv2d was given images of {channels} channels (…, N, C, H, W) = {x.shape} and a "
            f"weight for {in_channels} (…, O, C, kH, kW) = {weight.shape}; they must agree"
        )
    rows, columns = window_counts((height, width), (high, wide), stride, padding)
    windows = unfold(transpose(x, (1, 2, 0)), (high, wide), stride=stride, padding=padding)
    lines = reshape(windows, (*x.shape[:-4], batch * rows * columns, high * wide * channels))
    matrix = reshape(transpose(weight, (2, 3, 1, 0)), (*leading, -1, out_channels))
    out = lines @ matrix
    if bias is not None:
        out = out + _as_row(bias)
    image = reshape(out, (*out.shape[:-2], batch, rows, columns, out_channels))
    return transpose(image, (2, 0, 1))


def avg_pool2d(x: Tensor, kernel: Pair, *, stride: Pair | None = None) -> Tensor:
    """Average over windows: (…, N, C, H, W) → (…, N, C, oH, oW); the stride defaults to the kernel.

    Raises:
        ValueError: the window does not fit the image.
    """
    windows = unfold(transpose(x, (1, 2, 0)), kernel, stride=stride or kernel)
    return transpose(mean(windows, (-3, -2)), (2, 0, 1))


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
    """Make one row of each image: (…, N, C, H, W) → (…, N, C·H·W)."""
    return reshape(x, (*x.shape[:-3], -1))


def _channels_last_rows(x: Tensor) -> Tensor:
    """(…, C, H, W) → (…, H·W·C)."""
    return reshape(transpose(x, (1, 2, 0)), (*x.shape[:-3], -1))


def _as_row(bias: Tensor) -> Tensor:
    """(…, O) → (…, 1, O), to be added to every row."""
    return reshape(bias, (*bias.shape[:-1], 1, bias.shape[-1]))

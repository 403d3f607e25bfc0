"""Layers, as plain functions of Tensors, in PyTorch's layouts.

Every layer maps over leading axes. Inputs are `(…, N, C, H, W)` or `(…, N, F)`; weights may have
matching leading axes, so that R networks run as one.

Lesson: lessons/05_convolution.py
"""

from collections.abc import Callable

from tinyleak.ops import reshape, transpose, unfold
from tinyleak.ops.window import Pair
from tinyleak.tensor import Tensor


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the activation of that name in `tinyleak.nn.ACTIVATIONS`.

    Raises:
        ValueError: the name is unknown.
    """
    from tinyleak.nn.activations import ACTIVATIONS

    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is unknown; choose from {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weightᵀ + bias`, (…, N, O), for (…, N, F), (…, O, F) and (…, O).

    Raises:
        ValueError: the shapes do not fit together.
    """
    if x.ndim < 2 or weight.ndim < 2 or x.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"linear was given rows of shape {x.shape} and a weight of shape {weight.shape}; it "
            "needs (…, N, F) and (…, O, F), with one F"
        )
    out = x @ transpose(weight, (1, 0))
    return out if bias is None else out + as_row(bias)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
) -> Tensor:
    """Convolve (cross-correlate, as deep learning does), as `unfold` and one matrix product.

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
    return channels_first(convolve(checked_images(x, weight), weight, bias, stride, padding))


def checked_images(x: Tensor, weight: Tensor) -> Tensor:
    """Return images as `convolve` takes them; a ValueError if the weight does not fit them."""
    if x.ndim < 4 or weight.ndim < 4 or x.shape[-3] != weight.shape[-3]:
        raise ValueError(
            f"conv2d was given images of shape {x.shape} and a weight of shape {weight.shape}; "
            "it needs (…, N, C, H, W) and (…, O, C, kH, kW), with one C"
        )
    return channels_last(x)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """Convolve images that have their channels last: (…, N, H, W, C) → (…, N, oH, oW, O)."""
    out_channels, channels, high, wide = weight.shape[-4:]
    windows = unfold(x, (high, wide), stride=stride, padding=padding)
    *leading, batch, rows, columns = windows.shape[:-3]
    lines = reshape(windows, (*leading, batch * rows * columns, high * wide * channels))
    matrix = reshape(transpose(weight, (2, 3, 1, 0)), (*weight.shape[:-4], -1, out_channels))
    out = lines @ matrix
    if bias is not None:
        out = out + as_row(bias)
    # The product's rows are pixels, so its images have their channels last.
    return reshape(out, (*out.shape[:-2], batch, rows, columns, out_channels))


def flatten(x: Tensor) -> Tensor:
    """Make one row of each image: (…, N, C, H, W) → (…, N, C·H·W)."""
    return reshape(x, (*x.shape[:-3], -1))


def channels_last(x: Tensor) -> Tensor:
    """(…, C, H, W) → (…, H, W, C), as `unfold` takes images."""
    return transpose(x, (1, 2, 0))


def channels_first(x: Tensor) -> Tensor:
    """(…, H, W, C) → (…, C, H, W)."""
    return transpose(x, (2, 0, 1))


def as_row(bias: Tensor) -> Tensor:
    """(…, O) → (…, 1, O), to be added to every row."""
    return reshape(bias, (*bias.shape[:-1], 1, bias.shape[-1]))

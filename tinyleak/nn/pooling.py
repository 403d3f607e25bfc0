"""Pooling: one number for each window of an image."""

from __future__ import annotations

from tinyleak.nn.layers import channels_last
from tinyleak.ops import mean, transpose, unfold
from tinyleak.ops.window import Pair
from tinyleak.tensor import Tensor


def avg_pool2d(x: Tensor, kernel: Pair, *, stride: Pair | None = None) -> Tensor:
    """Average over windows.

    Args:
        x: (…, N, C, H, W).
        kernel: height and width of a window.
        stride: how far the window moves, down and across; by default the kernel, so that windows
            lie side by side.

    Returns:
        (…, N, C, oH, oW).

    Raises:
        ValueError: too few axes, or a window that does not fit the image.
    """
    if x.ndim < 4:
        raise ValueError(f"avg_pool2d was given images of shape {x.shape}, not (…, N, C, H, W)")
    windows = unfold(channels_last(x), kernel, stride=stride or kernel)
    return transpose(mean(windows, (-3, -2)), (2, 0, 1))

"""Sliding windows: `unfold ⇄ fold`, the adjoint pair that convolution is made of.

`unfold` lays every window of an image out as a row, so that a convolution is one matrix product;
`fold` adds the rows back where they came from. Images are channels-last here, (…, H, W, C): one
line of a window is then contiguous in memory, and laying it out is a plain copy.

Lesson: lessons/05_convolution.py
"""

import math
from typing import Any

from tinyleak.backend import Array
from tinyleak.tensor import Tensor, primitive

Pair = tuple[int, int]


@primitive()
def _unfold(xp: Any, x: Array, *, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """The windows of x: (…, H, W, C) → (…, oH, oW, kH, kW, C)."""
    *leading, height, width, channels = x.shape
    top, left = padding
    padded = xp.zeros((*leading, height + 2 * top, width + 2 * left, channels), dtype=x.dtype)
    padded[..., top : top + height, left : left + width, :] = x
    return windows_of(xp, padded, kernel, stride).copy()


_unfold.rule(lambda g, out, x, *, kernel, **moves: (fold(g, x.shape[-3:-1], **moves),))


def windows_of(xp: Any, x: Array, kernel: Pair, stride: Pair) -> Array:
    """Return all windows of an image as one view of it: (…, H, W, C) → (…, oH, oW, kH, kW, C)."""
    *leading, height, width, channels = x.shape
    *apart, row, column, channel = x.strides
    counts = window_counts((height, width), kernel, stride, (0, 0))
    return xp.lib.stride_tricks.as_strided(
        x,
        (*leading, *counts, *kernel, channels),
        (*apart, row * stride[0], column * stride[1], row, column, channel),
    )


@primitive()
def _fold(xp: Any, x: Array, *, size: Pair, stride: Pair, padding: Pair) -> Array:
    """Each pixel the sum of its places in the windows: (…, oH, oW, kH, kW, C) → (…, H, W, C)."""
    *leading, rows, columns, high, wide, channels = x.shape
    height, width = (n + 2 * p for n, p in zip(size, padding, strict=True))
    count = math.prod(leading)
    strips = x.reshape(count, rows, columns, high, wide * channels).swapaxes(2, 3)
    lines = _add_up(xp, strips, stride[0], height).reshape(count * height, columns, wide, channels)
    image = _add_up(xp, lines, stride[1], width).reshape(*leading, height, width, channels)
    (top, left), (down, across) = padding, size
    return xp.ascontiguousarray(image[..., top : top + down, left : left + across, :])


def _add_up(xp: Any, parts: Array, step: int, length: int) -> Array:
    """Add up overlapping parts, the i-th from place i·step on: (A, n, k, …) → (A, length, …)."""
    outer, count, size, *inner = parts.shape
    (whole, rest), steps = divmod(size, step), -(-length // step)
    pieces = whole + (rest > 0)
    # A part is cut into pieces, each as long as a step. There is one line for each piece, one step
    # too long. Read as lines of the right length, the j-th has moved j steps on: where it belongs.
    lines = xp.zeros((outer, pieces, steps + 1, step, *inner), dtype=parts.dtype)
    cut = parts[:, :, : whole * step].reshape(outer, count, whole, step, *inner)
    lines[:, :whole, :count] = cut.swapaxes(1, 2)
    if rest:
        lines[:, whole, :count, :rest] = parts[:, :, whole * step :]
    moved = lines.reshape(outer, pieces * (steps + 1), step, *inner)[:, : pieces * steps]
    return moved.reshape(outer, pieces, steps * step, *inner).sum(axis=1)[:, :length]


_fold.rule(lambda g, out, x, *, size, **moves: (unfold(g, x.shape[-3:-1], **moves),))


def unfold(x: Tensor, kernel: Pair, *, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> Tensor:
    """Lay out the windows of an image: (…, H, W, C) → (…, oH, oW, kH, kW, C).

    A window has the height and width `kernel`, and moves by `stride` down and across; `padding` is
    how many zeros are put above and below, left and right.

    Raises:
        ValueError: `x` has fewer than 3 axes, or a window is larger than the padded image.
    """
    if x.ndim < 3:
        raise ValueError(f"unfold needs images (…, H, W, C), not {x.shape}")
    window_counts((x.shape[-3], x.shape[-2]), kernel, stride, padding)
    return _unfold(x, kernel=tuple(kernel), stride=tuple(stride), padding=tuple(padding))


def fold(x: Tensor, size: Pair, *, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> Tensor:
    """Add windows back to where they came from: (…, oH, oW, kH, kW, C) → (…, H, W, C).

    The adjoint of `unfold`, whose `stride` and `padding` it takes; `size` is (H, W).

    Raises:
        ValueError: an image of that size does not have these windows; `x` has fewer than 5 axes.
    """
    if x.ndim < 5:
        raise ValueError(f"fold needs windows (…, oH, oW, kH, kW, C), not {x.shape}")
    rows, columns, *kernel = x.shape[-5:-1]
    counts = window_counts(size, (kernel[0], kernel[1]), stride, padding)
    if counts != (rows, columns):
        raise ValueError(
            f"fold was given {(rows, columns)} windows, but an image of {tuple(size)} with kernel "
            f"{tuple(kernel)}, stride {tuple(stride)} and padding {tuple(padding)} has {counts}"
        )
    return _fold(x, size=tuple(size), stride=tuple(stride), padding=tuple(padding))


def window_counts(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Return how many windows fit, down and across: `⌊(H + 2p − k) / s⌋ + 1`.

    Raises:
        ValueError: none fits, a stride or kernel below 1, or a negative padding.
    """
    if min(*kernel, *stride) < 1 or min(padding) < 0:
        raise ValueError(
            f"kernel {tuple(kernel)}, stride {tuple(stride)} and padding {tuple(padding)} were "
            "given; kernel and stride must be at least 1 and padding at least 0"
        )
    down, across = (
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True)
    )
    if down < 1 or across < 1:
        raise ValueError(
            f"a window of {tuple(kernel)} does not fit an image of {tuple(size)} with padding "
            f"{tuple(padding)}; use a smaller kernel, more padding or a larger image"
        )
    return down, across

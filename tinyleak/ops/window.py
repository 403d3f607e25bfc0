"""Sliding windows: `unfold ⇄ fold`, the adjoint pair that convolution is made of.

`unfold` lays every window of an image out as a row, so that a convolution is one matrix product;
`fold` adds the rows back where they came from. Images are channels-last here, (…, H, W, C): one
line of a window is then contiguous in memory, and laying it out is a plain copy.

Lesson: lessons/05_convolution.py
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np

from tinyleak.backend import Array, call_into, fitting_count, shares_memory, take_into
from tinyleak.tensor import Step, Tensor, primitive

Pair = tuple[int, int]


@primitive()
def _unfold(
    xp: Any, x: Array, out: Array | None = None, *, kernel: Pair, stride: Pair, padding: Pair
) -> Array:
    """The windows of x: (…, H, W, C) → (…, oH, oW, kH, kW, C)."""
    counts = window_counts((x.shape[-3], x.shape[-2]), kernel, stride, padding)
    out_shape = (*x.shape[:-3], *counts, *kernel, x.shape[-1])
    out = xp.empty(out_shape, dtype=x.dtype) if out is None else out
    for step in _unfold_steps(xp, x, out, kernel=kernel, stride=stride, padding=padding):
        step()
    return out


@_unfold.steps
def _unfold_steps(
    xp: Any, x: Array, out: Array, *, kernel: Pair, stride: Pair, padding: Pair
) -> list[Step]:
    *leading, height, width, channels = x.shape
    steps: list[Step] = []
    if padding != (0, 0):
        top, left = padding
        padded_shape = (*leading, height + 2 * top, width + 2 * left, channels)
        padded = xp.zeros(padded_shape, dtype=x.dtype)
        middle = padded[..., top : top + height, left : left + width, :]
        steps.append(partial(xp.copyto, middle, x))
        x = padded
    *apart, row, column, channel = x.strides
    windows = xp.lib.stride_tricks.as_strided(
        x, out.shape, (*apart, row * stride[0], column * stride[1], row, column, channel)
    )
    return [*steps, partial(xp.copyto, out, windows)]


@_unfold.rule
def _(
    g: Tensor, out: Tensor, x: Tensor, *, kernel: Pair, stride: Pair, padding: Pair
) -> tuple[Tensor]:
    size = (x.shape[-3], x.shape[-2])
    return (fold(g, size, stride=stride, padding=padding),)


@primitive()
def _fold(
    xp: Any, x: Array, out: Array | None = None, *, size: Pair, stride: Pair, padding: Pair
) -> Array:
    """Each pixel the sum of its places in the windows: (…, oH, oW, kH, kW, C) → (…, H, W, C)."""
    out_shape = (*x.shape[:-5], *size, x.shape[-1])
    result = xp.empty(out_shape, dtype=x.dtype)
    for step in _fold_steps(xp, x, result, size=size, stride=stride, padding=padding):
        step()
    if out is None:
        return result
    xp.copyto(out, result)
    return out


@_fold.steps
def _fold_steps(
    xp: Any, x: Array, out: Array, *, size: Pair, stride: Pair, padding: Pair
) -> list[Step]:
    rows, columns, high, wide, channels = x.shape[-5:]
    places = _places(xp, (rows, columns), (high, wide), size, stride, padding)
    windows = x.reshape((-1, rows * columns * high * wide, channels))
    images = out.reshape((len(windows), 1, size[0] * size[1] * channels))
    steps: list[Step] = []
    if not shares_memory(xp, windows, x):
        steps.append(partial(xp.copyto, windows.reshape(x.shape), x))
    each = (windows.shape[1] + places.size) * channels * x.dtype.itemsize
    together = fitting_count(xp, len(windows), each)
    # One more entry, of zeros, stands for the places that a pixel near the border lacks.
    flat = xp.zeros((together, windows.shape[1] + 1, channels), dtype=x.dtype)
    found = xp.empty((together, places.size, channels), dtype=x.dtype)
    covers = found.reshape((together, -1, images.shape[-1]))
    ones = xp.ones((1, covers.shape[1]), dtype=x.dtype)
    for start in range(0, len(windows), together):
        part = slice(start, min(start + together, len(windows)))
        here = slice(0, part.stop - start)
        steps += [
            partial(xp.copyto, flat[here, :-1], windows[part]),
            take_into(xp, flat[here], places, 1, found[here]),
            call_into(xp, "matmul", ones, covers[here], out=images[part]),
        ]
    return steps


@_fold.rule
def _(
    g: Tensor, out: Tensor, x: Tensor, *, size: Pair, stride: Pair, padding: Pair
) -> tuple[Tensor]:
    kernel = (x.shape[-3], x.shape[-2])
    return (unfold(g, kernel, stride=stride, padding=padding),)


def unfold(x: Tensor, kernel: Pair, *, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> Tensor:
    """Lay out the windows of an image: (…, H, W, C) → (…, oH, oW, kH, kW, C).

    Args:
        x: channels-last images, (…, H, W, C).
        kernel: height and width of a window.
        stride: how far the window moves, down and across.
        padding: zeros put above and below, left and right.

    Raises:
        ValueError: `x` has fewer than 3 axes, or a window is larger than the padded image.
    """
    if x.ndim < 3:
        raise ValueError(f"unfold needs images (…, H, W, C), not {x.shape}")
    window_counts((x.shape[-3], x.shape[-2]), kernel, stride, padding)
    return _unfold(x, kernel=tuple(kernel), stride=tuple(stride), padding=tuple(padding))


def fold(x: Tensor, size: Pair, *, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> Tensor:
    """Add windows back to where they came from, the adjoint of `unfold`.

    Args:
        x: windows, (…, oH, oW, kH, kW, C).
        size: height and width of the image.
        stride: as `unfold` was given it.
        padding: as `unfold` was given it.

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


@lru_cache(maxsize=256)
def _places(xp: Any, counts: Pair, kernel: Pair, size: Pair, stride: Pair, padding: Pair) -> Array:
    """The places of each pixel among the flattened windows, (P·H·W,): P ways to be covered.

    A place that does not exist is given the number of the entry after the last.
    """
    down, row_fits = _places_along(counts[0], kernel[0], size[0], stride[0], padding[0])
    across, column_fits = _places_along(counts[1], kernel[1], size[1], stride[1], padding[1])
    window = (down[0][:, None, :, None] * counts[1]) + across[0][None, :, None, :]
    within = (down[1][:, None, :, None] * kernel[1]) + across[1][None, :, None, :]
    fits = row_fits[:, None, :, None] & column_fits[None, :, None, :]
    per_window = kernel[0] * kernel[1]
    places = np.where(fits, window * per_window + within, counts[0] * counts[1] * per_window)
    return xp.asarray(places.reshape(-1))


def _places_along(
    count: int, kernel: int, size: int, stride: int, padding: int
) -> tuple[tuple[Array, Array], Array]:
    """Along one axis: for each pixel the windows that cover it and the offset within each.

    Returns:
        The windows and the offsets, each (⌈k/s⌉, size), and whether such a window exists.
    """
    pixel = np.arange(size)[None, :] + padding
    offset = pixel % stride + stride * np.arange(-(-kernel // stride))[:, None]
    window = (pixel - offset) // stride
    return (window, offset), (offset < kernel) & (window >= 0) & (window < count)

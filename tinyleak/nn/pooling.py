"""Pooling: one number for each window of an image."""

from collections.abc import Sequence

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.nn.layers import channels_first, channels_last
from tinyleak.ops import largest_of_windows, reshape, take
from tinyleak.ops.window import Pair, window_counts
from tinyleak.ops.winners import Windows
from tinyleak.tensor import Tensor


def max_pool2d(
    x: Tensor,
    kernel: Pair,
    *,
    stride: Pair | None = None,
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    ceil: bool = False,
) -> Tensor:
    """Return the largest element of each window; padding never is.

    Args:
        x: (…, N, C, H, W).
        kernel: height and width of a window.
        stride: how far the window moves, down and across; by default the kernel, so that windows
            lie side by side.
        padding: how far the first and last windows may reach over the edges, down and across.
        dilation: how far apart the elements of a window are.
        ceil: whether a window that is cut off by the lower or right edge counts as well.

    Returns:
        (…, N, C, oH, oW). The first of several largest elements has the gradient.

    Raises:
        ValueError: too few axes, or a window that does not fit the image.
    """
    y = channels_last(_checked(x, "max_pool2d"))
    windows = pooling_windows(x.shape[-2:], kernel, stride or kernel, padding, dilation, ceil)
    return channels_first(largest_of_windows(y, *windows))


def avg_pool2d(
    x: Tensor,
    kernel: Pair,
    *,
    stride: Pair | None = None,
    padding: Pair = (0, 0),
    ceil: bool = False,
    count_padding: bool = True,
) -> Tensor:
    """Average over windows; arguments, result and errors are those of `max_pool2d`.

    The padding is zeros, and an average is over them too, unless `count_padding` says not.
    """
    _checked(x, "avg_pool2d")
    windows = pooling_windows(x.shape[-2:], kernel, stride or kernel, padding, (1, 1), ceil)
    averages = []
    for (count, size, step, before, _), length in zip(windows, x.shape[-2:], strict=True):
        starts = [i * step - before for i in range(count)]
        spans = [(start, min(start + size, length + before)) for start in starts]
        averages.append(_weights(spans, length, count_padding))
    return resample(x, *averages)


def adaptive_avg_pool2d(x: Tensor, size: Pair) -> Tensor:
    """Average over (oH, oW) windows, as even as possible; they may overlap.

    From (…, N, C, H, W) to (…, N, C, oH, oW); a size of (1, 1) is the mean over all pixels.
    """
    rows, columns = (
        _weights(even_spans(n, k), n)
        for n, k in zip(_checked(x, "adaptive_avg_pool2d").shape[-2:], size, strict=True)
    )
    return resample(x, rows, columns)


def adaptive_max_pool2d(x: Tensor, size: Pair) -> Tensor:
    """Return the largest element of each of (oH, oW) windows, those of `adaptive_avg_pool2d`."""
    lengths, kernel = _checked(x, "adaptive_max_pool2d").shape[-2:], []
    for axis, n, k in zip((-2, -1), lengths, size, strict=True):
        spans = np.array(even_spans(n, k))
        kernel.append(int((spans[:, 1] - spans[:, 0]).max()))
        # Windows side by side and of one length: the last element of a shorter one is repeated.
        places = np.minimum(spans[:, :1] + np.arange(kernel[-1]), spans[:, 1:] - 1)
        x = x if n == places.size else take(x, places.ravel(), axis)
    return max_pool2d(x, (kernel[0], kernel[1]))


def even_spans(length: int, count: int) -> list[tuple[int, int]]:
    """Return where so many windows of an axis start and stop, as even as possible."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def resample(x: Tensor, rows: Array, columns: Array) -> Tensor:
    """Return `rows @ image @ columnsᵀ` for each channel: (…, C, oH, oW) from (…, C, H, W).

    `rows` are (oH, H), `columns` (oW, W).
    """
    module, y = array_module(x._array), channels_last(x)
    down, across = (Tensor(module.asarray(m, dtype=x.dtype)) for m in (rows, columns))
    *leading, height, _, channels = y.shape
    lines = reshape(across @ y, (*leading, height, len(columns) * channels))
    return channels_first(reshape(down @ lines, (*leading, len(rows), len(columns), channels)))


def pooling_windows(
    size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil: bool
) -> tuple[Windows, Windows]:
    """Return where windows lie, down and across; with `ceil`, one more that the end cuts off.

    A ValueError if none fits, or the numbers cannot be.
    """
    asked = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    for name, pair in asked.items():
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"the {name} is {pair}; give two numbers, down and across")
    down, across = (d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    window_counts((size[0], size[1]), (down, across), stride, padding)  # for what it raises
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)) or min(dilation) < 1:
        raise ValueError(
            f"padding {padding} and dilation {dilation} were given for windows of {kernel}; "
            "padding must be at most half the window, dilation at least 1"
        )
    found = []
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (room + (s - 1 if ceil else 0)) // s + 1
        if (count - 1) * s >= n + p:
            count -= 1  # it would begin beyond the end
        found.append(Windows(count, k, s, p, d))
    return found[0], found[1]


def _weights(spans: Sequence[tuple[int, int]], length: int, count_all: bool = False) -> Array:
    """Return rows that average from start to stop, over what lies in the axis alone or over all."""
    places, (starts, stops) = np.arange(length), np.array(spans).T[:, :, None]
    covers = (places >= starts) & (places < stops)
    return covers / (stops - starts if count_all else covers.sum(axis=1, keepdims=True))


def _checked(x: Tensor, name: str) -> Tensor:
    if x.ndim < 4:
        raise ValueError(f"{name} was given images of shape {x.shape}, not (…, N, C, H, W)")
    return x

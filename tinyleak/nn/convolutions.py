"""Convolutions of every kind: in groups, dilated, padded per side, transposed.

`tinyleak.nn.conv2d`, on which all of them rest, is the plain one.
"""

import math
from collections.abc import Sequence

from tinyleak.nn import tiles
from tinyleak.nn.layers import as_row, channels_first, channels_last, convolve
from tinyleak.ops import concatenate, fold, pad, pad_to, reshape, split, transpose, unfold
from tinyleak.ops.window import Pair
from tinyleak.tensor import Tensor

Sides = tuple[Pair, Pair]
"""What is put above and below, and left and right."""


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair | Sides = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Convolve as `conv2d` does, in groups of channels, with windows that are spread out.

    Args:
        x: (…, N, C, H, W).
        weight: (…, O, C / groups, kH, kW).
        bias: (…, O).
        stride: how far the window moves, down and across.
        padding: zeros put above and below, left and right: one number for both, or one for each.
        dilation: how far apart the pixels of a window are, down and across.
        groups: the channels of x and the O are split so; each group is convolved by itself. With C
            of them, the convolution is depthwise.

    Returns:
        (…, N, O, oH, oW).

    Raises:
        ValueError: too few axes, channels that do not fit, or a window that does not fit the image.
    """
    if x.ndim < 4 or weight.ndim < 4 or x.shape[-3] != weight.shape[-3] * groups:
        raise ValueError(
            f"a convolution in {groups} groups was given images of shape {x.shape} and a weight of "
            f"shape {weight.shape}; it needs (…, N, C, H, W) and (…, O, C / groups, kH, kW)"
        )
    sides = [p if isinstance(p, tuple) else (p, p) for p in padding]
    y = channels_last(x)
    if dilation != (1, 1):
        return channels_first(_dilated(y, weight, bias, stride, sides, dilation, groups))
    if groups == 1 and stride == (1, 1) and tiles.pays(y, weight, sides):
        return channels_first(tiles.convolve_tiles(y, weight, bias, sides))
    if any(before != after for before, after in sides):
        y, sides = pad(y, [*sides, (0, 0)]), [(0, 0), (0, 0)]
    around = (sides[0][0], sides[1][0])
    return channels_first(_grouped(y, weight, bias, stride, around, groups))


def _grouped(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, groups: int
) -> Tensor:
    """Convolve each group of channels: one matrix product for each, (G, P, k·c) @ (G, k·c, o)."""
    if groups == 1:
        return convolve(x, weight, bias, stride, padding)
    *free, out_channels, inside, high, wide = weight.shape
    windows = unfold(x, (high, wide), stride=stride, padding=padding)
    *leading, batch, rows, columns = windows.shape[:-3]
    pixels, size = batch * rows * columns, high * wide
    lines = transpose(reshape(windows, (*leading, pixels, size, groups, inside)), (2, 0, 1, 3))
    by_group = reshape(weight, (*free, groups, out_channels // groups, inside, size))
    matrices = reshape(transpose(by_group, (2, 1, 0)), (*free, groups, size * inside, -1))
    out = reshape(lines, (*leading, groups, pixels, size * inside)) @ matrices
    out = reshape(transpose(out, (1, 0, 2)), (*out.shape[:-3], pixels, out_channels))
    out = out if bias is None else out + as_row(bias)
    return reshape(out, (*out.shape[:-2], batch, rows, columns, out_channels))


def _dilated(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    sides: Sequence[Pair],
    dilation: Pair,
    groups: int,
) -> Tensor:
    """Convolve every d-th pixel by itself: d² small images, whose windows are not spread out."""
    (down, across), (high, wide) = dilation, weight.shape[-2:]
    height, width = (n + sum(side) for n, side in zip(x.shape[-3:-1], sides, strict=True))
    if height <= down * (high - 1) or width <= across * (wide - 1):
        raise ValueError(
            f"a window of {(high, wide)} with dilation {dilation} does not fit an image of "
            f"{(height, width)}, padding counted; use a smaller one, or more padding"
        )
    (top, below), (left, right) = sides
    x = pad(x, [(top, below + -height % down), (left, right + -width % across), (0, 0)])
    *leading, batch, rows, columns, channels = x.shape
    split_up = (*leading, batch, rows // down, down, columns // across, across, channels)
    apart = transpose(reshape(x, split_up), (1, 3, 0, 2, 4))
    images = reshape(apart, (*leading, batch * down * across, *apart.shape[-3:]))
    out = _grouped(images, weight, bias, (1, 1), (0, 0), groups)
    *leading, _, rows, columns, channels = out.shape
    out = reshape(out, (*leading, batch, down, across, rows, columns, channels))
    together = (*leading, batch, rows * down, columns * across, channels)
    out = reshape(transpose(out, (2, 0, 3, 1, 4)), together)
    stops = (height - down * (high - 1), width - across * (wide - 1))
    kept = [slice(0, stop, step) for stop, step in zip(stops, stride, strict=True)]
    return out[(..., *kept, slice(None))]


def transposed_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    extra: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Return the adjoint of a convolution: every pixel adds a window to a larger image.

    Args:
        x: (…, N, C, H, W).
        weight: (…, C, O / groups, kH, kW).
        bias: (…, O).
        stride: how far windows are apart.
        padding: how much of the image is cut off, above and below, left and right.
        extra: rows and columns added below and right; PyTorch's `output_padding`.
        dilation: how far apart the pixels of a window are.
        groups: as for `convolution`.

    Returns:
        (…, N, O, oH, oW): `oH = (H − 1) · stride − 2 · padding + dilation · (kH − 1) + 1 + extra`.
    """
    size = tuple(d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[-2:], strict=True))
    if dilation != (1, 1):
        shape = (*weight.shape[:-2], *size)
        steps = (*(1 for _ in weight.shape[:-2]), *dilation)
        window = tuple((0, n, step) for n, step in zip(shape, steps, strict=True))
        weight = pad_to(weight, window=window, shape=shape)
    image = channels_last(x)
    *leading, batch, rows, columns, channels = image.shape
    outside = weight.shape[-3]
    grown = (
        (n - 1) * s - 2 * p + k + e
        for n, s, p, k, e in zip((rows, columns), stride, padding, size, extra, strict=True)
    )
    full = (next(grown), next(grown))
    lines = reshape(image, (*leading, batch * rows * columns, channels))
    found = []
    for part, kernel in zip(
        split(lines, (channels // groups,) * groups, -1),
        split(weight, (channels // groups,) * groups, -4),
        strict=True,
    ):
        matrix = reshape(
            transpose(kernel, (0, 2, 3, 1)), (*kernel.shape[:-3], math.prod(size) * outside)
        )
        out = part @ matrix
        windows = reshape(out, (*out.shape[:-2], batch, rows, columns, *size, outside))
        found.append(fold(windows, full, stride=stride, padding=padding))
    result = channels_first(concatenate(found, -1))
    return result if bias is None else result + reshape(bias, (*bias.shape[:-1], 1, -1, 1, 1))

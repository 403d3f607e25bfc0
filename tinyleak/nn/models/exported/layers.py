"""PyTorch's layers by the names that an exported graph has for them, with PyTorch's arguments.

Each takes the values that it reads as `Value`, and returns Tensors.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinyleak import nn
from tinyleak.backend import Array
from tinyleak.nn.models.exported.values import Ints, Value, require_room
from tinyleak.nn.pooling import resample
from tinyleak.ops import concatenate, reshape, split
from tinyleak.tensor import Tensor


def pair(numbers: int | Ints, axes: int, fill: int) -> tuple[int, int]:
    """Return a setting as (down, across): one number stands for both; of a series, across alone."""
    given = (numbers,) if isinstance(numbers, int) else numbers
    if len(given) not in (1, axes):
        raise ValueError(f"{given} was given for {axes} axes")
    full = given if len(given) == axes else given * axes
    return (full[0], full[1]) if axes == 2 else (fill, full[0])


def as_image(x: Tensor, axes: int) -> Tensor:
    """Return a series (…, C, T) as an image (…, C, 1, T), and an image as it is."""
    return x if axes == 2 else reshape(x, (*x.shape[:-1], 1, x.shape[-1]))


def as_before(x: Tensor, axes: int) -> Tensor:
    """Return what was made an image as a series again."""
    return x if axes == 2 else reshape(x, (*x.shape[:-2], x.shape[-1]))


def optional(value: Value | None) -> Tensor | None:
    """Return a parameter as layers take it, where there is one."""
    return None if value is None else value.weight


# Linear layers, convolutions.


def _linear(input: Value, weight: Value, bias: Value | None = None) -> Tensor:
    return input.each(1, lambda x: nn.linear(x, weight.weight, optional(bias)))


def _bilinear(input1: Value, input2: Value, weight: Value, bias: Value | None = None) -> Tensor:
    count = input2.shape[-1]
    both = concatenate([input1.tensor, input2.tensor], -1)

    def apply(rows: Tensor) -> Tensor:
        x, y = split(rows, (rows.shape[-1] - count, count), -1)
        return nn.bilinear(x, y, weight.weight, optional(bias))

    return Value(both, input1.rank).each(1, apply)


def _convolve(
    axes: int,
    transposed: bool,
    input: Value,
    weight: Value,
    bias: Value | None = None,
    stride: int | Ints = 1,
    padding: int | Ints | str = 0,
    dilation: int | Ints = 1,
    groups: int = 1,
    output_padding: int | Ints = 0,
) -> Tensor:
    w, b = as_image(weight.weight, axes), optional(bias)
    apart, steps = pair(dilation, axes, 1), pair(stride, axes, 1)
    around = 0 if isinstance(padding, str) else 2 * max(pair(padding, axes, 0))
    lengths = [
        n * step if transposed else n + around
        for n, step in zip(input.shape[-axes:], steps[-axes:], strict=True)
    ]
    require_room(*lengths, *weight.shape[1:], *apart * transposed)
    if isinstance(padding, str):
        widths = [
            d * (k - 1) if padding == "same" else 0
            for d, k in zip(apart, w.shape[-2:], strict=True)
        ]
        sides: Any = tuple((n // 2, n - n // 2) for n in widths)
    else:
        sides = pair(padding, axes, 0)
    settings = {
        "stride": steps,
        "padding": sides,
        "dilation": apart,
        "groups": groups,
        **({"extra": pair(output_padding, axes, 0)} if transposed else {}),
    }
    function: Any = nn.transposed_convolution if transposed else nn.convolution
    return input.each(
        axes + 1, lambda x: as_before(function(as_image(x, axes), w, b, **settings), axes)
    )


# Pooling.


def _pool_largest(
    axes: int,
    self: Value,
    kernel_size: int | Ints,
    stride: int | Ints = (),
    padding: int | Ints = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
) -> Tensor:
    kernel = pair(kernel_size, axes, 1)
    require_room(*self.shape, *kernel)
    out = nn.max_pool2d(
        as_image(self.tensor, axes),
        kernel,
        stride=pair(stride or kernel_size, axes, 1),
        padding=pair(padding, axes, 0),
        dilation=pair(dilation, axes, 1),
        ceil=ceil_mode,
    )
    return as_before(out, axes)


def _pool_average(
    axes: int,
    self: Value,
    kernel_size: int | Ints,
    stride: int | Ints = (),
    padding: int | Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    if divisor_override is not None:
        raise ValueError("a divisor of its own is not known here")
    out = nn.avg_pool2d(
        as_image(self.tensor, axes),
        pair(kernel_size, axes, 1),
        stride=pair(stride or kernel_size, axes, 1),
        padding=pair(padding, axes, 0),
        ceil=ceil_mode,
        count_padding=count_include_pad,
    )
    return as_before(out, axes)


def _pool_adaptively(axes: int, largest: bool, self: Value, output_size: int | Ints) -> Tensor:
    image, size = as_image(self.tensor, axes), pair(output_size, axes, 1)
    require_room(*image.shape[:-2], *size)
    pool = nn.adaptive_max_pool2d if largest else nn.adaptive_avg_pool2d
    return as_before(pool(image, size), axes)


def _upsample(
    mode: str,
    axes: int,
    input: Value,
    output_size: Ints | None = None,
    align_corners: bool = False,
    scale_factors: tuple[float, ...] | None = None,
) -> Tensor:
    """Sample an image anew on a grid, down and across; a factor that was said sets the step."""
    lengths = input.shape[-axes:]
    factors: Any = scale_factors or (None,) * axes
    sizes = output_size or [int(n * s) for n, s in zip(lengths, factors, strict=True)]
    require_room(*input.shape[:-axes], *sizes)
    weights = [
        _weights_of_samples(mode, n, k, 1.0 / f if f else n / k, ends=align_corners)
        for n, k, f in zip(lengths, sizes, factors, strict=True)
    ]
    rows, columns = (np.eye(1), *weights)[-2:]
    return as_before(resample(as_image(input.tensor, axes), rows, columns), axes)


def _weights_of_samples(mode: str, length: int, count: int, step: float, *, ends: bool) -> Array:
    """Return what each of so many samples of a line is made of: (count, length)."""
    places = np.arange(count)
    if mode != "linear":
        exact = 0.5 if mode == "nearest-exact" else 0.0
        return np.eye(length)[np.minimum(((places + exact) * step).astype(int), length - 1)]
    at = places * ((length - 1) / max(count - 1, 1)) if ends else (places + 0.5) * step - 0.5
    distance = np.abs(np.clip(at, 0.0, length - 1.0)[:, np.newaxis] - np.arange(length))
    return np.maximum(1.0 - distance, 0.0)


LAYERS: dict[str, Callable[..., Tensor]] = {
    "linear": _linear,
    "bilinear": _bilinear,
    "upsample_linear1d": partial(_upsample, "linear", 1),
    "upsample_bilinear2d": partial(_upsample, "linear", 2),
}
"""By PyTorch's name."""

for _axes in (1, 2):
    LAYERS |= {
        f"upsample_nearest{_axes}d": partial(_upsample, "nearest", _axes),
        f"_upsample_nearest_exact{_axes}d": partial(_upsample, "nearest-exact", _axes),
        f"conv{_axes}d": partial(_convolve, _axes, False),
        f"conv_transpose{_axes}d": partial(_convolve, _axes, True),
        f"max_pool{_axes}d": partial(_pool_largest, _axes),
        f"max_pool{_axes}d_with_indices": partial(_pool_largest, _axes),
        f"avg_pool{_axes}d": partial(_pool_average, _axes),
        f"adaptive_avg_pool{_axes}d": partial(_pool_adaptively, _axes, False),
        f"adaptive_max_pool{_axes}d": partial(_pool_adaptively, _axes, True),
    }

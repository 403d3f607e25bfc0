"""PyTorch's operations that only move numbers, by the names that an exported graph has for them.

Where a number comes from does not depend on it. So the operation is done once to the numbers'
places, whole numbers in an array of NumPy, and what it makes of these is looked up.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyleak import ops
from tinyleak.backend import Array, to_numpy
from tinyleak.nn.models.exported.values import Ints, Value, require_room
from tinyleak.tensor import Tensor


def moving(function: Callable[..., Array]) -> Callable[..., Tensor]:
    """Make an operation of a function of the numbers' places, and of PyTorch's arguments."""

    def operation(self: Value, **arguments: Any) -> Tensor:
        places = np.arange(math.prod(self.shape)).reshape(self.shape)
        found = function(places, *arguments.values())
        require_room(*found.shape)
        return ops.take(self.reshaped((places.size,)), found, axis=-1)

    return operation


def fixed(value: Value) -> Array:
    """Return an array of places that a network was written with, for NumPy."""
    if value.tensor.primitive is not None or value.tensor.dtype.kind == "f":
        raise ValueError("which numbers it picks depends on others, which is not known here")
    return to_numpy(value.tensor._array)


def _shuffle_channels(places: Array, groups: int) -> Array:
    n, channels, *size = places.shape
    grouped = places.reshape(n, groups, channels // groups, *size)
    return grouped.swapaxes(1, 2).reshape(places.shape)


def _shuffle_pixels(places: Array, upscale_factor: int) -> Array:
    k, (*lead, channels, h, w) = upscale_factor, places.shape
    blocks = np.moveaxis(places.reshape(*lead, channels // k**2, k, k, h, w), (-4, -3), (-3, -1))
    return blocks.reshape(*lead, channels // k**2, h * k, w * k)


def _unshuffle_pixels(places: Array, downscale_factor: int) -> Array:
    k, (*lead, channels, h, w) = downscale_factor, places.shape
    blocks = np.moveaxis(places.reshape(*lead, channels, h // k, k, w // k, k), (-3, -1), (-4, -3))
    return blocks.reshape(*lead, channels * k**2, h // k, w // k)


def _windows(places: Array, dimension: int, size: int, step: int) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(places, size, dimension)
    return np.moveaxis(np.moveaxis(windows, dimension, 0)[::step], 0, dimension)


def _tile(places: Array, repeats: Ints) -> Array:
    require_room(places.size, *repeats)
    return np.tile(places, repeats)


def _repeat(places: Array, repeats: int, dim: int | None = None, *_: Any) -> Array:
    require_room(places.size, repeats)
    return np.repeat(places, repeats, dim)


def _index(places: Array, indices: Sequence[Value | None]) -> Array:
    return places[tuple([slice(None) if one is None else fixed(one) for one in indices])]


def pad(self: Value, pad: Ints, mode: str = "constant", value: float | None = None) -> Tensor:
    """Return it with so much around it, the last axis's two sides first; below 0 is cut off."""
    widths = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    require_room(
        *self.shape,
        *[
            n + max(0, a) + max(0, b)
            for n, (a, b) in zip(self.shape[-len(widths) :], widths, strict=True)
        ],
    )
    if mode == "constant":
        inner = ops.crop(self.tensor, [(max(0, -a), max(0, -b)) for a, b in widths])
        outer = [(max(0, a), max(0, b)) for a, b in widths]
        padded = ops.pad(inner, outer)
        if not value:
            return padded
        around = np.pad(np.zeros(inner.shape[-len(widths) :]), outer, constant_values=value)
        return padded + Tensor(around)
    names = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    full = [(0, 0)] * (self.rank - len(widths)) + widths
    return moving(lambda places: np.pad(places, full, names[mode]))(self)  # type: ignore[call-overload]


def windows_of_images(
    self: Value, kernel_size: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> Tensor:
    """Return all windows of images (N, C, H, W), each a column: (N, C·kH·kW, number)."""
    sides = tuple([n for n in padding[::-1] for _ in range(2)])
    image = Value(pad(self, sides), self.rank)

    def function(places: Array) -> Array:
        for axis, (size, apart, step) in enumerate(
            zip(kernel_size, dilation, stride, strict=True), start=2
        ):
            places = _windows(places, axis, apart * (size - 1) + 1, step)[..., ::apart]
        columns = np.moveaxis(places, (-2, -1), (2, 3))
        return columns.reshape(len(places), math.prod(columns.shape[1:4]), -1)

    return moving(function)(image)


MOVES: dict[str, Callable[..., Tensor]] = {
    "roll": moving(lambda places, shifts, dims=(): np.roll(places, shifts, dims or None)),
    "flip": moving(np.flip),
    "rot90": moving(np.rot90),
    **{"repeat": moving(_tile), "tile": moving(_tile), "repeat_interleave": moving(_repeat)},
    "movedim": moving(np.moveaxis),
    "diagonal": moving(np.diagonal),
    "index_select": moving(lambda places, dim, index: np.take(places, fixed(index), dim)),
    "index": moving(_index),
    "channel_shuffle": moving(_shuffle_channels),
    "pixel_shuffle": moving(_shuffle_pixels),
    "pixel_unshuffle": moving(_unshuffle_pixels),
    "unfold": moving(_windows),
    "im2col": windows_of_images,
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
}
"""By PyTorch's name."""

"""Moments of an attack: which to show, and how an image becomes something to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tinyleak.backend import Array

Floats: TypeAlias = npt.NDArray[np.floating[Any]]


class Frame(NamedTuple):
    """One moment of an attack.

    iteration: the optimiser's count.
    images: the reconstruction, (N, C, H, W), meant to lie in [0, 1], C = 1 (grey) or 3 (RGB).
    mse: mean squared error of each image, (N,), or None where the truth is not known.
    distance: the distance between the gradients.
    """

    iteration: int
    images: Array
    mse: Array | None
    distance: float


def choose_frames(frames: Sequence[Frame], count: int = 8) -> list[Frame]:
    """Return `count` frames (all, if there are fewer) spaced so that the emergence shows.

    The first and the last are among them. The others are evenly spaced in the fourth root of the
    mean squared difference that remains to the last frame's pixels: a linear scale would spend
    most frames on noise, a logarithm on differences that no eye sees.

    Raises:
        ValueError: no frame, a count below 2, or frames that `check_frames` refuses.
    """
    check_frames(frames)
    if count < 2:
        raise ValueError(f"{count} frames were asked for; ask for at least 2, the first and last")
    if len(frames) <= count:
        return list(frames)
    last = on_screen(frames[-1].images)
    remaining = np.array([np.mean((on_screen(frame.images) - last) ** 2) for frame in frames])
    # The least so far: a step back on the way is not progress.
    remaining = np.minimum.accumulate(remaining) ** 0.25
    targets = np.linspace(remaining[0], 0, count)[:-1]
    chosen = sorted({int(np.argmax(remaining <= target)) for target in targets} | {len(frames) - 1})
    # A sudden change, or none, reaches several targets at once: spread the frames that are left.
    while len(chosen) < count:
        gap = int(np.argmax(np.diff(chosen)))
        chosen.insert(gap + 1, (chosen[gap] + chosen[gap + 1]) // 2)
    return [frames[index] for index in chosen]


def check_frames(frames: Sequence[Frame], truth: Array | None = None) -> None:
    """Refuse frames, and a truth beside them, that cannot be drawn.

    Raises:
        ValueError: no frame; images that are not (N, C, H, W) with C = 1 or 3; shapes that differ;
            errors that are not one for each image.
    """
    if not frames:
        raise ValueError("there is no frame to draw; give at least one")
    shape = frames[0].images.shape
    if len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
        raise ValueError(
            f"images of shape {shape} cannot be drawn; give (N, C, H, W) with C = 1 or 3"
        )
    if truth is not None and truth.shape != shape:
        raise ValueError(
            f"the truth has shape {truth.shape} and the images {shape}; give both one shape"
        )
    for frame in frames:
        if frame.images.shape != shape:
            raise ValueError(
                f"the images of iteration {frame.iteration} have shape {frame.images.shape}, "
                f"those of the first frame {shape}; give all frames one shape"
            )
        if frame.mse is not None and frame.mse.shape != shape[:1]:
            raise ValueError(
                f"the MSE of iteration {frame.iteration} has shape {frame.mse.shape}; "
                f"give one for each image, {shape[:1]}"
            )


def on_screen(images: Array) -> Floats:
    """Return images as a screen shows them: clipped to [0, 1], NaN a middle grey."""
    return np.clip(np.nan_to_num(images, nan=0.5), 0, 1)


def pixels(image: Array) -> Floats:
    """Return an image (C, H, W) in matplotlib's layout: (H, W) if grey, else (H, W, 3)."""
    shown = on_screen(image)
    return shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0)


def tile(images: Array) -> Floats:
    """Lay images (N, C, H, W) out in a near-square grid, white between them: (C, H', W')."""
    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.ones((channels, rows * (height + 1) - 1, columns * (width + 1) - 1))
    for index, image in enumerate(images):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        grid[:, top : top + height, left : left + width] = image
    return grid


def number(value: float) -> str:
    """Write a number to two figures, as a person would: 0.053, 3.2×10⁻⁵, 10⁻³."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 0.01 <= abs(value) < 99.5:
        return f"{value:.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1.0" else f"{mantissa}×{power}"

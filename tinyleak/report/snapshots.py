"""Moments of an attack: which to show, and how their images are made ready for the screen."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from tinyleak.backend import Array
from tinyleak.metrics import match_batch, mse
from tinyleak.report.canvas import on_screen

DARKEST, LIGHTEST = -0.25, 1.25
"""Pixels beyond these show that the client normalised its images: data in [0, 1] is found to within
0.25 long before an attack ends well."""


class SnapshotLike(Protocol):
    """A moment of an attack: images (N, C, H, W) and the distance after an iteration."""

    @property
    def iteration(self) -> int: ...
    @property
    def images(self) -> Array: ...
    @property
    def distance(self) -> float: ...


class Shown(NamedTuple):
    """A moment that can be drawn."""

    iteration: int  # the optimiser's count
    images: Array  # (N, C, H, W), C = 1 (grey) or 3 (RGB), black at 0 and white at 1
    distance: float  # between the gradients
    mse: Array | None  # (N,), the error of each image, or None where the truth is not known


def prepare(
    snapshots: Sequence[SnapshotLike], truth: Array | None = None
) -> tuple[list[Shown], Array, Array | None]:
    """Return moments of an attack and the truth as they are drawn, and the order of images, (N,).

    An attack finds a batch in any order: the images are put in that in which the last fit the truth
    best. No snapshot, images that are not (N, C, H, W), and shapes that differ are
    a ValueError.
    """
    if not snapshots:
        raise ValueError("there is no snapshot to draw; give at least one")
    shape = snapshots[0].images.shape
    require_images(shape, truth)
    for one in snapshots:
        if one.images.shape != shape:
            raise ValueError(
                f"the images of iteration {one.iteration} have shape {one.images.shape}, those of "
                f"the first snapshot {shape}; give all snapshots one shape"
            )
    found = snapshots[-1].images
    order = np.arange(len(found)) if truth is None else match_batch(found, truth)
    reference = found if truth is None else truth
    shown = []
    for one in snapshots:
        images = one.images[order]
        errors = None if truth is None else mse(images, truth)
        drawn = picture(scaled(images, reference))
        shown.append(Shown(one.iteration, drawn, one.distance, errors))
    return shown, order, None if truth is None else picture(scaled(truth, reference))


def require_images(shape: tuple[int, ...], truth: Array | None = None) -> None:
    """Refuse, with ValueError, what is not (N, C, H, W), or unlike the truth."""
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"images of shape {shape} cannot be drawn; give (N, C, H, W)")
    if truth is not None and truth.shape != shape:
        raise ValueError(
            f"the truth has shape {truth.shape} and the images {shape}; give both one shape"
        )


def picture(images: Array) -> Array:
    """Return inputs (N, C, H, W) as they are drawn: grey, or in colour where C is 3.

    The channels of what is no picture, such as those of a series, stand below each other in grey.
    """
    count, channels, height, width = images.shape
    if channels == 1 or (channels == 3 and height > 1):
        return images
    return images.reshape(count, 1, channels * height, width)


def pixel_range(images: Array) -> tuple[float, float]:
    """Return which pixels are drawn black and white: 0 and 1, unless the client normalised them."""
    low, high = float(images.min()), float(images.max())
    usual = low >= DARKEST and high <= LIGHTEST
    return (0.0, 1.0) if usual or not -np.inf < low < high < np.inf else (low, high)


def scaled(images: Array, reference: Array) -> Array:
    """Return images with the reference's `pixel_range` at 0 and 1: that of the truth, if known."""
    low, high = pixel_range(reference)
    return (images - low) / (high - low)


def choose(moments: Sequence[Shown], count: int = 8) -> list[Shown]:
    """Return `count` moments (all, if there are fewer) spaced so that the emergence shows.

    The first and the last are among them: a count below 2 is a ValueError. The others are evenly
    spaced in the fourth root of the mean squared difference that remains to the last one's pixels:
    a linear scale would spend most of them on noise, a logarithm on differences that no eye sees.
    """
    if count < 2:
        raise ValueError(f"{count} moments were asked for; ask for at least 2, the first and last")
    if len(moments) <= count:
        return list(moments)
    last = on_screen(moments[-1].images)
    remaining = np.array([np.mean((on_screen(one.images) - last) ** 2) for one in moments])
    # The least so far: a step back on the way is not progress.
    remaining = np.minimum.accumulate(remaining) ** 0.25
    targets = np.linspace(remaining[0], 0, count)[:-1]
    chosen = sorted(
        {int(np.argmax(remaining <= target)) for target in targets} | {len(moments) - 1}
    )
    # A sudden change, or none, reaches several targets at once: spread those that are left.
    while len(chosen) < count:
        gap = int(np.argmax(np.diff(chosen)))
        chosen.insert(gap + 1, (chosen[gap] + chosen[gap + 1]) // 2)
    return [moments[index] for index in chosen]

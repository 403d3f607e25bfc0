"""Typical images to measure at: built-in digits, other data, or the user's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyleak.analytic.probes import logits_of
from tinyleak.backend import Array
from tinyleak.data import Dataset, load_glyphs
from tinyleak.interop import as_array
from tinyleak.nn.model import Model

MOST = 200  # typical images used: the variance of a pixel is then known to √(2/200), 10 %


def typical(
    model: Model,
    params: Mapping[str, Array],
    source: Dataset | Any | None = None,
    labels: Sequence[int] | Array | None = None,
) -> Dataset:
    """Return images that fit the network, made from a source of any size, `MOST` at most.

    They are resized, and grey becomes colour, or colour grey, where that is needed. If the source
    has no labels, or counts other classes than the network, the network's own answers are taken.

    Args:
        model: the network.
        params: its weights, by name.
        source: where the images come from: a data set, or an array (M, C, H, W) of pixels in
            [0, 1]; by default the built-in digits.
        labels: (M,), of an array; a data set has its own.

    Raises:
        ValueError: other pixels or shapes; labels without images, or out of range.
    """
    if labels is not None and (source is None or isinstance(source, Dataset)):
        raise ValueError("labels of typical images were given, but no array of images; give both")
    if source is None:
        source = load_glyphs()
    elif not isinstance(source, Dataset):
        images = as_array(source)
        classes = 1 if labels is None else model.classes
        labels = np.zeros(len(images), np.int64) if labels is None else np.asarray(labels)
        source = Dataset("images", images, labels, classes)
    if not len(source):
        raise ValueError("0 typical images were given; give at least one")
    low, high = float(source.images.min()), float(source.images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"typical images have pixels from {low:g} to {high:g}; scale them to 0..1")
    images = np.stack([_fit(image, model.image_shape) for image in source.images[:MOST]])
    if source.classes == model.classes:
        return Dataset(source.name, images, source.labels[:MOST], model.classes)
    answers = logits_of(model, params, images).argmax(axis=-1).astype(np.int64)
    return Dataset(f"{source.name}, labelled by the network itself", images, answers, model.classes)


def pixel_variance(images: Array) -> float:
    """Return the variance of a pixel around the mean of such images (M, C, H, W).

    That is what remains unknown of a pixel to somebody who knows what such images look like. Of a
    single image it is the variance among its pixels.
    """
    if len(images) == 1:
        return float(images.var())
    return float(images.var(axis=0, ddof=1).mean())


def _fit(image: Array, shape: tuple[int, int, int]) -> Array:
    """Return an image (C, H, W) in another shape."""
    channels, height, width = shape
    if image.shape[1:] != (height, width):
        from PIL import Image

        planes = [
            np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height)))
            for plane in image
        ]
        image = np.clip(np.stack(planes), 0.0, 1.0).astype(float)
    if len(image) != channels:
        image = np.broadcast_to(image.mean(axis=0), shape)
    return image

"""Typical images to measure at: built-in digits, other data, or the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tinyleak.analytic.probes import logits_of
from tinyleak.backend import Array
from tinyleak.data import Dataset
from tinyleak.nn.model import Model

MOST = 200
"""Images that are looked at; more would not say much more about how pixels vary."""


def typical(
    model: Model, params: Mapping[str, Array], source: Dataset, *, labelled: bool = True
) -> Dataset:
    """Return images that fit the network, made from a source of any size, `MOST` at most.

    They are resized, and grey becomes colour, or colour grey, where that is needed. Where the
    source's labels are not the network's classes, the network's own answers stand for them.

    Args:
        model: the network.
        params: its weights, by name.
        source: where the images come from.
        labelled: whether the source's labels are meant to be the network's.
    """
    images = np.stack([_fit(image, model.image_shape) for image in source.images[:MOST]])
    if labelled and source.classes == model.classes:
        return replace(source, images=images, labels=source.labels[:MOST])
    answers = logits_of(model, params, images).argmax(axis=-1)
    return Dataset(source.name, images, answers.astype(np.int64), model.classes)


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

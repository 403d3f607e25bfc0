"""Probes: images in place of a client's, to see what its network predicts for images in general."""

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np

from tinyleak.backend import Array, to_numpy
from tinyleak.interop import as_array
from tinyleak.nn.model import Model
from tinyleak.tensor import Tensor

PROBES = 512  # how many a mean is over: it is then known to 1/√512, 4 % of how far they differ

AT_ONCE = 64
"""How many images are shown to the network at once, so that its activations fit into memory."""

KEPT = 2
"""Of how many networks the logits are kept: a client's loss and its labels ask for the same, and so
do all clients of one round."""

_kept: dict[tuple[int, bytes], tuple[Model, Array]] = {}


def probe_logits(model: Model, params: Mapping[str, Array]) -> Array:
    """Return the network's logits for smooth noise in place of a client's images: (M, K).

    They are read-only, and kept by the object that the model is and the numbers in its weights.
    """
    digest = blake2b()
    for name in model.shapes:
        digest.update(np.ascontiguousarray(to_numpy(as_array(params[name])), float).data)
    key = (id(model), digest.digest())  # no other model has that id while this one is kept
    if (kept := _kept.get(key)) is not None:
        return kept[1]
    logits = logits_of(model, params, smooth_noise(model.image_shape))
    logits.flags.writeable = False
    _kept[key] = model, logits
    while len(_kept) > KEPT:
        del _kept[next(iter(_kept))]
    return logits


def smooth_noise(image_shape: tuple[int, int, int], count: int = PROBES) -> Array:
    """Draw smooth noise, cut off so that much of it is black as images are: (count, C, H, W).

    What is one pixel high and of one channel is a table's row: its numbers are independent, of
    mean 0 and variance 1, as most tables are made before they are learned from.
    """
    rng = np.random.default_rng(0)
    channels, height, width = image_shape
    if channels == height == 1:
        return rng.standard_normal((count, *image_shape))
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    noise = rng.standard_normal((count, channels, height, width))
    radius = rng.uniform(1, 4, (count, 1, 1, 1))  # of the blur, in pixels
    blurred = np.fft.irfft2(
        np.fft.rfft2(noise) * np.exp(-2 * (np.pi * radius * frequency) ** 2), s=(height, width)
    )
    spread = blurred.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(blurred / spread - rng.uniform(-0.5, 2, (count, 1, 1, 1)), 0, 1)


def logits_of(model: Model, params: Mapping[str, Array], images: Array) -> Array:
    """Return the network's logits for images (M, C, H, W): (M, K), in float64.

    Raises:
        ValueError: the images do not fit the model, or there are none.
    """
    images = as_array(images)
    if images.ndim != 4 or images.shape[1:] != model.image_shape or len(images) == 0:
        raise ValueError(
            f"probes of shape {images.shape} were given; {model} needs (M, *{model.image_shape})"
        )
    own = {name: to_numpy(as_array(params[name])).astype(float) for name in model.shapes}
    weights = {name: Tensor(array) for name, array in own.items()}
    return np.concatenate(
        [
            model(weights, Tensor(np.asarray(images[start : start + AT_ONCE], dtype=float))).data
            for start in range(0, len(images), AT_ONCE)
        ]
    )

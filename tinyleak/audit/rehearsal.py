"""A rehearsal: the attack itself, on a simulated client with a typical image.

A forecast says what a gradient determines, and nothing of what stops a search on the way to it:
kinks, as those of ReLU and max pooling, do. Whether they do in this network can be tried without
any client, on its own weights.
"""

import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tinyleak.attacks import Settings, attack
from tinyleak.attacks.result import Reconstruction
from tinyleak.backend import Array
from tinyleak.client import Client
from tinyleak.client.local import shared_gradients
from tinyleak.interop import as_array
from tinyleak.metrics import matched_mse
from tinyleak.nn.model import Model


class Rehearsal(NamedTuple):
    """How an attack on a simulated client ended."""

    mse: float  # of a pixel, the mean over the batch
    seconds: float  # of the processor


def rehearse(
    model: Model,
    params: Mapping[str, Array],
    images: Array,
    targets: Array,
    *,
    dtype: str = "float32",
    settings: Settings | None = None,
) -> Rehearsal:
    """Attack a client that has these images, and shares their gradient as such clients do.

    Args:
        model: the network.
        params: its weights, by name.
        images: (N, C, H, W).
        targets: (N, K), labels as rows of probabilities.
        dtype: in which the client computes, "float32" or "float64".
        settings: of the attack.

    Raises:
        ValueError: no images, or another number of targets than images; as `attack`.
    """
    images, targets = as_array(images), as_array(targets)
    if len(images) != len(targets) or not len(images):
        raise ValueError(
            f"a rehearsal was given {len(images)} images and {len(targets)} targets; give one of "
            "each, 1 or more"
        )
    weights = {name: np.asarray(array).astype(dtype) for name, array in params.items()}
    numbers = (images.astype(dtype), targets.astype(dtype))
    gradients = shared_gradients(model, weights, *numbers, None)
    began, batch = time.process_time(), len(images)
    client = Client.of(model, weights, gradients, batch=batch, reduction="mean", dtype=dtype)
    found = _attacked(client, settings or Settings())
    seconds = time.process_time() - began
    return Rehearsal(float(np.mean(matched_mse(found.images, images))), seconds)


def _attacked(client: Client, settings: Settings) -> Reconstruction:
    """Attack by features where a layer shows any, else as is usual."""
    try:
        return attack(client, start="features", settings=settings)
    except ValueError:
        return attack(client, settings=settings)

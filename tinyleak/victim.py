"""A client that shares its gradient: data and weights in, gradient out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.attack.matching import Model, parameter_gradients
from tinyleak.backend import Array
from tinyleak.nn.losses import one_hot
from tinyleak.tensor import Tensor


@dataclass(frozen=True)
class Victim:
    """A client, with the truth that an attack is judged by.

    Attributes:
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,).
        params: the weights, by name.
        gradients: the gradient of the mean cross-entropy by each weight: what the client shares.
    """

    images: Array
    labels: Array
    params: dict[str, Array]
    gradients: dict[str, Array]


def share(
    model: Model,
    params: Mapping[str, Array],
    images: Array,
    labels: Sequence[int] | Array,
    *,
    dtype: str = "float64",
) -> Victim:
    """Compute the gradient that a client with this batch would share.

    Args:
        model: the network.
        params: its weights, by name.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) whole numbers.
        dtype: in which the client computes, "float64" or "float32".

    Raises:
        ValueError: images that do not fit the model, a label out of range, or another number of
            labels than images.
    """
    numbers = np.asarray(labels)
    if images.ndim != 4 or images.shape[1:] != model.image_shape or len(images) != len(numbers):
        raise ValueError(
            f"a client was given images of shape {images.shape} and {len(numbers)} labels; "
            f"{model} needs (N, *{model.image_shape}) and N labels"
        )
    weights = {name: Tensor(np.asarray(array, dtype=dtype)) for name, array in params.items()}
    batch = Tensor(np.asarray(images, dtype=dtype))
    targets = Tensor(one_hot(numbers, model.classes, dtype))
    gradients = parameter_gradients(model, weights, batch, targets)
    return Victim(
        images,
        numbers,
        {name: weight.data for name, weight in weights.items()},
        {name: gradient.data for name, gradient in gradients.items()},
    )

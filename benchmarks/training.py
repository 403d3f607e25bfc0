"""Training: gradient descent with momentum, on replayed programs, with defences on the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyleak.defenses import Defense, need_examples, protect
from tinyleak.nn import one_hot
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.program import trace
from tinyleak.tensor import Tensor

DTYPE = "float32"


def train(
    model: Model,
    params: dict[str, np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    *,
    steps: int,
    batch: int = 32,
    rate: float = 0.1,
    momentum: float = 0.9,
    defenses: Sequence[Defense] = (),
) -> dict[str, np.ndarray]:
    """Return the parameters after so many steps, each with the defended gradient of a batch.

    Args:
        model: the network.
        params: where to start.
        images: (M, C, H, W) to draw batches from.
        labels: (M,).
        rng: decides the batches and the noise.
        steps: how many.
        batch: images to a batch.
        rate: of learning.
        momentum: how much of the last step is made again.
        defenses: what is done to each gradient before it is used.
    """
    params = {name: value.astype(DTYPE) for name, value in params.items()}
    names = list(params)
    # A leading axis keeps the examples' gradients apart: as many batches of one image.
    leading = (batch, 1) if need_examples(defenses) else (batch,)
    copies = leading[:-1]

    def gradients(images: Tensor, targets: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, weights, strict=True))
        return tuple(parameter_gradients(model, named, images, targets).values())

    def arguments() -> list[np.ndarray]:
        chosen = rng.integers(len(images), size=batch)
        pixels = images[chosen].reshape(*leading, *images.shape[1:])
        targets = one_hot(labels[chosen], model.classes).reshape(*leading, -1)
        weights = [np.broadcast_to(w, (*copies, *w.shape)) for w in params.values()]
        return [array.astype(DTYPE) for array in (pixels, targets, *weights)]

    program = trace(gradients, *arguments(), check=False)
    velocity = {name: np.zeros_like(value) for name, value in params.items()}
    for _ in range(steps):
        found = dict(zip(names, program(*arguments()), strict=True))
        shared = protect(defenses, found, rng)
        for name in names:
            velocity[name] = momentum * velocity[name] - rate * shared[name]
            params[name] = params[name] + velocity[name]
    return params


def accuracy(
    model: Model, params: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray
) -> float:
    """Return which fraction of the images the network labels right."""
    weights = {name: Tensor(value.astype(DTYPE)) for name, value in params.items()}
    right = 0
    for start in range(0, len(images), 250):
        part = slice(start, start + 250)
        logits = model(weights, Tensor(images[part].astype(DTYPE))).data
        right += int((logits.argmax(axis=-1) == labels[part]).sum())
    return right / len(images)

"""What the page replays: a client's gradient, and the attack's objective, as programs.

Weights and gradients are arguments and not constants, so that one program serves every set of
weights and every defence.
"""

from typing import Any

import numpy as np

from tinyleak.attacks.extended import ExtendedMatching
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.program import Program, trace
from tinyleak.tensor import Tensor


def client_program(model: Model, batch: int) -> Program:
    """Return what a client computes.

    Its arguments are the images (N, C, H, W), the labels (N, K) as probabilities, and the weights
    in the model's order; it answers with the gradients in that order.
    """
    names = list(model.shapes)

    def gradients(images: Tensor, targets: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        params = dict(zip(names, weights, strict=True))
        return tuple(parameter_gradients(model, params, images, targets).values())

    images, targets = np.zeros((batch, *model.image_shape)), np.zeros((batch, model.classes))
    return trace(gradients, images, targets, *_of_shapes(model), check=False)


def objective_program(model: Model, batch: int, *, direction: bool) -> Program:
    """Return the distance that the attack minimises, and its gradient, as in `Matching`.

    Its arguments are the dummies z, (n,), the scale, (); then, each in the model's order, the
    weights, the shared gradients multiplied by the scale, and the precision of their entries. With
    `direction`, that of the shared gradient alone is matched.
    """
    count = len(model.shapes)

    def evaluate(z: Tensor, scale: Tensor, *arrays: Tensor) -> tuple[Tensor, Tensor]:
        parts = [arrays[start : start + count] for start in range(0, 3 * count, count)]
        params, shared, precision = (dict(zip(model.shapes, part, strict=True)) for part in parts)
        known: dict[str, Any] = {"params": params, "shared": shared, "scale": scale}
        known["precision"] = precision
        matching = ExtendedMatching(model, batch=batch, direction=direction, **known)
        return matching.value_and_gradient(z)

    size = batch * (int(np.prod(model.image_shape)) + model.classes)
    shapes = _of_shapes(model)
    with np.errstate(all="ignore"):  # of a made-up example, only the shapes count
        return trace(evaluate, np.zeros(size), np.ones(()), *shapes, *shapes, *shapes, check=False)


def _of_shapes(model: Model) -> list[np.ndarray]:
    return [np.ones(shape) for shape in model.shapes.values()]

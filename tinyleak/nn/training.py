"""Training a network to tell images apart, and counting how many it gets right.

Lesson: lessons/06b_training.py
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.random import Generator

from tinyleak.backend import Array
from tinyleak.interop import as_array, whole
from tinyleak.nn.criteria import one_hot
from tinyleak.nn.fitting import own_parameters
from tinyleak.nn.init import Parameters
from tinyleak.nn.losses import cross_entropy
from tinyleak.nn.model import Model
from tinyleak.nn.stochastic import Rate, Trained, descend
from tinyleak.tensor import Tensor

Protect: TypeAlias = Callable[[Parameters, Generator], Parameters]

AT_ONCE = 250
"""Images that `accuracy` looks at together: LeNet's windows of so many take 30 MB in float64."""


class Trainable(Model, Protocol):
    """A model that can draw weights to start from."""

    def init(self, rng: Generator) -> Parameters: ...


def train(
    model: Trainable,
    images: Any,
    labels: Any,
    *,
    params: Mapping[str, Any] | None = None,
    steps: int = 1000,
    batch: int = 32,
    learning_rate: Rate = 0.1,
    optimiser: str = "sgd",
    momentum: float = 0.9,
    seed: int | Generator = 0,
    dtype: str = "float32",
    protect: Protect | None = None,
    per_example: bool = False,
    progress: bool | None = None,
) -> Trained:
    """Train a network on random batches, by the mean cross-entropy.

    Args:
        model: the network.
        images: (M, C, H, W), to draw batches from; an array of any library, or lists.
        labels: (M,), whole numbers in [0, classes), likewise.
        params: where to start, by name; by default what `model.init` draws.
        steps: how many, 1 or more.
        batch: images to a batch, drawn with replacement.
        learning_rate: how far to step; or a function of the steps already made, from 0.
        optimiser: "sgd" or "adam".
        momentum: how much of the last direction is kept, in [0, 1).
        seed: decides the start, the batches, and the noise of `protect`.
        dtype: "float32" or "float64", of the computation and of the result.
        protect: takes each gradient by name and a generator, and returns what is used in its
            place; a defence, for example.
        per_example: give `protect` each example's own gradient, (batch, …), for it to average.
        progress: show a bar; by default where the standard error is a terminal.

    Raises:
        ValueError: images, labels or parameters do not fit the model, or are not finite;
            `per_example` without `protect`; a setting out of range.
        TypeError: images, labels or parameters that are not arrays of numbers.
    """
    images, labels = as_array(images), as_array(labels)
    if images.shape[1:] != model.image_shape or labels.shape != images.shape[:1] or not len(images):
        raise ValueError(
            f"train was given images of shape {images.shape} and labels of shape {labels.shape}; "
            f"the model needs (M, {', '.join(map(str, model.image_shape))}) and (M,), M at least 1"
        )
    if not np.isfinite(images).all():
        raise ValueError("the images hold NaN or infinity; training needs finite numbers")
    batch = whole(batch, 1, "a batch of {} was asked for; give at least 1")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype {dtype!r} is unknown; choose float32 or float64")
    if per_example and protect is None:
        raise ValueError("per_example needs a function to average the gradients; give protect")
    targets = one_hot(labels, model.classes, dtype)
    rng = np.random.default_rng(seed)
    start = own_parameters(model, model.init(rng) if params is None else params, "weights")
    # A leading axis keeps the examples' gradients apart: as many batches of one image.
    leading = (batch, 1) if per_example else (batch,)

    def draw() -> tuple[Array, Array]:
        chosen = rng.integers(len(images), size=leading)
        return images[chosen].astype(dtype), targets[chosen]

    return descend(
        lambda weights, batch: cross_entropy(model(weights, batch[0]), batch[1]),
        {name: array.astype(dtype) for name, array in start.items()},
        draw,
        steps=steps,
        learning_rate=learning_rate,
        optimiser=optimiser,
        momentum=momentum,
        protect=None if protect is None else lambda gradients: protect(gradients, rng),
        copies=leading[:-1],
        progress=progress,
    )


def accuracy(model: Model, params: Mapping[str, Any], images: Any, labels: Any) -> float:
    """Return the fraction, in [0, 1], of images (M, C, H, W) that a network labels right.

    The labels are (M,), whole numbers; all may be arrays of any library, or lists. A ValueError if
    there are no images, not as many labels, or parameters that do not fit; a TypeError for what is
    not an array of numbers.
    """
    images, labels = as_array(images), as_array(labels)
    if len(images) != len(labels) or not len(images):
        raise ValueError(
            f"accuracy was given {len(images)} images and {len(labels)} labels; give as many "
            "labels as images, at least 1"
        )
    own = own_parameters(model, params, "weights")
    weights = {name: Tensor(array) for name, array in own.items()}
    dtype = next(iter(own.values())).dtype
    right = 0
    for start in range(0, len(images), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        logits = model(weights, Tensor(images[part].astype(dtype))).numpy()
        right += int((logits.argmax(axis=-1) == labels[part]).sum())
    return right / len(images)

"""A client that shares its gradient: data and weights in, gradient out.

And, since here the client's data are known, how close an attack on that gradient came to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.client.local import LocalSteps
from tinyleak.defenses import Defense, need_examples, protect
from tinyleak.metrics import match_batch, mse, psnr
from tinyleak.nn.init import draw
from tinyleak.nn.losses import cross_entropy, one_hot
from tinyleak.nn.model import Model, parameter_gradients, require_fit
from tinyleak.tensor import Tensor
from tinyleak.transforms import per_example_gradients

RECOVERED_MSE = 1e-3
"""An image counts as recovered below this mean squared error, of pixels in [0, 1]."""


@dataclass(frozen=True)
class Victim:
    """A client, with the truth that an attack is judged by.

    Attributes:
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,).
        params: the weights, by name.
        gradients: the gradient of the mean cross-entropy by each weight, as the client shares it:
            after its defences; or, with local steps, (weights before − weights after) / learning
            rate.
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
    defenses: Sequence[Defense] = (),
    rng: np.random.Generator | None = None,
    local: LocalSteps | None = None,
) -> Victim:
    """Compute the gradient that a client with this batch would share.

    Args:
        model: the network.
        params: its weights, by name.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) whole numbers.
        dtype: in which the client computes, "float64" or "float32".
        defenses: what it does to the gradient, in order, before it shares it.
        rng: where the noise of its defences comes from.
        local: steps of SGD that it takes, to share their outcome instead of one gradient.

    Raises:
        ValueError: weights that do not fit the model or are not finite, images that do not fit it,
            none at all, a label out of range, another number of labels than images, an unknown
            dtype, or defences that do not go together or lack an rng, or that need each example's
            own gradient where local steps have only their sum.
    """
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype {dtype!r} is unknown; choose float64 or float32")
    require_fit(model, params, "weights")
    numbers = np.asarray(labels)
    fits = images.ndim == 4 and images.shape[1:] == model.image_shape and len(images) > 0
    if not fits or numbers.shape != (len(images),):
        raise ValueError(
            f"a client was given images of shape {images.shape} and {numbers.size} labels; "
            f"{model} needs (N, *{model.image_shape}) and N labels, N at least 1"
        )
    weights = {name: np.asarray(array, dtype=dtype) for name, array in params.items()}
    batch = np.asarray(images, dtype=dtype)
    targets = one_hot(numbers, model.classes, dtype)
    if need_examples(defenses):
        if local is not None:
            raise ValueError(
                "a defence needs each example's own gradient, but local steps have only their "
                "sum; leave one of the two out"
            )
        gradients = _example_gradients(model, weights, batch, targets)
    else:
        gradients = _gradients(model, weights, batch, targets, local)
    if defenses:
        if rng is None:
            raise ValueError("defences draw noise, but no rng was given; give one to share")
        gradients = protect(defenses, gradients, rng)
    return Victim(images, numbers, weights, gradients)


def _gradients(
    model: Model,
    weights: Mapping[str, Array],
    images: Array,
    targets: Array,
    local: LocalSteps | None = None,
) -> dict[str, Array]:
    """Return the gradient of the mean loss by each weight, or its sum over local steps."""

    def gradient(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return parameter_gradients(model, params, Tensor(images), Tensor(targets))

    params = {name: Tensor(weight) for name, weight in weights.items()}
    gradients = gradient(params) if local is None else local.update(params, gradient)
    return {name: gradient.data for name, gradient in gradients.items()}


def _example_gradients(
    model: Model, weights: Mapping[str, Array], images: Array, targets: Array
) -> dict[str, Array]:
    """Return each example's own gradient, (N, …) by name."""

    def loss(params: Mapping[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(model(params, image), target)

    gradients = per_example_gradients(loss, weights, images, targets)
    return {name: gradient.data for name, gradient in gradients.items()}


def simulate(
    model: Model,
    images: Array,
    labels: Sequence[int] | Array,
    *,
    seed: int = 0,
    scheme: str = "uniform",
    dtype: str = "float64",
    defenses: Sequence[Defense] = (),
    local: LocalSteps | None = None,
) -> Victim:
    """Return a client whose network has just been initialised, and who shares its gradient.

    The weights come from `numpy.random.default_rng([seed, 0])` and the noise of its defences from
    `[seed, 2]`, so that one seed given to this function and to `tinyleak.attacks.attack` means one
    experiment, here and on the command line, and weights, noise and start are still independent.

    Args:
        model: the network.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) whole numbers.
        seed: 0 or more.
        scheme: of the weights, one of `tinyleak.nn.init.SCHEMES`.
        dtype: in which the client computes, "float64" or "float32".
        defenses: what it does to the gradient, in order, before it shares it.
        local: steps of SGD that it takes, to share their outcome instead of one gradient.

    Raises:
        ValueError: an unknown scheme, or as `share` does.
    """
    params = draw(model.shapes, np.random.default_rng([seed, 0]), scheme)
    noise = np.random.default_rng([seed, 2])
    return share(
        model, params, images, labels, dtype=dtype, defenses=defenses, rng=noise, local=local
    )


@dataclass(frozen=True)
class Outcome:
    """A reconstruction beside the truth, image by image in the client's order.

    Attributes:
        order: (N,), which of the images found lies beside each of the client's.
        images: (N, C, H, W), found.
        labels: (N,), found.
        soft_labels: (N, K), the probabilities found.
        mse: (N,), mean squared errors.
        psnr: (N,), peak signal-to-noise ratios in dB.
        recovered: (N,), whether an image's MSE is below `RECOVERED_MSE` and its label is right.
    """

    order: Array
    images: Array
    labels: Array
    soft_labels: Array
    mse: Array
    psnr: Array
    recovered: Array

    @property
    def succeeded(self) -> bool:
        """Whether every image of the client was recovered, with its label."""
        return bool(self.recovered.all())


def judge(victim: Victim, found: Any) -> Outcome:
    """Compare what an attack found with what the client had, in the order that fits best.

    Raises:
        ValueError: another number or size of images than the client's.
    """
    # An order of one image needs no search, and so not the library that searches.
    alone = len(found.images) == 1
    order = np.zeros(1, np.int64) if alone else match_batch(found.images, victim.images)
    images, labels = found.images[order], found.labels[order]
    errors = mse(images, victim.images)
    return Outcome(
        order=order,
        images=images,
        labels=labels,
        soft_labels=found.soft_labels[order],
        mse=errors,
        psnr=psnr(images, victim.images),
        recovered=(errors < RECOVERED_MSE) & (labels == victim.labels),
    )

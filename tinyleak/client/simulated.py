"""A client that is simulated: data and weights in, gradient and truth out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.client.client import Client
from tinyleak.client.local import LocalSteps, shared_gradients
from tinyleak.client.loss import said_loss
from tinyleak.client.outcome import Truth
from tinyleak.defenses import Defense, as_defenses, need_examples, protect
from tinyleak.interop import as_array, whole
from tinyleak.nn.criteria import loss_of, one_hot
from tinyleak.nn.fitting import own_parameters
from tinyleak.nn.init import draw
from tinyleak.nn.model import Model
from tinyleak.tensor import Tensor
from tinyleak.transforms import per_example_gradients


def share(
    model: Model,
    params: Mapping[str, Any],
    images: Any,
    labels: Sequence[int] | Array,
    *,
    dtype: str = "float64",
    defenses: Sequence[Defense] = (),
    rng: np.random.Generator | None = None,
    local: LocalSteps | None = None,
) -> tuple[Client, Truth]:
    """Compute the gradient that a client with this batch would share.

    Args:
        model, images, labels, dtype, defenses, local: as `simulate` takes them.
        params: the network's weights, by name.
        rng: where the noise of its defences comes from.

    Returns:
        The client as an attacker sees it, and what is true of it. Both hold copies.

    Raises:
        ValueError: weights that do not fit the model or are not finite, images that do not fit it,
            none at all, a label out of range, another number of labels than images, an unknown
            dtype, or defences that do not go together or lack an rng, or that need each example's
            own gradient where local steps have only their sum.
        TypeError: weights or images that are not arrays of numbers, defences that are not objects.
    """
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype {dtype!r} is unknown; choose float64 or float32")
    own = own_parameters(model, params, "weights")
    weights = {name: array.astype(dtype) for name, array in own.items()}
    images, numbers = as_array(images, copy=True), as_array(labels, copy=True)
    fits = images.ndim == 4 and images.shape[1:] == model.image_shape and len(images) > 0
    if not fits or numbers.shape != (len(images),):
        raise ValueError(
            f"a client was given images of shape {images.shape} and {numbers.size} labels; "
            f"{model} needs (N, *{model.image_shape}) and N labels, N at least 1"
        )
    if not np.isfinite(images).all():
        raise ValueError("the images hold NaN or infinity; give pixels in [0, 1]")
    defenses, batch = as_defenses(defenses), images.astype(dtype)
    targets = one_hot(numbers, model.classes, dtype)
    if need_examples(defenses):
        if local is not None:
            raise ValueError(
                "a defence needs each example's own gradient, but local steps have only their "
                "sum; leave one of the two out"
            )
        gradients = _example_gradients(model, weights, batch, targets)
    else:
        gradients = shared_gradients(model, weights, batch, targets, local)
    if defenses:
        if rng is None:
            raise ValueError("defences draw noise, but no rng was given; give one to share")
        gradients = protect(defenses, gradients, rng)
    kind = getattr(model, "loss_name", "cross-entropy")
    several = None if local is None or local.count == 1 else local
    client = Client(
        model,
        weights,
        gradients,
        len(images),
        said_loss("mean", len(images), "the client is simulated", kind, model.classes),
        dtype,
        several,
    )
    return client, Truth(images, numbers)


def _example_gradients(
    model: Model, weights: Mapping[str, Array], images: Array, targets: Array
) -> dict[str, Array]:
    """Return each example's own gradient, (N, …) by name."""

    def loss(params: Mapping[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        return loss_of(model)(model(params, image), target)

    gradients = per_example_gradients(loss, weights, images, targets)
    return {name: gradient.data for name, gradient in gradients.items()}


def simulate(
    model: Model,
    images: Array,
    labels: Sequence[int] | Array,
    *,
    seed: int = 0,
    init: str = "uniform",
    dtype: str = "float64",
    defenses: Sequence[Defense] = (),
    local: LocalSteps | None = None,
) -> tuple[Client, Truth]:
    """Return a client whose network has just been initialised, and what is true of it.

    The weights come from `numpy.random.default_rng([seed, 0])` and the noise of its defences from
    `[seed, 2]`, so that one seed given to this function and to `tinyleak.attack` means one
    experiment, here and on the command line, and weights, noise and start are still independent.

    Args:
        model: the network.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) whole numbers.
        seed: 0 or more.
        init: how the weights are drawn, one of `tinyleak.nn.init.SCHEMES`; an exported network
            has the weights that were saved with it.
        dtype: in which the client computes, "float64" or "float32".
        defenses: what it does to the gradient, in order, before it shares it.
        local: steps of SGD that it takes, to share their outcome instead of one gradient: then
            `client.gradients` is (weights before − weights after) / learning rate.

    Raises:
        ValueError: an unknown initialisation, a seed below 0, or as `share` does.
        TypeError: a seed that is not a whole number, or as `share` does.
    """
    seed = whole(seed, 0, "seed {} was given; seeds are whole numbers from 0 on")
    own = getattr(model, "weights", None)
    params = own or draw(model.shapes, np.random.default_rng([seed, 0]), init)
    noise = np.random.default_rng([seed, 2])
    return share(
        model, params, images, labels, dtype=dtype, defenses=defenses, rng=noise, local=local
    )

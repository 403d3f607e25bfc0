"""Where an attack starts: dummies of noise, or images that the gradient shows."""

import math
from collections.abc import Mapping

import numpy as np

from tinyleak.attacks.attacker import SEED, Attacker
from tinyleak.attacks.features_first import features_first
from tinyleak.attacks.recursion import recursion
from tinyleak.attacks.shown import bias_of
from tinyleak.backend import Array
from tinyleak.client import Client
from tinyleak.interop import whole
from tinyleak.nn.model import Model
from tinyleak.nn.models import MLP, LeNet
from tinyleak.nn.models.as_trained import AsTrained, network_of
from tinyleak.nn.split import given_one_row


def starting_point(
    model: Model, batch: int, seed: int, restarts: int = 1, *, with_labels: bool = True
) -> Array:
    """Draw dummy images and dummy label logits from N(0, 1): (restarts, n), float64, by NumPy.

    The first start is the same however many follow, and the same on every device.

    Raises:
        ValueError: a seed below 0.
    """
    seed = whole(seed, 0, SEED)
    size = batch * (math.prod(model.image_shape) + (model.classes if with_labels else 0))
    return np.random.default_rng(seed).standard_normal((restarts, size))


def first_images(
    client: Client,
    attacker: Attacker,
    targets: Array | None,
    precision: Mapping[str, Array] | None,
) -> Array | None:
    """Return the images that the first start has in place of noise, (N, C, H, W), or None.

    Raises:
        ValueError: images that do not fit the client; a start that what it shared does not allow.
    """
    start, shape = attacker.start, (client.batch, *client.model.image_shape)
    if not isinstance(start, str):
        images = start
        if images.shape != shape or not np.isfinite(images).all():
            what = f"of shape {images.shape}" if images.shape != shape else "that are not finite"
            raise ValueError(
                f"images {what} were given to start from; the attack needs finite ones, {shape}"
            )
        return images
    # The paper's recipe starts from noise, and what is weighed or solved otherwise does as well.
    plain = attacker.settings.scale_free and attacker.method == "lbfgs"
    plain = plain and not attacker.defenses and attacker.precision is None
    if start == "noise" or (start == "auto" and not plain):
        return None
    if start in ("auto", "features"):
        found = features_first(client, attacker.seed, enough=start == "auto")
        if found is None and start == "features":
            raise ValueError(
                "--start features reads what one image gave a linear layer with a bias off the "
                f"gradient of one step; {_why_no_features(client)}: leave it out"
            )
        return found
    if client.local is not None:
        raise ValueError(
            "--start recursion reads the gradient of one step, but several local steps have "
            "only their sum; leave one of the two out"
        )
    if client.frozen:
        raise ValueError(
            "--start recursion goes through every layer, but some sent no gradient; leave it out"
        )
    if targets is None:
        raise ValueError(
            "--start recursion reads images off the gradient, for which labels must be known "
            "first; give --labels infer"
        )
    if not isinstance(client.model, LeNet | MLP):
        network, how = network_of(client.model), ""
        called = getattr(network, "name", f"a {type(network).__name__}")
        if isinstance(client.model, AsTrained):
            how = " whose images are normalised or whose loss is not cross-entropy"
        raise ValueError(
            "--start recursion goes backwards through a LeNet or an MLP trained by cross-entropy, "
            f"not through {called}{how}; leave it out"
        )
    assert client.last_layer is not None, "both of them end in a linear layer"
    labels = targets.argmax(axis=1)
    return recursion(client.last_layer, client.gradients, labels, variance=_variance(precision))


def _why_no_features(client: Client) -> str:
    if client.batch > 1 or client.local is not None:
        return "this client has several images or steps"
    rows = given_one_row(client.model, client.params)
    if not any(bias_of(weight) in client.model.shapes for weight in rows):
        return "this client has no such layer"
    return (
        "the layers of this client show nothing of its image: of each the gradient is zero, as "
        "where all of a ReLU's units are off, or what came into it"
    )


def _variance(precision: Mapping[str, Array] | None) -> float | None:
    """Return the mean variance of the noise that a precision stands for; None if it is of none."""
    kept = [one[one > 0] for one in (precision or {}).values()]
    # A precision of 1 is that of an entry without noise, beside others that were pruned.
    exact = all(bool((one == 1).all()) for one in kept)
    return None if exact else float(np.mean(1 / np.concatenate(kept)))

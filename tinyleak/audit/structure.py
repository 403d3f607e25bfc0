"""What can be said of a network before its gradient is differentiated: counts, layers, saturation.

Counting: R-GAP (Zhu and Blaschko 2021, section 4) and common sense; the first layer: Phong et al.
2018, section 3; the last: Zhao, Mopuri and Bilen, iDLG (2020). Tables of embeddings: `text`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.labels import NON_NEGATIVE
from tinyleak.analytic.layer_gradient import last_layer_names
from tinyleak.backend import Array
from tinyleak.gradient import topological_order
from tinyleak.nn.model import Model
from tinyleak.ops import sigmoid
from tinyleak.tensor import Tensor

FLAT_SHARE = 0.05
"""A unit is saturated where its activation is this much less steep than it can be."""


@dataclass(frozen=True)
class Counting:
    """Numbers that are shared beside numbers that are not known.

    Attributes:
        parameters: P, as many numbers as the gradient has.
        pixels: of one image.
        batch: N.
    """

    parameters: int
    pixels: int
    batch: int

    @property
    def unknowns(self) -> int:
        """The batch's pixels."""
        return self.batch * self.pixels

    @property
    def most_images(self) -> int:
        """How many images have no more pixels than the gradient has numbers."""
        return self.parameters // self.pixels


@dataclass(frozen=True)
class Finding:
    """One thing that the structure says.

    Attributes:
        name: what it is about: "activation", "first layer" or "last layer".
        leaks: whether it makes an attack easier; else it makes it harder.
        text: a sentence.
    """

    name: str
    leaks: bool
    text: str


@dataclass(frozen=True)
class Saturation:
    """How flat one layer's activation is at typical inputs.

    Attributes:
        activation: its name.
        units: how many numbers it was computed of, for one image.
        share: which part of them is saturated: less steep than `FLAT_SHARE` of the steepest.
    """

    activation: str
    units: int
    share: float


def count(model: Model, batch: int) -> Counting:
    """Return what stands against what."""
    parameters = sum(map(math.prod, model.shapes.values()))
    return Counting(parameters, math.prod(model.image_shape), batch)


def find(model: Model, batch: int) -> list[Finding]:
    """Return what the layers' kinds say about a batch of N images."""
    return [*_activation(model), *_first_layer(model, batch), *_last_layer(model, batch)]


def _activation(model: Model) -> list[Finding]:
    name = getattr(model, "activation", None)
    if name is None:
        return []
    if name == "relu":
        text = (
            "relu is not smooth: its second derivative is zero, so an attack that goes downhill "
            "on the distance between gradients seldom arrives, even where the gradient determines "
            "the image; attacks that solve for the image layer by layer are not hindered"
        )
        return [Finding("activation", False, text)]
    text = f"{name} is smooth: the distance between gradients can be followed downhill"
    return [Finding("activation", True, text)]


def _first_layer(model: Model, batch: int) -> list[Finding]:
    names = list(model.shapes)
    shape = model.shapes[names[0]]
    fully_connected = len(shape) == 2 and shape[1] == math.prod(model.image_shape)
    if not fully_connected:
        return []
    has_bias = len(names) > 1 and model.shapes[names[1]] == shape[:1]
    if not has_bias:
        text = (
            "the first layer is fully connected: every row of its gradient is a multiple of the "
            "image" + ("" if batch == 1 else ", or a mixture of the batch's")
        )
    elif batch == 1:
        text = (
            "the first layer is fully connected with a bias: the image is the ratio of their "
            "gradients, exactly, without any search"
        )
    else:
        text = (
            "the first layer is fully connected with a bias: each row of their gradients' ratio "
            "is a mixture of the images"
        )
        if getattr(model, "activation", None) == "relu":
            text += ", and with relu often one image alone"
    return [Finding("first layer", True, text)]


def _last_layer(model: Model, batch: int) -> list[Finding]:
    try:
        _, bias = last_layer_names(model)
    except ValueError:
        return []
    if batch > 1:
        text = "the last layer's gradient tells about how many images have which label"
    elif bias is not None:
        text = "the last layer has a bias: the sign of its gradient is the label"
    elif getattr(model, "activation", None) in NON_NEGATIVE:
        text = "the features before the last layer are not negative: the signs of its gradient's "
        text += "rows are the label"
    else:
        text = "the last layer has no bias: the row of its gradient that opposes all others is "
        text += "the label"
    return [Finding("last layer", True, text)]


def saturation(model: Model, params: Mapping[str, Array], images: Array) -> list[Saturation]:
    """Return how flat each activation is at these images, layer by layer.

    The graph of the logits lists every activation that was computed, whatever the network.

    Args:
        model: the network.
        params: its weights, by name.
        images: (N, C, H, W), typical ones.
    """
    weights = {name: Tensor(np.asarray(array, dtype=float)) for name, array in params.items()}
    logits = model(weights, Tensor(images))
    found = []
    for node in topological_order(logits):
        name = None if node.primitive is None else node.primitive.name
        if name in STEEPNESS:
            steepness = STEEPNESS[name](node.inputs[0].data)
            share = float((steepness < FLAT_SHARE).mean())
            found.append(Saturation(name, steepness.size // len(images), share))
    return found


def _steepness_of_sigmoid(x: Array) -> Array:
    s = sigmoid(Tensor(x)).data
    return 4 * s * (1 - s)


def _steepness_of_tanh(x: Array) -> Array:
    return 1 - np.tanh(x) ** 2


def _steepness_of_softplus(x: Array) -> Array:
    return sigmoid(Tensor(x)).data


def _steepness_of_relu(x: Array) -> Array:
    return (x > 0).astype(float)


STEEPNESS = {
    "sigmoid": _steepness_of_sigmoid,
    "tanh": _steepness_of_tanh,
    "softplus": _steepness_of_softplus,
    "relu": _steepness_of_relu,
}
"""By the primitive's name: the derivative at x, as a part of the largest that it has anywhere."""

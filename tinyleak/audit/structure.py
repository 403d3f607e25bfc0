"""What a network's structure implies for its gradient: counting, layers, saturated units.

Counting: R-GAP (Zhu and Blaschko 2021, section 4); the first layer: Phong et al. 2018, section 3;
the last layer: Zhao, Mopuri and Bilen, iDLG (2020).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.labels import NON_NEGATIVE
from tinyleak.analytic.last_layer import ends_linear, last_layer_names
from tinyleak.backend import Array
from tinyleak.client.facts import listed
from tinyleak.gradient import topological_order
from tinyleak.nn.activations import PIECEWISE_LINEAR
from tinyleak.nn.criteria import loss_of
from tinyleak.nn.losses import cross_entropy
from tinyleak.nn.model import Model
from tinyleak.ops import sigmoid
from tinyleak.tensor import Tensor

FLAT = 0.05
"""A unit is saturated where its activation's slope is less than this part of the steepest: what it
passes on is then weaker by a factor of 20, and with two such layers by 400."""


@dataclass(frozen=True)
class Counting:
    """Numbers that are shared beside numbers that are not known."""

    parameters: int  # P, how many numbers the gradient has
    independent: int  # how many of them are not determined by the others
    pixels: int  # of one image
    batch: int  # N

    @property
    def unknowns(self) -> int:
        """The batch's pixels."""
        return self.batch * self.pixels

    @property
    def most_images(self) -> int:
        """How many images have no more pixels than the gradient has independent numbers."""
        return self.independent // self.pixels


@dataclass(frozen=True)
class Finding:
    """One thing that follows from the structure."""

    about: str  # "activation", "frozen", "first layer" or "last layer"
    leaks: bool  # whether it makes an attack easier; otherwise it makes it harder
    text: str  # a sentence


@dataclass(frozen=True)
class Saturation:
    """How flat one layer's activation is at typical inputs."""

    activation: str  # its name
    units: int  # how many units the layer has for one image
    share: float  # of them that is saturated: their slope is less than `FLAT` of the steepest


def count(model: Model, batch: int, frozen: Sequence[str] = ()) -> Counting:
    """Count what is shared and what is unknown, for a batch of N images, less what is frozen.

    The rows of a linear last layer's gradient add up to zero, since the softmax cross-entropy does
    not change if all logits rise together: one of its K rows follows from the others. So it is of
    no other loss.
    """
    sizes = {k: 0 if k in frozen else math.prod(shape) for k, shape in model.shapes.items()}
    total = sum(sizes.values())
    zero_sum = ends_linear(model) and loss_of(model) is cross_entropy
    last = last_layer_names(model) if zero_sum else ()
    row = sum(sizes[name] for name in last if name is not None) // model.classes
    return Counting(total, total - row, math.prod(model.image_shape), batch)


def find(model: Model, batch: int, frozen: Sequence[str] = ()) -> list[Finding]:
    """Return what follows from the kinds of layers for the gradient of a batch of N images.

    Nothing is shared of parameters that are frozen.
    """
    found = _activation(model)
    if frozen:
        text = f"{listed(frozen)} sent no gradient: what they would show is not counted"
        found.append(Finding("frozen", False, text))
    found += [] if next(iter(model.shapes)) in frozen else _first_layer(model, batch)
    return found if list(model.shapes)[-1] in frozen else found + _last_layer(model, batch)


def _activation(model: Model) -> list[Finding]:
    name = getattr(model, "activation", None)
    if name is None:
        return []
    smooth = name not in PIECEWISE_LINEAR
    text = f"{name} is smooth: the distance between gradients can be followed downhill"
    if not smooth:
        text = (
            f"{name} is not smooth: its second derivative is zero, so an attack that goes downhill "
            "on the distance between gradients seldom arrives, even where the gradient determines "
            "the image; attacks that solve for the image layer by layer are not hindered"
        )
    return [Finding("activation", smooth, text)]


def _first_layer(model: Model, batch: int) -> list[Finding]:
    shape, *others = model.shapes.values()
    if shape[1:] != (math.prod(model.image_shape),):
        return []
    text = "the first layer is fully connected"
    if not others or others[0] != shape[:1]:
        of_it = "multiple of the image" if batch == 1 else "mixture of the images"
        text += f": every row of its gradient is a {of_it}"
    elif batch == 1:
        text += (
            " with a bias: the image is the ratio of their gradients, exactly, without any search"
        )
    else:
        text += " with a bias: each row of their gradients' ratio is a mixture of the images"
        if getattr(model, "activation", None) in ("relu", "relu6"):
            text += ", and with relu often one image alone"
    return [Finding("first layer", True, text)]


def _last_layer(model: Model, batch: int) -> list[Finding]:
    if not ends_linear(model) or loss_of(model) is not cross_entropy:
        return []
    _, bias = last_layer_names(model)
    if batch > 1:
        text = "the last layer's gradient tells about how many images have which label"
    elif bias is not None:
        text = "the last layer has a bias: the sign of its gradient is the label"
    elif getattr(model, "activation", None) in NON_NEGATIVE:
        text = (
            "the features before the last layer are not negative: the signs of its gradient's rows "
            "are the label"
        )
    else:
        text = (
            "the last layer has no bias: the row of its gradient that opposes all others is the "
            "label"
        )
    return [Finding("last layer", True, text)]


def saturation(model: Model, params: Mapping[str, Array], images: Array) -> list[Saturation]:
    """Return how flat each activation is at typical images, (N, C, H, W), layer by layer.

    The activations are found in the graph of the logits, whatever the network.
    """
    weights = {name: Tensor(np.asarray(array, dtype=float)) for name, array in params.items()}
    logits = model(weights, Tensor(images))
    found = []
    for node in topological_order(logits):
        name = None if node.primitive is None else node.primitive.name
        if name == "maximum" and not node.inputs[1].data.any():
            name = "relu"  # max(x, 0)
        if name in SLOPES:
            slopes = SLOPES[name](node.inputs[0].data)
            units = slopes.size // len(images)
            found.append(Saturation(name, units, float((slopes < FLAT).mean())))
    return found


def _sigmoid(x: Array) -> Array:
    return np.asarray(sigmoid(Tensor(x)).data)


SLOPES: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: 4 * _sigmoid(x) * _sigmoid(-x),
    "tanh": lambda x: 1 - np.tanh(x) ** 2,
    "softplus": _sigmoid,
    "relu": lambda x: (x > 0).astype(float),
}
"""By the activation's name: the derivative at x, relative to the largest that it has anywhere."""

"""What the gradient of one image shows of the values within a network, and where."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tinyleak.backend import Array
from tinyleak.gradient import depending_on, grad, topological_order
from tinyleak.nn.model import Model
from tinyleak.nn.split import leaf_of
from tinyleak.ops import concatenate, reshape, sum
from tinyleak.tensor import Tensor

Below = Callable[[Tensor], Tensor | None]
"""The network below a layer: from images to its input; None where that is not one row an image."""


@dataclass(frozen=True, eq=False)
class Shown:
    """Values within a network of which the gradient of one image shows something.

    Attributes:
        layer: the name of the parameter that shows it.
        features: the values themselves; None where only their slopes are shown.
        slopes: the loss's gradient with respect to them.
        below: the network below them, from images (1, C, H, W).
        lower: the parameters below them that sent a gradient, by name.
    """

    layer: str
    features: Array | None
    slopes: Array
    below: Below
    lower: Mapping[str, Tensor]

    @property
    def count(self) -> int:
        """How many features are shown."""
        return 0 if self.features is None else self.features.size

    def with_pattern(self, opens: bool) -> "Shown":
        """Return the same with slopes below the uppermost ReLU, if features come out of one.

        That is active where they are positive.
        """
        if self.features is None or not opens:
            return self
        return replace(self, slopes=self.slopes * (self.features > 0))

    def differences(
        self, features: Tensor, gradients: Mapping[str, Array] | None, onward: Tensor | None = None
    ) -> list[Tensor]:
        """Return how far an image is from the client's: parts whose squares add up to a share.

        Args:
            features: the image's.
            gradients: the client's, by name; the parameters below are compared with them. None is
                to compare features alone.
            onward: what the gradient below is taken of, in place of the features.
        """
        parts = []
        if self.features is not None:
            scale = 1.0 / float(np.linalg.norm(self.features))
            parts.append((features - Tensor(self.features)) * scale)
        wanted = {name: (gradients or {})[name].astype(float) for name in self.lower if gradients}
        length = math.sqrt(math.fsum(float(np.sum(g * g)) for g in wanted.values()))
        if length:
            along = features if onward is None else onward
            for name, slope in grad(sum(along * Tensor(self.slopes)), self.lower).items():
                parts.append((slope - Tensor(wanted[name])) * (1.0 / length))
        return parts

    def parts(self, images: Tensor, gradients: Mapping[str, Array] | None) -> list[Tensor]:
        """Return these differences of images (1, C, H, W)."""
        features = self.below(images)
        assert features is not None, "it was found before"
        return self.differences(features, gradients)


def in_a_row(parts: Sequence[Tensor]) -> Tensor:
    """Return all numbers of all parts, (m,)."""
    return concatenate([reshape(part, (-1,)) for part in parts], axis=0)


def takes_pixels(below: Below, shape: tuple[int, int, int]) -> bool:
    """Return whether what comes into a layer is the image (C, H, W) itself."""
    images = np.random.default_rng(0).random((1, *shape))
    found = below(Tensor(images))
    return found is not None and np.array_equal(found.data, images.reshape(1, -1))


def most_shown(
    model: Model, params: Mapping[str, Array], gradients: Mapping[str, Array]
) -> Shown | None:
    """Return what to search by: a layer's features, or an addition where these are too few.

    None if the gradient of one image shows neither.

    Args:
        model: the network.
        params: its weights, by name.
        gradients: those that were sent, by name: zeros of a frozen parameter are none.
    """
    shown, added = (find(model, params, gradients) for find in (shown_layer, shown_addition))
    pixels = math.prod(model.image_shape)
    if added is None or sum_of(added.lower) < pixels:
        return shown
    return added if shown is None or shown.count < pixels else shown


def shown_layer(
    model: Model, params: Mapping[str, Array], gradients: Mapping[str, Array]
) -> Shown | None:
    """Return the layer that shows the pixels, or else most features, and the lowest of these."""
    weights = {name: Tensor(np.asarray(array, dtype=float)) for name, array in params.items()}
    names = [
        name
        for name, shape in model.shapes.items()
        if len(shape) == 2
        and model.shapes.get(bias_of(name)) == shape[:1]
        and gradients.keys() >= {name, bias_of(name)}
        and gradients[bias_of(name)].any()
    ]
    pixels = math.prod(model.image_shape)

    def rank(name: str) -> tuple[bool, int]:
        features, below = model.shapes[name][1], partial(input_of, model, weights, name)
        return features != pixels or not takes_pixels(below, model.image_shape), -features

    for name in sorted(names, key=rank):  # a stable order
        below = partial(input_of, model, weights, name)
        if below(Tensor(np.zeros((1, *model.image_shape)))) is None:
            continue
        by_weight, by_bias = (gradients[one].astype(float) for one in (name, bias_of(name)))
        size = float(np.abs(by_bias).max())
        by_bias = by_bias / size  # it may be too small to be squared
        features = by_bias @ by_weight / (by_bias @ by_bias) / size
        if not (np.isfinite(features).all() and features.any()):
            continue
        slopes = _slopes(model, weights, gradients, name)
        lower = {} if slopes is None else _lower(model, weights, gradients, below)
        slopes = np.zeros_like(features) if slopes is None else slopes
        return Shown(name, features[None], slopes[None], below, lower)
    return None


def _slopes(
    model: Model, weights: Mapping[str, Tensor], gradients: Mapping[str, Array], layer: str
) -> Array | None:
    """Return the loss's gradient with respect to a layer's input, Σ Wᵀ g_b over all that read it.

    None if something else than linear layers with a bias reads it.
    """
    order = topological_order(model(weights, Tensor(np.zeros((1, *model.image_shape)))))
    turned = {
        node: name
        for node in order
        for name in weights
        if _is(node, "transpose") and node.inputs[0] is weights[name]
    }
    products = {n: turned[n.inputs[1]] for n in order if _is(n, "matmul") and n.inputs[1] in turned}
    source = next(_unshaped(n.inputs[0]) for n, name in products.items() if name == layer)
    total = np.zeros(model.shapes[layer][1])
    for node in order:
        if _is(node, "reshape") or not any(_unshaped(one) is source for one in node.inputs):
            continue
        bias = bias_of(products.get(node, ""))
        if bias not in gradients:
            return None
        total += weights[products[node]].numpy().T @ gradients[bias].astype(float)
    return total


def _unshaped(node: Tensor) -> Tensor:
    while _is(node, "reshape"):
        node = node.inputs[0]
    return node


def shown_addition(
    model: Model, params: Mapping[str, Array], gradients: Mapping[str, Array]
) -> Shown | None:
    """Return the values to which a parameter is added, one number to each, as to positions."""
    weights = {name: Tensor(np.asarray(array, dtype=float)) for name, array in params.items()}
    for name, shape in model.shapes.items():
        if len(shape) < 2 or name.endswith("bias") or not np.any(gradients.get(name, 0)):
            continue
        below = partial(added_to, model, weights, name)
        found = below(Tensor(np.zeros((1, *model.image_shape))))
        if found is not None:
            slopes = gradients[name].astype(float).reshape(found.shape)
            return Shown(name, None, slopes, below, _lower(model, weights, gradients, below))
    return None


def added_to(
    model: Model, weights: Mapping[str, Tensor], name: str, images: Tensor
) -> Tensor | None:
    """Return what a parameter is added to, number by number; None if it is to nothing."""
    order = topological_order(model(weights, images))
    by_image, found = depending_on([images], order), []
    for node in order:
        if _is(node, "add"):
            for one, other in (node.inputs, node.inputs[::-1]):
                fits = other in by_image and math.prod(other.shape) == math.prod(one.shape)
                if fits and leaf_of(one) is weights[name]:
                    found.append(other)
    return found[0] if len(found) == 1 else None


def input_of(
    model: Model, weights: Mapping[str, Tensor], layer: str, images: Tensor
) -> Tensor | None:
    """Return what a linear layer is given, (N, F): found in the graph of the logits.

    None if it is not applied once, to one row for each image.
    """
    order = topological_order(model(weights, images))
    turned = {n for n in order if _is(n, "transpose") and n.inputs[0] is weights[layer]}
    products = [n for n in order if _is(n, "matmul") and n.inputs[1] in turned]
    shape = (images.shape[0], weights[layer].shape[1])
    if len(products) != 1 or products[0].inputs[0].shape != shape:
        return None
    return products[0].inputs[0]


def _is(node: Tensor, name: str) -> bool:
    return node.primitive is not None and node.primitive.name == name


def bias_of(weight: str) -> str:
    """Return what the bias beside a weight is called."""
    return weight.removesuffix("weight") + "bias"


def _lower(
    model: Model, weights: Mapping[str, Tensor], gradients: Mapping[str, Array], below: Below
) -> dict[str, Tensor]:
    """Return the parameters that the features depend on, of those that sent a gradient."""
    features = below(Tensor(np.zeros((1, *model.image_shape))))
    leaves = set() if features is None else set(topological_order(features))
    return {k: weight for k, weight in weights.items() if weight in leaves and k in gradients}


def sum_of(lower: Mapping[str, Tensor]) -> int:
    """Return how many numbers parameters have."""
    return int(np.sum([math.prod(one.shape) for one in lower.values()]))

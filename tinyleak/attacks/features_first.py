"""An image by its features: what one linear layer was given, and then what image has that.

For one image the gradient of a linear layer z = W h + b is G = δ (h, 1)ᵀ, so that its input is
known exactly: h = g_bᵀ g_W / (g_b · g_b) (Phong et al. 2018, section 3). So is the gradient with
respect to it, Wᵀ g_b. The network above the layer then no longer matters, nor does the label: what
is left is to find the image whose features are h, ‖f(x) − h‖² = 0. That has no second derivatives
in it, and kinks such as ReLU's do not stop it as they stop gradient matching.

A layer with fewer features than the image has pixels leaves the image open. Two things close it:
pixels lie in [0, 1], and the gradients of all parameters below the layer, which are those of the
known function ⟨Wᵀ g_b, f(x)⟩.

A parameter that is added to values of one image, as a transformer's position embedding is, shows
the loss's gradient with respect to those values instead: it is its own. Below it the same holds.

Lesson: lessons/10b_your_own_network.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np

from tinyleak.attacks.smoothed import Wanted, past_kinks
from tinyleak.backend import Array
from tinyleak.client import Client
from tinyleak.gradient import depending_on, grad, topological_order
from tinyleak.nn.losses import softmax
from tinyleak.nn.model import Model
from tinyleak.nn.models.as_trained import network_of
from tinyleak.ops import add, reshape, sum
from tinyleak.optim import lbfgs
from tinyleak.program import trace
from tinyleak.tensor import Tensor

GREY, CONTRAST = 0.5, 0.1
"""Mean and standard deviation of the pixels that the search starts from: nearer than N(0, 1)."""

GOALS = {"float64": 1e-26, "float32": 1e-13, "float16": 1e-6}
"""The squared relative distance at which features agree, by the dtype of what was shared: its
rounding, squared, and some ten times that."""

ITERATIONS = 3000
"""At most; the networks of benchmarks/own_networks.py take 200 to 3,000 in float32."""

CLOSE = 1e-8
"""Features so near are those of the image, as far as they tell; other searches end above 1e-4."""

EVALUATIONS = 3000
"""No further start is made after so many. Where kinks stop a search another start often passes
them: of small networks with max pooling one in two searches arrives."""

Objective = Callable[[Array], tuple[float, Array]]


@dataclass(frozen=True, eq=False)
class Shown:
    """Values within a network of which the gradient of one image shows something.

    Attributes:
        layer: the name of the parameter that shows it.
        features: the values themselves; None where only their slopes are shown.
        slopes: the loss's gradient with respect to them.
        below: the network below them, from images (1, C, H, W).
        lower: the parameters below them, by name.
    """

    layer: str
    features: Array | None
    slopes: Array
    below: Callable[[Tensor], Tensor | None]
    lower: Mapping[str, Tensor]


class End(NamedTuple):
    """Where a search ended: the distance, the pixels, and how often it looked."""

    value: float
    x: Array
    evaluations: int


def shown_layer(
    model: Model, params: Mapping[str, Array], gradients: Mapping[str, Array]
) -> Shown | None:
    """Return the layer that shows most of one image: most features, and the lowest of these."""
    weights = {name: Tensor(np.asarray(array, dtype=float)) for name, array in params.items()}
    names = [
        name
        for name, shape in model.shapes.items()
        if len(shape) == 2
        and model.shapes.get(bias_of(name)) == shape[:1]
        and gradients[bias_of(name)].any()
    ]
    for name in sorted(names, key=lambda name: -model.shapes[name][1]):  # a stable order
        below = partial(input_of, model, weights, name)
        if below(Tensor(np.zeros((1, *model.image_shape)))) is None:
            continue
        by_weight, by_bias = (gradients[one].astype(float) for one in (name, bias_of(name)))
        size = float(np.abs(by_bias).max())
        by_bias = by_bias / size  # it may be too small to be squared
        features = by_bias @ by_weight / (by_bias @ by_bias) / size
        slopes = _slopes(model, weights, gradients, name)
        lower = {} if slopes is None else _lower(model, weights, below)
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
        if len(shape) < 2 or name.endswith("bias") or not gradients[name].any():
            continue
        below = partial(added_to, model, weights, name)
        found = below(Tensor(np.zeros((1, *model.image_shape))))
        if found is not None:
            slopes = gradients[name].astype(float).reshape(found.shape)
            return Shown(name, None, slopes, below, _lower(model, weights, below))
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
                if fits and _leaf(one) is weights[name]:
                    found.append(other)
    return found[0] if len(found) == 1 else None


def _leaf(node: Tensor) -> Tensor:
    while len(node.inputs) == 1:
        node = node.inputs[0]
    return node


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
    model: Model, weights: Mapping[str, Tensor], below: Callable[[Tensor], Tensor | None]
) -> dict[str, Tensor]:
    """Return the parameters that the features depend on."""
    features = below(Tensor(np.zeros((1, *model.image_shape))))
    leaves = set() if features is None else set(topological_order(features))
    return {name: weight for name, weight in weights.items() if weight in leaves}


def features_first(client: Client, seed: int = 0, *, enough: bool = False) -> Array | None:
    """Return the image whose features a layer shows, (1, C, H, W); None if no layer does.

    Whether it is found is not said: it is where gradient matching starts.

    Args:
        client: of one image and one step; of others nothing is shown.
        seed: decides the noise that the search starts from.
        enough: whether to search only where a layer has as many features as the image has pixels.
    """
    if client.batch != 1 or client.local is not None:
        return None
    model = client.model
    pixels, parts = math.prod(model.image_shape), (model, client.params, client.gradients)
    shown, added = shown_layer(*parts), shown_addition(*parts)
    few = shown is None or shown.features is None or shown.features.size < pixels
    if few and added is not None and sum_of(added.lower) >= pixels:
        rng = np.random.default_rng(seed)
        start = GREY + CONTRAST * rng.standard_normal(pixels)
        best = _search(_objective(model, added, client.gradients), start, GOALS[client.dtype])
        return best.x.reshape(1, *model.image_shape)
    if shown is None or (few and enough):
        return None
    if shown.features is None or not (np.isfinite(shown.features).all() and shown.features.any()):
        return None
    goal, rng = GOALS[client.dtype], np.random.default_rng(seed)
    alone, joint = (_objective(model, shown, g) for g in (None, client.gradients))
    images = _are_images(model)
    lowest, highest = (0.0, 1.0) if images else (-math.inf, math.inf)
    start = GREY * images + CONTRAST * rng.standard_normal(pixels)
    ends = [End(math.inf, start, 0)]
    while math.fsum(end.evaluations for end in ends) < EVALUATIONS:
        if not few:
            ends.append(_search(alone, start, goal))
        if images and ends[-1].value > goal:
            # The bounds say as much as too few features, or a flat valley, leave open.
            start = ends[-1].x if ends[-1].value <= CLOSE else start
            ends.append(_search_in_range(alone, start, goal))
        best = min(ends, key=lambda end: end.value)
        if best.value <= CLOSE or len(ends) == 1:
            break
        start = GREY * images + CONTRAST * rng.standard_normal(pixels)
    if few and images:
        best = _search_in_range(joint, best.x, goal)
    if best.value > CLOSE:
        shape = (1, *model.image_shape)
        gradients = {name: client.gradients[name].astype(float) for name in shown.lower}
        wanted = Wanted(shown.features, shown.slopes, shown.lower, gradients)
        found = past_kinks(shown.below, wanted, start.reshape(shape), lowest, highest, goal)
        if found is not None and not found.value > joint(best.x)[0]:
            best = End(found.value, found.x, 0)
    return best.x.reshape(1, *model.image_shape) if np.isfinite(best.value) else None


def known_label(client: Client, image: Array) -> Array | None:
    """Return the soft label of a known image, (1, K): y = p − ∂L/∂b at the last layer."""
    layer = client.last_layer
    if layer is None or layer.bias_gradient is None:
        return None
    params = {name: Tensor(np.asarray(a, dtype=float)) for name, a in client.params.items()}
    given = softmax(client.model(params, Tensor(image))).numpy() - layer.bias_gradient
    return np.asarray(given)


def sum_of(lower: Mapping[str, Tensor]) -> int:
    """Return how many numbers parameters have."""
    return int(np.sum([math.prod(one.shape) for one in lower.values()]))


def _are_images(model: Model) -> bool:
    """Whether the network takes images, whose pixels lie in [0, 1], and no series or table."""
    return len(getattr(network_of(model), "input_shape", (1, *model.image_shape))) == 4


def _objective(model: Model, shown: Shown, gradients: Mapping[str, Array] | None) -> Objective:
    """Return the relative distance between features, and between the gradients below if given."""
    slopes = Tensor(shown.slopes)
    wanted = (
        {} if gradients is None else {name: gradients[name].astype(float) for name in shown.lower}
    )
    length = reduce(lambda total, g: total + float(np.sum(g * g)), wanted.values(), 0.0)

    def function(z: Tensor) -> tuple[Tensor, Tensor]:
        found = shown.below(reshape(z, (1, *model.image_shape)))
        assert found is not None, "it was found before"
        parts = []
        if shown.features is not None:
            difference = found - Tensor(shown.features)
            scale = 1.0 / float(np.sum(shown.features**2))
            parts.append(sum(difference * difference) * scale)
        if length:
            lower = {name: shown.lower[name] for name in wanted}
            for name, slope in grad(sum(found * slopes), lower).items():
                apart = slope - Tensor(wanted[name])
                parts.append(sum(apart * apart) * (1.0 / length))
        distance = reduce(add, parts)
        return distance, grad(distance, z)

    program = trace(function, np.zeros(math.prod(model.image_shape)), check=False)

    def evaluate(z: Array) -> tuple[float, Array]:
        value, gradient = program(z)
        return float(value), gradient

    return evaluate


def _search(objective: Objective, start: Array, goal: float) -> End:
    *_, end = lbfgs(objective, start, goal=goal, max_iterations=ITERATIONS)
    return End(end.value, end.x, end.evaluations)


def _search_in_range(objective: Objective, start: Array, goal: float) -> End:
    """Minimise within [0, 1], by the L-BFGS-B of Byrd, Lu, Nocedal and Zhu (1995)."""
    from scipy.optimize import minimize

    def stop_when_near(intermediate_result: Any) -> None:
        if intermediate_result.fun <= goal:
            raise StopIteration

    end = minimize(
        objective,
        np.clip(start, 0.0, 1.0),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, 1.0)] * len(start),
        callback=stop_when_near,
        options={
            "maxcor": 50,
            "maxiter": ITERATIONS,
            "maxfun": ITERATIONS,
            "ftol": 0.0,
            "gtol": 0.0,
        },
    )
    return End(float(end.fun), end.x, end.nfev)

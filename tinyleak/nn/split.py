"""A network cut in two at one of its linear layers, whatever the network.

Nothing is asked of the network but its logits: the layer is found in the graph that they left
behind, as the product with its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tinyleak.backend import array_module
from tinyleak.gradient import topological_order
from tinyleak.nn.model import Model
from tinyleak.tensor import Tensor, apply


class Halves(NamedTuple):
    """What lies below a linear layer, and what lies above it."""

    below: Callable[[Tensor], Tensor]
    """From images (N, C, H, W) to the layer's inputs (N, F)."""
    above: Callable[[Tensor], Tensor]
    """From the layer's outputs `z = inputs @ weightᵀ + bias`, (N, O), to logits (N, K)."""


def split(model: Model, params: Mapping[str, Tensor], layer: str, batch: int) -> Halves:
    """Cut a network in two at a linear layer.

    Args:
        model: the network.
        params: its parameters, by name, without leading axes.
        layer: the name of the layer's weight, (O, F).
        batch: N, how many images both halves take.

    Raises:
        ValueError: no such layer, or one that is not applied once to one row for each image.
    """
    weight, bias = params[layer], params.get(layer.removesuffix("weight") + "bias")
    zeros = array_module(weight._array).zeros((batch, *model.image_shape), dtype=weight.dtype)

    def below(images: Tensor) -> Tensor:
        return _product(topological_order(model(params, images)), weight, layer).inputs[0]

    logits = model(params, Tensor(zeros))
    order = topological_order(logits)
    cut = _product(order, weight, layer)
    if cut.shape != (batch, weight.shape[0]):
        raise ValueError(
            f"the layer of {layer!r} gives {cut.shape} for {batch} images; the network can be cut "
            "in two only where there is one row for each"
        )
    if bias is not None:
        cut = next((node for node in order if _adds(node, cut, bias)), cut)
    # Not `depending_on`: what a derivative does not pass through is to be computed anew as well.
    later: dict[Tensor, None] = {cut: None}
    for node in order:
        if not later.keys().isdisjoint(node.inputs):
            later[node] = None

    def above(outputs: Tensor) -> Tensor:
        found = {cut: outputs}
        for node in later:
            if node is not cut and node.primitive is not None:
                inputs = [found.get(x, x) for x in node.inputs]
                found[node] = apply(node.primitive, *inputs, **node.params)
        return found[logits]

    return Halves(below, above)


def _product(order: list[Tensor], weight: Tensor, layer: str) -> Tensor:
    """Return the product with the weight's transpose."""
    turned = {node for node in order if _is(node, "transpose") and node.inputs[0] is weight}
    found = [node for node in order if _is(node, "matmul") and node.inputs[1] in turned]
    if len(found) != 1:
        raise ValueError(
            f"{layer!r} is the weight of {len(found)} linear layers in this network; the network "
            "can be cut in two only at the weight of one"
        )
    return found[0]


def _adds(node: Tensor, product: Tensor, bias: Tensor) -> bool:
    """Whether a node adds the bias to the product."""
    if not _is(node, "add") or node.inputs[0] is not product:
        return False
    return any(leaf is bias for leaf in topological_order(node.inputs[1]))


def _is(node: Tensor, name: str) -> bool:
    return node.primitive is not None and node.primitive.name == name

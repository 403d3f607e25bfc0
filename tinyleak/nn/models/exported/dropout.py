"""The masks of dropout, read off the gradient of one image.

Dropout (Srivastava et al. 2014) sets features to 0 at random, and nobody writes down which. But the
input of a linear layer with a bias is exact in its gradient, zeros and all. What was dropped is 0
there; what is 0 because ReLU made it so may as well have been dropped: no derivative tells.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tinyleak.backend import Array
from tinyleak.nn.models.exported.graph import Node, Ref
from tinyleak.nn.models.exported.model import Exported
from tinyleak.nn.models.exported.shapes import VIEWS

CHANCE = 1e-6  # how likely it may be that dropout leaves all features, for it to be taken for off


def with_masks(model: Exported, gradients: Mapping[str, Array]) -> Exported:
    """Return the network with the masks of all dropout that lies right before a linear layer.

    `model` was exported in training mode; `gradients` are of one image, by name.
    """
    masks = dict(model.masks)
    for node in model.random:
        names = layer_after(model, node)
        if names is None or not gradients[names[1]].any():
            continue
        weight, bias = (gradients[name].astype(float) for name in names)
        features = bias / np.abs(bias).max() @ weight
        shape, rate = model.graph.shapes[node.outputs[0]], node.arguments["p"]
        assert isinstance(rate, float), "a share"
        if features.size == np.prod(shape) and rate < 1:
            kept = (features != 0).reshape(shape)
            # It was off, whatever the network was exported with, where nothing was dropped.
            off = kept.all() and (1.0 - rate) ** kept.size < CHANCE
            masks[node.name] = kept / (1.0 if off else 1.0 - rate)
    return replace(model, masks=masks)


def layer_after(model: Exported, node: Node) -> tuple[str, str] | None:
    """Return the names of the weight and bias of the linear layer that a node's result goes to."""
    value, parameters = node.outputs[0], model.graph.parameters
    while True:
        readers = [n for n in model.graph.nodes if Ref(value) in n.arguments.values()]
        if len(readers) != 1:
            return None
        (reader,) = readers
        if reader.operation == "linear":
            names = [reader.arguments.get(each) for each in ("weight", "bias")]
            found = [parameters.get(ref.name) for ref in names if isinstance(ref, Ref)]
            weight, bias = (*found, None, None)[:2]
            return None if weight is None or bias is None else (weight, bias)
        if reader.operation not in VIEWS or reader in model.random:
            return None
        value = reader.outputs[0]

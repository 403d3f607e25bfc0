"""What a network returns and what its loss takes: logits, or numbers, or what is made of them."""

from __future__ import annotations

import math
from dataclasses import replace

from tinyleak.nn.activations import ACTIVATIONS
from tinyleak.nn.models.exported.graph import Node, refs
from tinyleak.nn.models.exported.model import Exported
from tinyleak.nn.models.exported.shapes import VIEWS

ENDINGS = {*ACTIVATIONS, "softmax", "log_softmax"}
"""Operations after the last layer that make no layer of their own."""


def with_outputs_for(network: Exported, loss: str) -> Exported:
    """Return a network whose outputs are what its loss takes: logits of classes, or numbers.

    Raises:
        ValueError: cross-entropy of what is no row of logits.
    """
    shape = network.graph.shapes[network.graph.outputs[0]]
    if loss == "cross-entropy" and math.prod(shape) != max(shape, default=1):
        raise ValueError(
            f"the network returns {shape} for one input, and cross-entropy takes a row of logits; "
            "say its loss (--loss mse or bce, each a mean over all that it returns)"
        )
    wanted = loss != "cross-entropy"
    return network if network.numbers_out == wanted else replace(network, numbers_out=wanted)


def ending(network: object) -> str:
    """Return the operation on what the last layer returns that makes the only output, or ""."""
    node = _ending(network) if isinstance(network, Exported) else None
    return "" if node is None else node.operation


def without_ending(network: Exported) -> Exported:
    """Return a network without the operation that `ending` names."""
    last = _ending(network)
    if last is None:
        return network
    first = next(name for name, value in last.arguments.items() if refs((value,)))
    same = replace(last, operation="alias", arguments={first: last.arguments[first]})
    nodes = tuple([same if node is last else node for node in network.graph.nodes])
    return replace(network, graph=replace(network.graph, nodes=nodes))


def _ending(network: Exported) -> Node | None:
    made = {name: node for node in network.graph.nodes for name in node.outputs}
    node = made.get(network.graph.outputs[0]) if len(network.graph.outputs) == 1 else None
    while node is not None and node.operation in VIEWS:
        node = made.get(refs(tuple(node.arguments.values()))[0])
    return node if node is not None and node.operation in ENDINGS else None

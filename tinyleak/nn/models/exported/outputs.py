"""What a network returns and what its loss takes: logits, or numbers, or what is made of them."""

from __future__ import annotations

import math
from dataclasses import replace

from tinyleak.nn.activations import ACTIVATIONS
from tinyleak.nn.models.exported.elementwise import ELEMENTWISE
from tinyleak.nn.models.exported.graph import Graph, Node, refs
from tinyleak.nn.models.exported.model import Exported
from tinyleak.nn.models.exported.shapes import VIEWS

ENDINGS = {*ACTIVATIONS, *ELEMENTWISE, "softmax", "log_softmax"}
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
    """Return the operation on what the last layer returns, "several" if more are, or ""."""
    operations = _walk(network)[1] if isinstance(network, Exported) else []
    return "several" if len(operations) > 1 else "".join(operations)


def without_ending(network: Exported) -> Exported:
    """Return a network that returns what its last layer does."""
    value, operations, _ = _walk(network)
    if not operations:
        return network
    graph = network.graph
    last = next(i for i, node in enumerate(graph.nodes) if value in node.outputs)
    return replace(network, graph=replace(graph, nodes=graph.nodes[: last + 1], outputs=(value,)))


def ends_in(network: object, weight: str) -> bool:
    """Return whether this parameter is one of the last layer's."""
    return not isinstance(network, Exported) or weight in _walk(network)[2]


def _walk(network: Exported) -> tuple[str, list[str], set[str]]:
    """Return what the last layer returns, the operations on that alone, and its parameters.

    Operations are those that keep each number or the whole row, and leave no other way around.
    """
    graph = network.graph
    made = {name: node for node in graph.nodes for name in node.outputs}
    value = name = graph.outputs[-1]
    operations: list[str] = []
    while len(graph.outputs) == 1 and name in made:
        sources = _sources(made[name], graph)
        view = made[name].operation in VIEWS
        if len(sources) != 1 or not (view or made[name].operation in ENDINGS):
            break
        if math.prod(graph.shapes[sources[0]]) != math.prod(graph.shapes[name]):
            break
        operations += [] if view else [made[name].operation]
        name = sources[0]
        value = value if view else name
    read = set(_sources(made[name], graph)) if name in made else set()
    while moved := {one for one in read if one in made and made[one].operation in VIEWS}:
        read = (read - moved).union(*[_sources(made[one], graph) for one in moved])
    own = {graph.parameters[one] for one in read if one in graph.parameters}
    return (value, operations, own) if own else (graph.outputs[-1], [], own)


def _sources(node: Node, graph: Graph) -> list[str]:
    return [one for one in refs(tuple(node.arguments.values())) if one not in graph.constants]

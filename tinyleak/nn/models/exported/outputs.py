"""What a network returns and what its loss takes: logits, or numbers, or what is made of them."""

import math
from collections import Counter
from collections.abc import Container
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
    """Return a network that returns what its last layers do."""
    values = [value for value, _, _ in _walks(network)]
    nodes = network.graph.nodes
    last = max(i for i, node in enumerate(nodes) if not {*values}.isdisjoint(node.outputs))
    graph = replace(network.graph, nodes=nodes[: last + 1], outputs=tuple(values))
    return replace(network, graph=graph)


def last_layers(network: Exported) -> list[tuple[str, str]]:
    """Return each head's weight and bias, or nothing if not every head has a layer of its own."""
    layers = []
    for _, _, own in _walks(network):
        names = sorted(own, key=lambda name: -len(network.shapes[name]))
        if [len(network.shapes[name]) for name in names] != [2, 1]:
            return []
        layers.append((names[0], names[1]))
    return layers


def in_loss(network: Exported, sent: Container[str]) -> Exported:
    """Return a network without the heads whose last layer sent no gradient, where others' did.

    The parameters of these heads come first then, so that what is last is the last layer's.
    """
    graph, walks = network.graph, _walks(network)
    idle = [bool(own) and not any(name in sent for name in own) for _, _, own in walks]
    if all(idle) or not any(idle):
        return network
    unused = {name for (_, _, own), out in zip(walks, idle, strict=True) if out for name in own}
    parameters = dict(sorted(graph.parameters.items(), key=lambda item: item[1] not in unused))
    outputs = tuple([o for o, out in zip(graph.outputs, idle, strict=True) if not out])
    return replace(network, graph=replace(graph, outputs=outputs, parameters=parameters))


def ends_in(network: object, weight: str) -> bool:
    """Return whether this parameter is one of the last layer's."""
    return not isinstance(network, Exported) or weight in _walk(network)[2]


Walk = tuple[str, list[str], set[str]]
"""What a last layer returns, the operations on that alone, and the layer's parameters."""


def _walk(network: Exported) -> Walk:
    """Return the walk of the only head; of several, one that does not lead anywhere."""
    walks = _walks(network)
    return walks[0] if len(walks) == 1 else (network.graph.outputs[-1], [], walks[-1][2])


def _walks(network: Exported) -> list[Walk]:
    """Return each head's walk back to its last layer.

    Operations are those that keep each number or the whole row, and leave no other way around.
    """
    graph = network.graph
    made = {name: node for node in graph.nodes for name in node.outputs}
    readers = Counter(one for node in graph.nodes for one in {*_sources(node, graph)})
    walks: list[Walk] = []
    for output in graph.outputs:
        value = name = output
        operations: list[str] = []
        alone = readers[name] == 0
        while name in made:
            sources = _sources(made[name], graph)
            view = made[name].operation in VIEWS
            if len(sources) != 1 or not (view or made[name].operation in ENDINGS):
                break
            if math.prod(graph.shapes[sources[0]]) != math.prod(graph.shapes[name]):
                break
            operations += [] if view else [made[name].operation]
            name = sources[0]
            value = value if view else name
            alone = alone and readers[name] == 1
        read = set(_sources(made[name], graph)) if name in made and alone else set()
        while moved := {one for one in read if one in made and made[one].operation in VIEWS}:
            read = (read - moved).union(*[_sources(made[one], graph) for one in moved])
        own = {graph.parameters[one] for one in read if one in graph.parameters}
        walks.append((value, operations, own) if own else (output, [], own))
    return walks


def _sources(node: Node, graph: Graph) -> list[str]:
    return [one for one in refs(tuple(node.arguments.values())) if one not in graph.constants]

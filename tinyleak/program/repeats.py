"""A simplification of copies along a leading axis: what is the same for all is computed once.

`transforms.copies` repeats an image for many directions at once. All that depends on the image
alone, as the whole way forward does, is the same for each of them.
"""

from tinyleak.backend import array_module
from tinyleak.program.graph import Graph, Node

AXES_USED = {"matmul": 2, "unfold": 3, "fold": 5}
"""How many of its last axes an operation needs whole. A reshape or transpose must leave the first
axis as it is; all others go through numbers one by one."""


def compute_once(graph: Graph, node: Node) -> Node | None:
    """f(copies(x), copies(c), y) = copies(f(x, c, y)), where y is the same for all copies."""
    first, *others = node.inputs
    if node.primitive is None or not node.shape or node.shape[0] == 1:
        return None
    params = dict(node.params)
    if not others and first.shape[:1] != node.shape[:1]:
        return None
    axes = len(node.shape) if others else len(first.shape)
    if axes <= AXES_USED.get(node.name, 0) or params.get("axes", (0,))[0] != 0:
        return None
    if node.name == "reshape":
        params["shape"] = (1, *node.shape[1:])
    sources = [_once(graph, x, axes) for x in node.inputs]
    if None in sources:
        return None
    once = graph.add(node.primitive, filter(None, sources), node.array[:1], **params)
    spread = array_module(node.array).broadcast_to(node.array[:1], node.shape)
    return graph.add("broadcast_to", [once], spread, shape=node.shape)


def _once(graph: Graph, x: Node, axes: int) -> Node | None:
    """Return what `x` has copies of along the first of so many axes; None if it has others."""
    if len(x.shape) < axes or x.shape[0] == 1:
        return x
    if x.constant:
        return graph.constant(x.array[:1]) if bool((x.array == x.array[:1]).all()) else None
    shape = (1, *x.shape[1:])
    if x.name != "broadcast_to" or x.inputs[0].shape not in (shape, shape[1:]):
        return None  # along other axes it is repeated as well
    (source,) = x.inputs
    if source.shape == shape:
        return source
    return graph.add("reshape", [source], source.array.reshape(shape), shape=shape)

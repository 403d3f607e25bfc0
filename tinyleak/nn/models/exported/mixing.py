"""Operations by which the images of a batch depend on each other.

A graph that is exported for one input does not tell how: `x - x.mean()` takes off the mean of that
input there, and of all inputs in a batch. (Batch norm in training is an operation of its own, and
is computed over the batch.)
"""

from tinyleak.interop import quoted
from tinyleak.nn.models.exported.graph import Graph, Node, refs
from tinyleak.nn.models.exported.model import Exported
from tinyleak.nn.models.exported.reductions import REDUCTIONS

ELSEWHERE = {"cosine_similarity", "cdist", "einsum"}
"""Reductions that have axes of their own, unless they are named."""

PRODUCTS = {"matmul", "mm", "mv", "dot", "vdot"}


def refuse_mixing(network: object, batch: int) -> None:
    """Refuse, with ValueError, a batch of images that an exported network takes together."""
    if batch > 1 and isinstance(network, Exported) and (found := mixed_by(network.graph)):
        raise ValueError(
            f"the network takes the images of a batch together, in its node {quoted(found.name)} "
            f"({quoted(found.operation)[1:-1]}), and is known for one image alone; {batch} were "
            "said; give a batch of 1, or export a network that looks at each image by itself"
        )


def mixed_by(graph: Graph) -> Node | None:
    """Return the first node that takes the images of a batch together, as far as that shows.

    It reduces over all axes, or over the first, of what depends on the input, where that is the
    batch's; or it multiplies two such matrices, which have no other axis for the batch.
    """
    moving = {graph.input}
    for node in graph.nodes:
        sources = [name for name in refs(tuple(node.arguments.values())) if name in moving]
        if not sources:
            continue
        shapes = [graph.shapes[name] for name in sources]
        if node.operation in PRODUCTS and len(shapes) == 2 and min(map(len, shapes)) <= 2:
            return node
        if node.operation in REDUCTIONS and _over_batch(node, shapes[0]):
            return node
        moving.update(node.outputs)
    return None


def _over_batch(node: Node, shape: tuple[int, ...]) -> bool:
    if node.operation in ELSEWHERE or "other" in node.arguments:
        return False
    axes = node.arguments.get("dim")
    if axes is None or axes == ():
        return True
    counted = axes if isinstance(axes, tuple) else (axes,)
    return shape[:1] == (1,) and (0 in counted or -len(shape) in counted)

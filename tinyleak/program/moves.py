"""Simplifications of moves: a reshape or transpose is made later, cancelled, or made to a constant.

A move changes no number, but may copy all of them. Those between two layers are of opposite kinds
and cancel once the elementwise work between them is done where the numbers lie.
"""

from functools import cache

from tinyleak.backend import Array, array_module
from tinyleak.ops.shape import inverse_order
from tinyleak.program.columns import transposed_for_free
from tinyleak.program.graph import Graph, Node

MOVES = ("reshape", "transpose")


def join_moves(graph: Graph, node: Node) -> Node | None:
    """A reshape of a reshape, or a transpose of a transpose, is one, or none."""
    (inner,) = node.inputs
    if inner.name != node.name:
        return None
    (source,) = inner.inputs
    if node.name == "reshape":
        unchanged, params = source.shape == node.shape, node.params
    else:
        before = inner.params["axes"]
        axes = tuple([before[axis] for axis in node.params["axes"]])
        unchanged, params = axes == tuple(range(len(axes))), {"axes": axes}
    return source if unchanged else graph.add(node.name, [source], node.array, **params)


def move_later(graph: Graph, node: Node) -> Node | None:
    """f(move(x), …) = move(f(x, …)): the elementwise work is done where the numbers lie.

    The other operand must be moved alike, a constant (moved back once, now), a product with one,
    or a single number.
    """
    if node.primitive is None:
        return None
    sources, lies, moves = node.inputs, node.array, []
    while found := _first_move(graph, sources, lies.shape):
        move, sources = found
        moves.append((move, lies))
        # What it is made of may have been moved already, and lie otherwise than it did when traced.
        before = move.inputs[0]
        alike = before.array.dtype == lies.dtype and before.name != "broadcast_to"
        lies = before.array if alike else _moved_back(lies, move)
    if not moves:
        return None
    result = graph.add(node.primitive, sources, lies, **node.params)
    for move, array in reversed(moves):
        result = _moved(graph, result, move, array)
    return result


def _moved(graph: Graph, x: Node, move: Node, array: Array) -> Node:
    """`x` moved as that move does it, which leaves nothing to simplify but two moves of a kind."""
    if x.name == move.name:
        return graph.add(x.name, [x], array, **move.params)
    return Node(move.name, array, move.primitive, (x,), move.params)


def _first_move(
    graph: Graph, inputs: tuple[Node, ...], shape: tuple[int, ...]
) -> tuple[Node, tuple[Node, ...]] | None:
    """The move of one input that all can do without, and what they are before it."""
    for move in inputs:
        if move.name in MOVES and move.shape == shape:
            sources = [move.inputs[0] if x is move else _before(graph, move, x) for x in inputs]
            if None not in sources:
                return move, tuple(filter(None, sources))
    return None


def _before(graph: Graph, move: Node, x: Node) -> Node | None:
    """What `x` must be so that it is itself after the move; None if that cannot be had for free."""
    source = move.inputs[0]
    if x.name == move.name and x.params == move.params and x.inputs[0].shape == source.shape:
        return x.inputs[0]
    if x.array.size == 1 and len(x.shape) <= len(source.shape):
        return x
    if x.constant:
        return _constant_before(graph, move, x)
    if move.name == "transpose":
        return transposed_for_free(graph, x, inverse_order(move.params["axes"]))
    if x.name == "matmul" and x.inputs[1].constant and source.name == "transpose":
        # Only another view of it, which the transpose will find.
        return graph.add("reshape", [x], x.array.reshape(source.shape), shape=source.shape)
    return None


def _constant_before(graph: Graph, move: Node, x: Node) -> Node | None:
    """A constant that is broadcast along the leading axes is moved without them."""
    full = x.array.reshape((1,) * (len(move.shape) - len(x.shape)) + x.shape)
    leading = next(n for n in range(full.ndim + 1) if full.shape[n:] == move.shape[n:])
    if full.shape[:leading] != (1,) * leading or leading > _leading_axes_kept(move):
        return None
    if move.name == "reshape":
        return graph.constant(full.reshape((1,) * leading + move.inputs[0].shape[leading:]))
    return graph.constant(array_module(full).ascontiguousarray(_moved_back(full, move)))


def _leading_axes_kept(move: Node) -> int:
    """How many leading axes a reshape or transpose leaves as they are."""
    if move.name == "transpose":
        return _length_of_common_start(tuple(range(len(move.shape))), move.params["axes"])
    return _length_of_common_start(move.inputs[0].shape, move.shape)


@cache
def _length_of_common_start(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    pairs = zip(first, second, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def sum_where_it_lies(graph: Graph, node: Node) -> Node | None:
    """An inner product of two things moved alike, within the axes summed, needs no moving."""
    a, b = node.inputs
    leading = len(node.shape)
    if a.name not in MOVES or a.name != b.name or a.params != b.params:
        return None
    if a.inputs[0].shape != b.inputs[0].shape or _leading_axes_kept(a) < leading:
        return None
    axes = len(a.inputs[0].shape) - leading
    return graph.add("inner", [a.inputs[0], b.inputs[0]], node.array, axes=axes)


def _moved_back(array: Array, move: Node) -> Array:
    if move.name == "reshape":
        return array.reshape(move.inputs[0].shape)
    return array.transpose(inverse_order(move.params["axes"]))

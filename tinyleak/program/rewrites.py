"""Simplifications of a graph, each a few lines: what a node can be replaced with, or None.

They are tried on every node as it is added, when its inputs are already simple. All are identities
of arithmetic or of shapes.

Lesson: lessons/14_a_graph_is_a_program.py
"""

from functools import cache

from tinyleak.backend import array_module
from tinyleak.program.columns import contract_in_any_order, order_columns_later
from tinyleak.program.graph import Graph, Node, Rewrite
from tinyleak.program.moves import MOVES, join_moves, move_later, sum_where_it_lies
from tinyleak.program.outer import compare_by_vectors
from tinyleak.program.products import (
    join_products,
    lay_constants_out,
    make_long_rows,
    multiply_in_order,
    scale_one_column,
)
from tinyleak.program.repeats import compute_once

UNARY = (
    *("negate", "exp", "log", "sqrt", "tanh", "sin", "cos"),
    *("sigmoid", "softplus", "power"),
)
ARITHMETIC = ("add", "subtract", "multiply", "divide")
BINARY = (*ARITHMETIC, "maximum", "greater", "greater_equal", "equal", "not_equal")


def _fold_constants(graph: Graph, node: Node) -> Node | None:
    """What depends on constants alone is computed now, once."""
    if node.primitive is None:
        return None
    arrays = [x.array for x in node.inputs]
    return graph.constant(node.primitive.forward(array_module(*arrays), *arrays, **node.params))


def _drop_what_changes_nothing(graph: Graph, node: Node) -> Node | None:
    """A sum, copy, crop or padding to the shape that it has already, a stopped gradient."""
    return node.inputs[0] if node.shape == node.inputs[0].shape else None


def _drop_neutral_element(graph: Graph, node: Node) -> Node | None:
    """x · 1, 1 · x, x / 1, x + 0, 0 + x, x − 0."""
    neutral = 1 if node.name in ("multiply", "divide") else 0
    first, second = node.inputs
    if _is_number(second, neutral) and _is_alike(first, node):
        return first
    commutes = node.name in ("multiply", "add")
    if commutes and _is_number(first, neutral) and _is_alike(second, node):
        return second
    return None


def _is_alike(x: Node, node: Node) -> bool:
    """Whether `x` can stand for `node`: a mask times 1.0 has the shape, but is not a mask."""
    return x.shape == node.shape and x.array.dtype == node.array.dtype


def _leave_broadcasting_to_the_operation(graph: Graph, node: Node) -> Node | None:
    """f(broadcast(x), y) = f(x, y), where y has the full shape."""
    if node.primitive is None:
        return None
    sources = list(node.inputs)
    for position, x in enumerate(node.inputs):
        other = node.inputs[1 - position]
        if x.name == "broadcast_to" and other.shape == node.shape:
            sources[position] = x.inputs[0]
            return graph.add(node.primitive, sources, node.array, **node.params)
    return None


def _join_signs(graph: Graph, node: Node) -> Node | None:
    """−(−x) = x, x + (−y) = x − y, (−x) + y = y − x, x − (−y) = x + y, (−x) · y = −(x · y)."""
    negated = [x.name == "negate" for x in node.inputs]
    if not any(negated):
        return None
    if node.name == "negate":
        return node.inputs[0].inputs[0]
    first, second = (x.inputs[0] if n else x for x, n in zip(node.inputs, negated, strict=True))
    if node.name == "add":
        pair = [node.inputs[0], second] if negated[1] else [second, first]
        return graph.add("subtract", pair, node.array)
    if node.name == "subtract" and negated[1]:
        return graph.add("add", [node.inputs[0], second], node.array)
    if node.name in ("multiply", "divide", "matmul"):
        positive = graph.add(node.name, [first, second], node.array)
        return positive if all(negated) else graph.add("negate", [positive], node.array)
    return None


def _is_number(node: Node, value: float) -> bool:
    """Whether a node is a constant that has this value everywhere."""
    if not node.constant or node.array.size == 0:
        return False
    # The first element decides most cases, without a look at a whole matrix.
    first = node.array[(0,) * node.array.ndim].item()
    return first == value and bool((node.array == value).all())


REWRITES: dict[str, list[Rewrite]] = {
    "reshape": [join_moves],
    "transpose": [join_moves],
    "matmul": [
        compare_by_vectors,
        *(contract_in_any_order, order_columns_later, make_long_rows),
        *(scale_one_column, _join_signs, lay_constants_out),
    ],
    "negate": [_join_signs, move_later],
    "inner": [sum_where_it_lies, compare_by_vectors],
    "add": [join_products],
}
"""For each primitive the simplifications that are tried, in order."""

for _name in ("broadcast_to", "crop_to", "pad_to", "stop_gradient", "sum_to"):
    REWRITES[_name] = [_drop_what_changes_nothing]
for _name in (*UNARY, "where"):
    if _name != "negate":
        REWRITES[_name] = [move_later]
for _name in BINARY:
    first = [_drop_neutral_element, _join_signs] if _name in ARITHMETIC else []
    last = [_leave_broadcasting_to_the_operation, move_later, multiply_in_order]
    REWRITES[_name] = [*first, *REWRITES.get(_name, []), *last]

for _name in (*UNARY, *BINARY, "where", "matmul", "unfold", "fold", "reshape", "transpose"):
    REWRITES[_name] = [compute_once, *REWRITES.get(_name, [])]

LOOKS_FOR: dict[Rewrite, set[str]] = {
    _drop_neutral_element: {"constant"},
    lay_constants_out: {"constant"},
    join_moves: {*MOVES},
    move_later: {*MOVES},
    sum_where_it_lies: {*MOVES},
    contract_in_any_order: {"reshape"},
    order_columns_later: {"reshape"},
    compare_by_vectors: {"subtract", "transpose"},
    make_long_rows: {"transpose"},
    multiply_in_order: {"transpose"},
    compute_once: {"broadcast_to"},
    _leave_broadcasting_to_the_operation: {"broadcast_to"},
    _join_signs: {"negate"},
    join_products: {"matmul"},
}
"""What a simplification needs to see among the inputs, one of these; the others look at all."""


@cache
def candidates(name: str, *inputs: str) -> list[Rewrite]:
    """Return the simplifications that may find something in an operation with such inputs."""
    if set(inputs) == {"constant"}:
        return [_fold_constants]
    return [
        rewrite
        for rewrite in REWRITES.get(name, [])
        if rewrite not in LOOKS_FOR or not LOOKS_FOR[rewrite].isdisjoint(inputs)
    ]

"""Simplifications of a graph, each a few lines: what a node can be replaced with, or None.

They are tried on every node as it is added, when its inputs are already simple. All are identities
of arithmetic or of shapes; only the joining of constant factors changes the rounding.

Lesson: lessons/14_a_graph_is_a_program.py
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tinyleak.backend import Array, array_module
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

UNARY = ("negate", "exp", "log", "sqrt", "tanh", "sigmoid", "softplus", "power")
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


def _join_factors(graph: Graph, node: Node) -> Node | None:
    """(x · c) · d = x · (c · d), for constants c and d."""
    product, factor = _with_constant(node)
    if product is None or product.name != "multiply":
        return None
    x, first = _with_constant(product)
    if x is None or first is None or factor is None or x.shape != node.shape:
        return None
    with np.errstate(all="ignore"):  # what goes over or under the range is not used
        joined = graph.add("multiply", [first, factor], first.array)
    if not _is_normal_product(joined.array, first.array, factor.array):
        return None
    return graph.add("multiply", [x, joined], node.array)


def _is_normal_product(product: Array, first: Array, second: Array) -> bool:
    """Whether a product of constants has neither overflowed nor lost digits near 0."""
    xp = array_module(product)
    size = xp.abs(product)
    whole = (size >= xp.finfo(product.dtype).tiny) & xp.isfinite(product)
    return bool((whole | (first == 0) | (second == 0)).all())


def _with_constant(product: Node) -> tuple[Node | None, Node | None]:
    """The operand that varies and the one that is constant, if there is one of each."""
    a, b = product.inputs
    if b.constant:
        return a, b
    return (b, a) if a.constant else (None, None)


def _double(graph: Graph, node: Node) -> Node | None:
    """x + x = x · 2."""
    first, second = node.inputs
    if first is not second:
        return None
    two = array_module(first.array).asarray(2, dtype=first.array.dtype)
    return graph.add("multiply", [first, graph.constant(two)], node.array)


def _join_pads(graph: Graph, node: Node) -> Node | None:
    """Two pieces padded to stand side by side, and added, are joined."""
    first, second = node.inputs
    if first.name != "pad_to" or second.name != "pad_to" or first.shape != second.shape:
        return None
    windows = zip(first.params["window"], second.params["window"], node.shape, strict=True)
    joints = []
    for axis, (a, b, length) in enumerate(windows):
        if a != b:
            joints.append(axis)
            (start, middle, step), (again, stop, other_step) = sorted((a, b))
            side_by_side = (start, middle, stop) == (0, again, length)
            if not side_by_side or (step, other_step) != (1, 1):
                return None
        elif a != (0, length, 1):
            return None
    if len(joints) != 1:
        return None
    (axis,) = joints
    pieces = sorted((first, second), key=lambda x: x.params["window"][axis][0])
    return graph.add("concatenate", [x.inputs[0] for x in pieces], node.array, axis=axis)


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
    "add": [_double, join_products, _join_pads],
    "multiply": [_join_factors],
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

LOOKS_FOR: dict[Rewrite, set[str]] = {
    _drop_neutral_element: {"constant"},
    _join_factors: {"constant"},
    lay_constants_out: {"constant"},
    join_moves: {*MOVES},
    move_later: {*MOVES},
    sum_where_it_lies: {*MOVES},
    contract_in_any_order: {"reshape"},
    order_columns_later: {"reshape"},
    compare_by_vectors: {"subtract", "transpose"},
    make_long_rows: {"transpose"},
    multiply_in_order: {"transpose"},
    _leave_broadcasting_to_the_operation: {"broadcast_to"},
    _join_signs: {"negate"},
    join_products: {"matmul"},
    _join_pads: {"pad_to"},
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

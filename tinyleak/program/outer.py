"""A simplification of an outer product's distance to a constant matrix: vectors take its place.

For one image the gradient of a linear layer is an outer product, `l h`: a column times a row. What
it is compared with is an outer product too, or nearly: G = u v + R, where u is a column of length
1, v = uᵀ G, and so uᵀ R = 0. Their difference is two outer products and a constant,

    l h − G = a h + u c − R,    a = l − u (uᵀ l),    c = (uᵀ l) h − v,

whose products need vectors and R, and its square ‖a‖² ‖h‖² + ‖c‖² − 2 aᵀ R hᵀ + ‖R‖². So it need
not be written, nor be read again, which takes longest where the processor's cache does not hold it.
Its square has the digits that l and h allow, however small it is: a and c become small as `l h`
comes near to G, and since u v is as near to G as an outer product can be, R is no larger than the
difference.

A gradient that was written in float32 leaves an R of 1e-8 of its size. Half as many digits of that
are as many as float64 has of G: R in float32 is read in half the time.
"""

from typing import Any

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.program.graph import Graph, Node
from tinyleak.program.products import swapped

LEAST_ELEMENTS = 2**16
"""Of the matrix: smaller ones stay in the second-level cache, where they cost little."""

STEPS = 3
"""Of the power method. A gradient of one image needs one; of any other matrix, u is as good."""

SMALL = 1e-7
"""Up to this share of G, R is kept in float32: its rounding, 6e-8, is then some 1e-15 of G, as that
of `l h - G` in float64 is."""


def compare_by_vectors(graph: Graph, node: Node) -> Node | None:
    """A product with, or the square of, the difference of an outer product and a constant."""
    left, right = node.inputs
    if node.name == "inner":
        if left is not right or node.params["axes"] != 2 or not (apart := _apart(graph, left)):
            return None
        (a, h), (_, c), rest, rest_squared = apart
        lengths = _with(graph, "multiply", _square(graph, swapped(graph, a)), _square(graph, h))
        across = _product(graph, swapped(graph, a), _short(graph, rest, swapped(graph, h)))
        total = _with(graph, "add", lengths, _square(graph, c))
        total = _with(graph, "subtract", total, _with(graph, "add", across, across))
        total = _with(graph, "add", total, rest_squared)
        return graph.add("reshape", [total], node.array, shape=())
    if apart := _apart(graph, left):
        *pairs, rest, _ = apart
        parts = [_product(graph, column, _product(graph, row, right)) for column, row in pairs]
        less = _short(graph, rest, right)
    elif apart := _apart(graph, right):
        *pairs, rest, _ = apart
        parts = [_product(graph, _product(graph, left, column), row) for column, row in pairs]
        less = _short(graph, left, rest)
    elif any(x.name == "transpose" and _apart(graph, x.inputs[0]) for x in node.inputs):
        return swapped(graph, _product(graph, swapped(graph, right), swapped(graph, left)))
    else:
        return None
    return _with(graph, "subtract", _with(graph, "add", *parts), less)


def _apart(graph: Graph, x: Node) -> tuple[tuple[Node, Node], tuple[Node, Node], Node, Node] | None:
    """Return (a, h), (u, c), R and ‖R‖², if `x` is such a difference."""
    if x.name != "subtract" or len(x.shape) != 2 or x.array.size < LEAST_ELEMENTS:
        return None
    outer, target = x.inputs
    if outer.name != "multiply" or not target.constant or target.shape != x.shape:
        return None
    column, row = outer.inputs
    if column.shape != (x.shape[0], 1) or row.shape != (1, x.shape[1]):
        return None
    matrix = target.array
    u = graph.derived((target, "u"), lambda: _direction(matrix))
    v = graph.derived((target, "v"), lambda: u.array.T @ matrix)
    rest = graph.derived((target, "R"), lambda: _shortest(matrix - u.array * v.array, matrix))
    squared = graph.derived((target, "R²"), lambda: _squared(rest.array, matrix.dtype))
    along = _product(graph, swapped(graph, u), column)
    a = _with(graph, "subtract", column, _with(graph, "multiply", u, along))
    c = _with(graph, "subtract", _with(graph, "multiply", along, row), v)
    return (a, row), (u, c), rest, squared


def _direction(matrix: Array) -> Array:
    """The unit column u for which u uᵀ G is nearest to G, by the power method."""
    xp = array_module(matrix)
    row = matrix[int(xp.abs(matrix).max(axis=1).argmax())]
    for _ in range(STEPS):
        column = _unit(matrix @ _unit(row))
        row = column @ matrix
    return column[:, None]


def _shortest(rest: Array, matrix: Array) -> Array:
    """R in float32 where that says as much."""
    xp = array_module(rest)
    small = bool(xp.vdot(rest, rest) <= SMALL**2 * xp.vdot(matrix, matrix))
    return rest.astype(np.float32) if small else rest


def _squared(rest: Array, dtype: Any) -> Array:
    rest = rest.astype(dtype)
    return array_module(rest).vdot(rest, rest).reshape(1, 1)


def _short(graph: Graph, a: Node, b: Node) -> Node:
    """A product with R, computed in the shorter of the two dtypes, as numbers of the longer."""
    short, long = sorted((a.array.dtype, b.array.dtype), key=lambda dtype: dtype.itemsize)
    return _as(graph, _product(graph, _as(graph, a, short), _as(graph, b, short)), long)


def _as(graph: Graph, x: Node, dtype: Any) -> Node:
    if x.array.dtype == dtype:
        return x
    array = array_module(x.array).empty_like(x.array, dtype=dtype)
    return graph.add("floating", [x], array, dtype=dtype.name)


def _unit(vector: Array) -> Array:
    """Bring a vector to length 1, but for zero; squares of float32 are soon 0 or infinite."""
    xp = array_module(vector)
    largest = xp.abs(vector).max()
    vector = vector / xp.where(largest > 0, largest, 1)
    return vector / xp.maximum(xp.sqrt(xp.vdot(vector, vector)), 1)


def _square(graph: Graph, row: Node) -> Node:
    return _product(graph, row, swapped(graph, row))


def _product(graph: Graph, a: Node, b: Node) -> Node:
    xp = array_module(a.array)
    return graph.add("matmul", [a, b], xp.empty((a.shape[0], b.shape[1]), dtype=a.array.dtype))


def _with(graph: Graph, name: str, a: Node, b: Node) -> Node:
    xp = array_module(a.array)
    shape = xp.broadcast_shapes(a.shape, b.shape)
    return graph.add(name, [a, b], xp.empty(shape, dtype=a.array.dtype))

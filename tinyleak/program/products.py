"""Simplifications of matrix products: which way round they are made, and what they are joined to.

A product is quickest along the memory: with long rows to read, and long rows to write.
"""

import math

from tinyleak.backend import Array, array_module
from tinyleak.program.graph import Graph, Node

FEW_LINES = 8
"""Of a product; with OpenBLAS on a current processor, contiguous rows are quicker from there on."""


def scale_one_column(graph: Graph, node: Node) -> Node | None:
    """A matrix product over a length of 1 is a product of a column and a row, elementwise."""
    column, row = node.inputs
    if column.shape[-1] != 1:
        return None
    if column.shape[-2] <= row.shape[-1]:
        return graph.add("multiply", [column, row], node.array)
    # Long lines are quicker than many, so the longer of the two becomes the row.
    sources = [swapped(graph, row), swapped(graph, column)]
    product = graph.add("multiply", sources, _rows_first(node.array.swapaxes(-1, -2)))
    return swapped(graph, product)


def make_long_rows(graph: Graph, node: Node) -> Node | None:
    """xᵀ @ b = (bᵀ @ x)ᵀ, where that has the longer rows: a product is quicker along the memory."""
    left, b = node.inputs
    if not _has_longer_rows_turned(left, node.shape):
        return None
    array = _rows_first(node.array.swapaxes(-1, -2))
    return swapped(graph, graph.add("matmul", [swapped(graph, b), left.inputs[0]], array))


def _has_longer_rows_turned(left: Node, shape: tuple[int, ...]) -> bool:
    """Whether a product of this shape, of `left` and another, is to be made as its transpose."""
    turned = left.name == "transpose" and swaps_last_two(left)
    return turned and shape[-2] > shape[-1]


def lay_constants_out(graph: Graph, node: Node) -> Node | None:
    """A constant matrix is multiplied quickest with contiguous rows; by few, along its longer axis.

    A product with few rows or columns is read off the memory: there long lines are what counts.
    """
    few = [side <= FEW_LINES for side in (node.shape[-1], node.shape[-2])]
    sources = [
        _with_lines(graph, x, x.shape[-1] < x.shape[-2] and small) if x.constant else x
        for x, small in zip(node.inputs, few, strict=True)
    ]
    if all(source is x for source, x in zip(sources, node.inputs, strict=True)):
        return None
    return graph.add("matmul", sources, node.array)


def _with_lines(graph: Graph, x: Node, turned: bool) -> Node:
    """A constant with its rows contiguous in memory, or its columns if `turned`."""
    if _lines(x.array, turned).flags.c_contiguous:
        return x
    once = distinct(x.array)
    lines = _lines(once, turned)
    if lines.flags.c_contiguous:
        return x
    laid_out = graph.derived(
        (x, "lines", turned), lambda: array_module(once).ascontiguousarray(lines)
    ).array
    return graph.constant(spread(_lines(laid_out, turned), x.shape))


def _lines(array: Array, turned: bool) -> Array:
    return array.swapaxes(-1, -2) if turned else array


def distinct(matrices: Array) -> Array:
    """Return the matrices without copies: leading axes of broadcasting have length 1."""
    return matrices[tuple(slice(0, 1 if step == 0 else None) for step in matrices.strides[:-2])]


def spread(matrices: Array, shape: tuple[int, ...]) -> Array:
    """Return distinct matrices broadcast to the full shape again."""
    if matrices.shape == shape:
        return matrices
    return array_module(matrices).broadcast_to(matrices, shape)


def multiply_in_order(graph: Graph, node: Node) -> Node | None:
    """(a @ b)ᵀ next to something laid out the other way is better made so: bᵀ @ aᵀ."""
    if node.primitive is None:
        return None
    for position, x in enumerate(node.inputs):
        if x.name == "transpose" and x.inputs[0].name == "matmul" and swaps_last_two(x):
            a, b = (swapped(graph, operand) for operand in x.inputs[0].inputs)
            if not _has_longer_rows_turned(b, x.shape):
                sources = list(node.inputs)
                sources[position] = graph.add("matmul", [b, a], _rows_first(x.array))
                return graph.add(node.primitive, sources, node.array, **node.params)
    return None


def join_products(graph: Graph, node: Node) -> Node | None:
    """a @ b + c @ d = [a c] @ [b; d], where the factors are smaller than the products they save."""
    if any(x.name != "matmul" or x.shape != node.shape for x in node.inputs):
        return None
    (a, b), (c, d) = (x.inputs for x in node.inputs)
    alike = a.shape[:-1] == c.shape[:-1] and b.shape[:-2] == d.shape[:-2]
    if not alike or sum(math.prod(x.shape) for x in (a, b, c, d)) >= math.prod(node.shape):
        return None
    depth = a.shape[-1] + c.shape[-1]
    wide = _rows_first(a.array, (*a.shape[:-1], depth))
    tall = _rows_first(b.array, (*b.shape[:-2], depth, b.shape[-1]))
    left = graph.add("concatenate", [a, c], wide, axis=len(a.shape) - 1)
    right = graph.add("concatenate", [b, d], tall, axis=len(b.shape) - 2)
    return graph.add("matmul", [left, right], _rows_first(node.array))


def _rows_first(array: Array, shape: tuple[int, ...] | None = None) -> Array:
    """Stand for an array of this dtype, and this or the given shape, in row-major order."""
    return array_module(array).empty(shape or array.shape, dtype=array.dtype)


def swaps_last_two(node: Node) -> bool:
    """Whether a transpose swaps the last two axes and leaves the others."""
    return bool(node.params["axes"] == _last_twoswapped(node))


def swapped(graph: Graph, node: Node) -> Node:
    """Return the node with its last two axes swapped."""
    axes = _last_twoswapped(node)
    if node.name == "transpose" and node.params["axes"] == axes:
        return node.inputs[0]
    return graph.add("transpose", [node], node.array.transpose(axes), axes=axes)


def _last_twoswapped(node: Node) -> tuple[int, ...]:
    count = len(node.shape)
    return (*range(count - 2), count - 1, count - 2)

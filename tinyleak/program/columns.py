"""Simplifications of matrix products with columns in another order: the constant is reordered.

A convolution leaves the channels of each pixel together, and a linear layer expects the pixels of
each channel together. Between them stands an order of columns, P(x) = reshape(transpose(y)), which
copies the images with every evaluation. Reordering the layer's weight instead is done once.
"""

from __future__ import annotations

from typing import NamedTuple

from tinyleak.backend import Array
from tinyleak.ops.shape import inverse_order
from tinyleak.program.graph import Graph, Node
from tinyleak.program.products import distinct, spread, swapped, swaps_last_two


class Order(NamedTuple):
    """An order P of columns: they are split into axes of these lengths, which are transposed."""

    lengths: tuple[int, ...]
    axes: tuple[int, ...]

    def inverse(self) -> Order:
        """Return P⁻¹."""
        return Order(tuple([self.lengths[axis] for axis in self.axes]), inverse_order(self.axes))

    def axes_after(self, leading: int) -> tuple[int, ...]:
        """Return the order of all axes, where so many come first and stay."""
        return (*range(leading), *[leading + axis for axis in self.axes])


def contract_in_any_order(graph: Graph, node: Node) -> Node | None:
    """P(a) @ P(b)ᵀ = a @ bᵀ; and P(a) @ cᵀ = a @ P⁻¹(c)ᵀ for a constant c."""
    left, right = node.inputs
    order = _order_of(left)
    if order is None:
        return None
    if right.constant:
        right = _reordered(graph, right, order.inverse(), rows=True)
    elif right.name == "transpose" and swaps_last_two(right):
        if _order_of(right.inputs[0]) != order:
            return None
        right = swapped(graph, _columns_as_they_lie(graph, right.inputs[0]))
    else:
        return None
    return graph.add("matmul", [_columns_as_they_lie(graph, left), right], node.array)


def order_columns_later(graph: Graph, node: Node) -> Node | None:
    """a @ P(b) = P(a @ b)."""
    left, right = node.inputs
    order = _order_of(right)
    if order is None:
        return None
    product = graph.add("matmul", [left, _columns_as_they_lie(graph, right)], node.array)
    lies = node.array.reshape(*node.shape[:-1], *order.lengths)
    split = graph.add("reshape", [product], lies, shape=lies.shape)
    axes = order.axes_after(node.array.ndim - 1)
    turned = graph.add("transpose", [split], lies.transpose(axes), axes=axes)
    return graph.add("reshape", [turned], node.array, shape=node.shape)


def transposed_for_free(graph: Graph, x: Node, axes: tuple[int, ...]) -> Node | None:
    """Return `x` transposed if it is `reshape(a @ c)`, each row split, and c a constant."""
    if x.name != "reshape" or x.inputs[0].name != "matmul":
        return None
    (product,) = x.inputs
    a, c = product.inputs
    rows = len(product.shape) - 1
    if not c.constant or x.shape[:rows] != product.shape[:rows] or axes[:rows] != (*range(rows),):
        return None
    order = Order(x.shape[rows:], tuple([axis - rows for axis in axes[rows:]]))
    product = graph.add("matmul", [a, _reordered(graph, c, order)], product.array)
    shape = tuple([x.shape[axis] for axis in axes])
    return graph.add("reshape", [product], product.array.reshape(shape), shape=shape)


def _order_of(x: Node) -> Order | None:
    """Return P if `x` is P(y), a reshape of a transpose of only the axes that become columns."""
    if x.name != "reshape" or x.inputs[0].name != "transpose":
        return None
    (turned,) = x.inputs
    axes, rows = turned.params["axes"], len(x.shape) - 1
    if turned.shape[:rows] != x.shape[:rows] or axes[:rows] != (*range(rows),):
        return None
    return Order(turned.inputs[0].shape[rows:], tuple([axis - rows for axis in axes[rows:]]))


def _columns_as_they_lie(graph: Graph, x: Node) -> Node:
    """y, where x is P(y)."""
    return graph.add("reshape", x.inputs[0].inputs, x.array, shape=x.shape)


def _reordered(graph: Graph, c: Node, order: Order, *, rows: bool = False) -> Node:
    """P(c) for a constant c; or P(cᵀ)ᵀ, whose rows are in that order."""

    def compute() -> Array:
        once = distinct(c.array)
        lines = once.swapaxes(-1, -2) if rows else once
        split = lines.reshape(*lines.shape[:-1], *order.lengths)
        lines = split.transpose(order.axes_after(lines.ndim - 1)).reshape(lines.shape)
        return spread(lines.swapaxes(-1, -2) if rows else lines, c.shape)

    return graph.derived((c, order, rows), compute)

"""Gradients, of any order.

`grad` is an ordinary program on Tensors: it walks the graph that the operations left behind, from
the result back to the inputs asked for, and at each node calls that primitive's rule. What it
returns are Tensors that remember how *they* were made, so `grad` of a `grad` is the second order.

Lessons: lessons/02_walking_backwards.py, lessons/04_gradients_of_gradients.py
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

from tinyleak.backend import array_module
from tinyleak.ops.elementwise import add, stop_gradient
from tinyleak.ops.reduce import sum_to
from tinyleak.tensor import Tensor

Key = TypeVar("Key")
Node = TypeVar("Node")


@overload
def grad(y: Tensor, xs: Tensor, g: Tensor | None = None) -> Tensor: ...
@overload
def grad(y: Tensor, xs: Mapping[Key, Tensor], g: Tensor | None = None) -> dict[Key, Tensor]: ...
@overload
def grad(y: Tensor, xs: Sequence[Tensor], g: Tensor | None = None) -> tuple[Tensor, ...]: ...
def grad(y: Tensor, xs: Any, g: Tensor | None = None) -> Any:
    """Return `∂y/∂x` for each x in `xs`, as Tensors that can be differentiated again.

    Args:
        y: a scalar; or, if `g` is given, of any shape.
        xs: leaves, or results on the way to `y`: one Tensor, a mapping from names, or a sequence.
        g: of y's shape. The gradients are then those of `Σ g · y`.

    Returns:
        For each x a Tensor of its shape, zeros where `y` does not depend on x: one Tensor for one,
        a dict of the same names for a mapping, a tuple for a sequence.

    Raises:
        ValueError: `y` is not a scalar and `g` is not given; `g` has another shape than `y`; a rule
            answered in a shape that does not fit its input.
        TypeError: something in `xs` is not a Tensor of floating numbers; a rule answered with the
            wrong number of gradients.
        NotImplementedError: a primitive on the way has no rule.
    """
    if isinstance(xs, Tensor):
        return grad(y, (xs,), g)[0]
    if isinstance(xs, Mapping):
        return dict(zip(xs, grad(y, tuple(xs.values()), g), strict=True))
    if g is None and y.shape != ():
        raise ValueError(f"grad needs a scalar, not {y.shape}: sum it first, or pass g")
    if g is None:
        g = Tensor(array_module(y._array).ones((), dtype=y.dtype))
    return vjp({y: g}, xs)


def vjp(cotangents: Mapping[Tensor, Tensor], xs: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of `Σ g · y` over several results y at once, each with its own g.

    `cotangents` has each y's g, of its shape; one y may depend on another. Raises as `grad` does.
    """
    xs = tuple(xs) if isinstance(xs, Iterable) else (xs,)
    for x in xs:
        if not isinstance(x, Tensor) or x.dtype.kind != "f":
            from tinyleak.interop import called  # beside the path

            what = called(x) + (f" of {x.dtype}" if isinstance(x, Tensor) else "")
            sentence = f"grad was asked for the gradient with respect to {what}"
            raise TypeError(f"{sentence}; give Tensors of floating numbers")
    for y, g in cotangents.items():
        if g.shape != y.shape:
            raise ValueError(f"grad was given g of shape {g.shape} for y of shape {y.shape}")
    by = dict(cotangents)
    on_the_way = depending_on(xs, order := topological_order(*cotangents))
    for node in reversed(order):
        if node.primitive is None or node not in by or on_the_way.isdisjoint(node.inputs):
            continue
        answers = node.primitive.gradients(by[node], node)
        for x, answer in zip(node.inputs, answers, strict=True):
            if answer is None or x not in on_the_way:
                continue
            gradient = answer if isinstance(answer, Tensor) else answer()
            if gradient._array.shape != x._array.shape:
                gradient = _undo_broadcasting(gradient, x, node.primitive.name)
            by[x] = add(by[x], gradient) if x in by else gradient
    zeros = array_module(*[x._array for x in xs]).zeros
    return tuple(by[x] if x in by else Tensor(zeros(x.shape, dtype=x.dtype)) for x in xs)


def topological_order(*results: Node) -> list[Node]:
    """List every node that the results depend on, each after its own inputs.

    Nodes are Tensors, or whatever else has `inputs`. The walk keeps its own stack, since a graph
    can be deeper than Python's.
    """
    order: dict[Any, None] = {}  # for its keys, which keep the order they came in
    seen: set[Any] = set()
    stack: list[Any] = list(reversed(results))
    while stack:
        node = stack.pop()
        if node in seen or not node.inputs:
            # The second time it is on top, all that lay above it, its inputs, has been listed.
            order[node] = None
        else:
            seen.add(node)
            stack.append(node)
            stack.extend(node.inputs[::-1])
    return list(order)


def depending_on(xs: Sequence[Tensor], order: list[Tensor]) -> set[Tensor]:
    """Return those nodes of a topological order that are among `xs` or depend on one of them."""
    found = set(xs)
    for node in order:
        if node.primitive is not stop_gradient and not found.isdisjoint(node.inputs):
            found.add(node)
    return found


def _undo_broadcasting(answer: Tensor, x: Tensor, name: str) -> Tensor:
    """Sum a gradient over the axes along which its input was broadcast: the adjoint of copying."""
    try:
        return sum_to(answer, shape=x.shape)
    except ValueError:
        raise ValueError(
            f"the rule of {name} returned a gradient of shape {answer.shape} for an input of "
            f"shape {x.shape}; it must have that shape, or one that it broadcasts to"
        ) from None

"""A graph being rewritten: each node is simplified as it is added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from tinyleak.backend import Array, array_module
from tinyleak.tensor import PRIMITIVES, Primitive


class Node:
    """One operation of a program, or one of its inputs or constants.

    Attributes:
        primitive: the operation; None for an input or a constant.
        inputs: the nodes it reads.
        params: its static parameters.
        array: for an input or constant its value; else an array of the shape, dtype and order of
            axes that its value should have in memory.
        constant: whether it is the same in every run.
    """

    __slots__ = ("array", "constant", "inputs", "params", "primitive")

    def __init__(
        self,
        array: Array,
        primitive: Primitive | None = None,
        inputs: tuple[Node, ...] = (),
        params: dict[str, Any] | None = None,
        *,
        constant: bool = False,
    ) -> None:
        self.array = array
        self.primitive = primitive
        self.inputs = inputs
        self.params = params or {}
        self.constant = constant

    @property
    def name(self) -> str:
        """The name of the operation."""
        return self.primitive.name if self.primitive else "constant" if self.constant else "input"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its value."""
        return self.array.shape


Rewrite: TypeAlias = "Callable[[Graph, Node], Node | None]"


class Graph:
    """Adds nodes, replacing each by something simpler where a rewrite knows how.

    Attributes:
        removed: how many nodes each simplification did away with, by its name.
    """

    def __init__(self, rewrites: dict[str, list[Rewrite]]) -> None:
        self.rewrites = rewrites
        self.removed: Counter[str] = Counter()
        self._known: dict[Any, Node] = {}

    def constant(self, array: Array) -> Node:
        """Add a constant; equal small ones are one."""
        key: Any = ("constant", id(array))
        if array.size == 1:
            key = ("constant", array.shape, array.dtype.str, array.item())
        return self._known.setdefault(key, Node(array, constant=True))

    def add(
        self, primitive: Primitive | str, inputs: Iterable[Node], array: Array, **params: Any
    ) -> Node:
        """Add an operation whose result has the shape, dtype and layout of `array`."""
        if isinstance(primitive, str):
            primitive = PRIMITIVES[primitive]
        inputs = tuple(inputs)
        if all(node.constant for node in inputs):
            arrays = [node.array for node in inputs]
            return self.constant(primitive.forward(array_module(*arrays), *arrays, **params))
        node = Node(array, primitive, inputs, params)
        for rewrite in self.rewrites.get(primitive.name, ()):
            simpler = rewrite(self, node)
            if simpler is not None:
                self.removed[rewrite.__name__.strip("_").replace("_", " ")] += 1
                return simpler
        key = (primitive.name, tuple(map(id, inputs)), tuple(sorted(params.items())))
        known = self._known.setdefault(key, node)
        if known is not node:
            self.removed["merge equal nodes"] += 1
        return known

"""A graph being rewritten: each node is simplified as it is added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tinyleak.backend import Array
from tinyleak.tensor import PRIMITIVES, Primitive


@dataclass(eq=False, repr=False, slots=True)
class Node:
    """One operation of a program, or one of its inputs or constants."""

    name: str  # of the operation, or "input" or "constant"
    array: Array  # its value; of an operation, one of its shape, dtype and layout
    primitive: Primitive | None = None  # the operation; None for an input or a constant
    inputs: tuple[Node, ...] = ()  # the nodes it reads
    params: dict[str, Any] = field(default_factory=dict)  # its static parameters
    constant: bool = field(init=False)  # whether it is the same in every run
    shape: tuple[int, ...] = field(init=False)  # of its value

    def __post_init__(self) -> None:
        self.constant, self.shape = self.name == "constant", self.array.shape


Rewrite: TypeAlias = "Callable[[Graph, Node], Node | None]"
Candidates: TypeAlias = "Callable[..., Sequence[Rewrite]]"
"""The rewrites that may find something, by the names of an operation and of its inputs."""


class Graph:
    """Adds nodes, replacing each by something simpler where a rewrite knows how."""

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.applied: Counter[Rewrite] = Counter()  # how often each found something
        self.merged = 0  # how many nodes were equal to one that was there
        self._known: dict[Any, Node] = {}

    def constant(self, array: Array) -> Node:
        """Add a constant; equal single numbers are one, and so are equal views of a whole array."""
        base = getattr(array, "base", None)
        whole = base if getattr(base, "size", None) == array.size else array
        key: Any = ("constant", id(whole), array.dtype.str, array.shape, array.strides)
        if array.size == 1:
            # Spelled out, since 0.0 and −0.0 are equal but not the same.
            key = ("constant", array.shape, array.dtype.str, repr(array.item()))
        return self._known.setdefault(key, Node("constant", array))

    def derived(self, key: Hashable, compute: Callable[[], Array]) -> Node:
        """Add the constant that `compute` returns, unless one was added under this key."""
        if key not in self._known:
            self._known[key] = self.constant(compute())
        return self._known[key]

    def add(
        self, primitive: Primitive | str, inputs: Iterable[Node], array: Array, **params: Any
    ) -> Node:
        """Add an operation whose result has the shape, dtype and layout of `array`."""
        if isinstance(primitive, str):
            primitive = PRIMITIVES[primitive]
        inputs = tuple(inputs)
        key = (primitive, inputs, *params.items())
        known = self._known.get(key)
        if known is not None:
            self.merged += 1
            return known
        node = Node(primitive.name, array, primitive, inputs, params)
        for rewrite in self.candidates(node.name, *[x.name for x in inputs]):
            simpler = rewrite(self, node)
            if simpler is not None:
                self.applied[rewrite] += 1
                node = simpler
                break
        self._known[key] = node
        return node

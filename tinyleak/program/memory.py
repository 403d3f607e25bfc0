"""A buffer for every value: views stay views, and a buffer is reused after its last reading.

Lesson: lessons/14_a_graph_is_a_program.py
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from tinyleak.backend import Array, array_module
from tinyleak.program.graph import Node
from tinyleak.program.kernels import IN_PLACE, VIEWS, prepare
from tinyleak.program.library import LINE, Call, Scratch, empty_bytes, laid_over, shares_memory

BLOCK = 2**14  # bytes that small buffers are cut from, which is quicker than asking for each


class Instruction(NamedTuple):
    """One step of a program."""

    name: str  # of the primitive
    out: Array  # the buffer that it writes
    reads: tuple[Array, ...]  # the buffers that it reads
    calls: list[Call]  # of the array library, that do it
    params: dict[str, Any]  # the primitive's static ones

    def __str__(self) -> str:
        reads = ", ".join(str(array.shape) for array in self.reads)
        return f"{self.name:<12} {self.out.shape!s:<24} {self.out.nbytes:>9,} B  <- {reads}"


class Memory:
    """Hands out buffers, and takes back those whose values were read for the last time."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.total = 0
        self._block = empty_bytes(module, 0)
        self._free: defaultdict[int, list[Array]] = defaultdict(list)

    def claim(self, like: Array) -> tuple[Array, Array]:
        """Return raw memory, and an array over it of the shape and axis order of `like`."""
        size = like.nbytes
        free = self._free.get(size) or self._slightly_larger(size)
        if free:
            # The one given back last is the likeliest to be in the processor's cache.
            raw = free.pop()
        else:
            raw = self._new(size)
            self.total += size
        return raw, laid_over(raw, like)

    def _new(self, size: int) -> Array:
        """Cut memory off the block in hand, or off a new one; what is large has its own."""
        if size > BLOCK // 4:
            return empty_bytes(self.module, size)
        if size > self._block.nbytes:
            self._block = empty_bytes(self.module, BLOCK)
        raw = self._block[:size]
        self._block = self._block[-(-size // LINE) * LINE :]
        return raw

    def _slightly_larger(self, size: int) -> list[Array]:
        """Return the free buffers of the next larger size, up to twice the size."""
        sizes = [free for free, raws in self._free.items() if size < free <= 2 * size and raws]
        return self._free[min(sizes)] if sizes else []

    def release(self, raw: Array) -> None:
        """Take raw memory back."""
        self._free[raw.nbytes].append(raw)


def copied(array: Array) -> Array:
    """Return a copy of the same memory layout; axes that are only broadcast stay so."""
    if 0 not in array.strides:
        return array.copy(order="K")
    once = array[tuple(slice(0, 1 if step == 0 else None) for step in array.strides)]
    return array_module(array).broadcast_to(once.copy(order="K"), array.shape)


def lay_out(
    order: Sequence[Node], outputs: Sequence[Node]
) -> tuple[list[Instruction], dict[Node, Array], int]:
    """Give every node of an ordered graph its buffer, and prepare the calls that fill it.

    Return the instructions, where each node's value lies, and the bytes of all buffers.
    """
    module = array_module(*[node.array for node in order[:1]])  # an input: all lie on its device
    memory, scratch = Memory(module), Scratch(module)
    place: dict[Node, Array] = {}
    raw: dict[Node, Array] = {}
    owner: dict[Node, Node] = {}  # whose memory a node's value lies in: a view's is not its own
    last_read = _last_reads(order, outputs)
    instructions: list[Instruction] = []

    for now, node in enumerate(order):
        owner[node] = node
        if node.primitive is None:
            # A constant may be an array of the caller's, who may change it later.
            place[node] = copied(node.array) if node.constant else memory.claim(node.array)[1]
            continue
        reads = tuple([place[x] for x in node.inputs])
        if node.name in VIEWS:
            view = node.primitive.forward(module, *reads, **node.params)
            if node.name != "reshape" or shares_memory(module, view, reads[0]):
                place[node], owner[node] = view, owner[node.inputs[0]]
                last_read[owner[node]] = max(last_read[owner[node]], last_read[node])
                continue
        # In the inputs' order, so that one graph always has one layout.
        owners = dict.fromkeys([owner[x] for x in node.inputs])
        dying = [x for x in owners if last_read[x] == now]
        heir = _overwritable(node, dying, owner, place) if node.name in IN_PLACE else None
        if heir is None:
            raw[node], out = memory.claim(node.array)
        else:
            dying.remove(heir)
            raw[node], out = raw[heir], place[heir]
        place[node] = out
        calls = prepare(node.primitive, scratch, reads, out, node.params)
        instructions.append(Instruction(node.name, out, reads, calls, node.params))
        for dead in dying:
            memory.release(raw[dead])
    return instructions, place, memory.total


def _last_reads(order: Sequence[Node], outputs: Sequence[Node]) -> dict[Node, int]:
    """For each node when it is read for the last time; inputs, constants and outputs, never."""
    last = {x: now for now, node in enumerate(order) for x in node.inputs}
    never = len(order)
    last.update((node, never) for node in order if node.primitive is None)
    last.update((output, never) for output in outputs)
    return last


def _overwritable(
    node: Node, dying: Sequence[Node], owner: dict[Node, Node], place: dict[Node, Array]
) -> Node | None:
    """The input whose memory an elementwise operation may write its result over, if there is one.

    It must be read for the last time here, through no other view, and lie as the result should.
    """
    for x in node.inputs:
        if x not in dying or x.shape != node.shape or x.array.dtype != node.array.dtype:
            continue
        seen_otherwise = [y for y in node.inputs if owner[y] is x and y is not x]
        if not seen_otherwise and node.array.strides == place[x].strides:
            return x
    return None

"""A program: a traced graph with a buffer for every value, replayed with one call for each node.

Lesson: lessons/14_a_graph_is_a_program.py
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import NoReturn

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.gradient import topological_order
from tinyleak.program.export import written
from tinyleak.program.graph import Graph, Node, Rewrite
from tinyleak.program.library import Call
from tinyleak.program.memory import Instruction, lay_out
from tinyleak.program.rewrites import candidates
from tinyleak.program.tracing import (
    Outputs,
    Recording,
    TraceError,
    as_example,
    record,
    without_collecting,
)
from tinyleak.tensor import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """A function of arrays, with every step planned and every buffer in place.

    Calling it copies the arrays in, replays the instructions and returns copies of the outputs.
    A program owns its buffers, so only one thread may call it at a time, and a copy would share
    them; trace the function again for another thread, or in another process.
    """

    instructions: tuple[Instruction, ...]  # what is done, in order
    calls: tuple[Call, ...]  # of the array library, that the instructions come down to, in order
    inputs: tuple[Array, ...]  # the buffers that the arguments are copied into
    outputs: tuple[Array, ...]  # the buffers that the results are copied from
    removed: dict[str, int]  # how many nodes were traced, how often each simplification was made
    buffer_bytes: int  # the memory of all buffers
    _running: Lock = field(default_factory=Lock, repr=False)

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Replay on new arrays of the traced shapes and dtypes.

        Raises:
            ValueError: another number of arrays, or another shape or dtype than was traced.
            TypeError: something else than an array, or a Tensor that is being traced.
            RuntimeError: another thread is in the middle of a call.
        """
        return self.run(self._replay, arrays)

    def _replay(self) -> None:
        for call in self.calls:
            call()

    def run(self, replay: Callable[[], object], arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Copy the arrays into the input buffers, replay, and return copies of the outputs."""
        if not self._running.acquire(blocking=False):
            raise RuntimeError(
                "the program was called while another thread is running it; trace the function "
                "once for each thread"
            )
        try:
            self._load(arrays)
            replay()
            return tuple([output.copy() for output in self.outputs])
        finally:
            self._running.release()

    def _load(self, arrays: Sequence[Array]) -> None:
        if len(arrays) != len(self.inputs):
            raise ValueError(f"the program takes {len(self.inputs)} arrays, not {len(arrays)}")
        for buffer, given in zip(self.inputs, arrays, strict=True):
            array = given if type(given) is type(buffer) else as_example(given)
            if array.shape != buffer.shape or array.dtype != buffer.dtype:
                raise ValueError(
                    f"the program was traced for {buffer.dtype} {buffer.shape} and was given "
                    f"{array.dtype} {array.shape}; trace it again for these"
                )
            buffer[...] = array

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a program cannot be copied or pickled, since its calls refer to its own buffers; "
            "trace the function again instead, or export it and load the text"
        )

    def export(self) -> str:
        """Return the program as JSON, which `load_program`, or another language, replays.

        `tinyleak.program.export` describes the format, and what it lacks: a TypeError.
        """
        return written(self.instructions, self.inputs, self.outputs)

    def __str__(self) -> str:
        lines = [f"{count:>6} {what}" for what, count in self.removed.items()]
        lines.append(
            f"{len(self.instructions):>6} instructions remain: {len(self.calls)} library calls, "
            f"{self.buffer_bytes:,} bytes of buffers"
        )
        return "\n".join([*lines, "", *(str(line) for line in self.instructions)])


@without_collecting()
def trace(function: Callable[..., Outputs], *examples: Array, check: bool = True) -> Program:
    """Make a program of a function of Tensors, by running it once.

    Args:
        function: takes one Tensor for each example and returns a Tensor or a tuple of them. It
            must do the same whatever the numbers are.
        examples: arrays of the shapes and dtypes that the program will be called with.
        check: compare the program with the function, on the examples and once more on other
            numbers; this finds a function that is not the same every time. It is off where
            rounding may decide (a relu in float32, near 0), or where the time counts.

    Raises:
        TraceError: the function looked at numbers, kept Tensors, or is not the same every time.
        TypeError: an example is not an array, or is a Tensor that is being traced.
    """
    examples = tuple(as_example(example) for example in examples)
    recording = record(function, examples)
    graph, starts, ends, needed = _simplify(recording)
    traced = len(recording.tape)
    expected = [output._array for output in recording.outputs]
    recording.forget()
    # The inputs come first, even one that nothing reads: they are filled before the first
    # instruction, so none of them may get a buffer that was somebody else's earlier.
    order = list(dict.fromkeys([*starts, *topological_order(*ends)]))
    instructions, place, buffer_bytes = lay_out(order, ends)
    live = len([node for node in order if node.primitive])
    removed = {
        "traced": traced,
        "dead: no output needs it": traced - needed,
        **{_label(rewrite): count for rewrite, count in graph.applied.items()},
        "merge equal nodes": graph.merged,
        "turn views into views": live - len(instructions),
    }
    program = Program(
        tuple(instructions),
        tuple([call for instruction in instructions for call in instruction.calls]),
        tuple(place[start] for start in starts),
        tuple(place[end] for end in ends),
        removed,
        buffer_bytes,
    )
    if check:
        _require_equal(program(*examples), expected)
        others = [0.75 * x + 0.125 if x.dtype.kind == "f" else x for x in examples]
        answer = function(*(Tensor(other) for other in others))
        again = answer if isinstance(answer, tuple) else (answer,)
        _require_equal(program(*others), [output.data for output in again])
    return program


def _label(rewrite: Rewrite) -> str:
    return rewrite.__name__.strip("_").replace("_", " ")


def _simplify(recording: Recording) -> tuple[Graph, list[Node], list[Node], int]:
    """Build the simplified graph of what was recorded.

    Return it, its inputs, its outputs, and how many recorded operations they needed.
    """
    graph = Graph(candidates)
    nodes = _Nodes(graph)
    starts = [Node("input", x._array) for x in recording.inputs]
    nodes.update(zip(recording.inputs, starts, strict=True))
    needed = recording.needed()
    for tensor in needed:
        if tensor.primitive is not None:
            sources = tuple([nodes[x] for x in tensor.inputs])
            nodes[tensor] = graph.add(tensor.primitive, sources, tensor._array, **tensor.params)
    return graph, starts, [nodes[output] for output in recording.outputs], len(needed)


class _Nodes(dict[Tensor, Node]):
    """The node of each Tensor; one that was not traced depends on no input, and is a constant."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __missing__(self, tensor: Tensor) -> Node:
        node = self[tensor] = self._graph.constant(tensor._array)
        return node


def _require_equal(found: Sequence[Array], expected: Sequence[Array]) -> None:
    """Raise TraceError if a replay differs from the function by more than a sum's rounding.

    Where the function's answer is infinite or NaN, rounding may decide which, and all is allowed.
    """
    for ours, theirs in zip(found, expected, strict=True):
        if ours.dtype != theirs.dtype or not _is_close(ours, theirs):
            raise TraceError(
                "the traced function is not the same every time: on other numbers its program "
                "and it differ; random numbers, counters and changing arrays must be arguments"
            )


def _is_close(ours: Array, theirs: Array) -> bool:
    module = array_module(theirs)
    if theirs.dtype.kind != "f" or theirs.size == 0:
        return bool(module.all(ours == theirs))
    finite = module.isfinite(theirs)
    size = module.max(module.where(finite, module.abs(theirs), 0))
    allowed = float(np.finfo(theirs.dtype).eps) ** 0.5 * (1.0 + float(size))
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(module.all((module.abs(ours - theirs) <= allowed) | ~finite))

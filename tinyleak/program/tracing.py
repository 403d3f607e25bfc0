"""Tracing: run a function of Tensors once and keep what it did.

Lesson: lessons/14_a_graph_is_a_program.py
"""

import gc
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tinyleak.backend import Array
from tinyleak.interop import as_array, called
from tinyleak.tensor import Primitive, Tensor

Outputs = Tensor | tuple[Tensor, ...]

PAUSES = (0.001, 0.01, 0.1)
"""Seconds to wait for others to let go of a Tensor. A profiler that runs in a thread of its own, as
that of a Dask worker, looks at the frames of the function, and so holds its Tensors for a moment.
"""


class TraceError(TypeError):
    """A function that cannot be made a program: it looks at numbers, or keeps Tensors."""


class Traced(Tensor):
    """A Tensor whose numbers a traced function may not look at.

    What it does next must not depend on them, since a program always does the same.
    """

    __slots__ = ("tape",)

    tape: list[Tensor]

    def _result(
        self, data: Array, operation: Primitive, inputs: tuple[Tensor, ...], params: dict[str, Any]
    ) -> Tensor:
        result = Traced(data, operation, inputs, params)
        result.tape = self.tape
        self.tape.append(result)
        return result

    @property
    def data(self) -> Array:
        """Refused, with TraceError: see the class."""
        made_by = self.primitive.name if self.primitive else "an input"
        raise TraceError(
            f"the function being traced looked at the numbers of a Tensor made by {made_by}; a "
            "program does the same whatever the numbers are: use where() in place of a branch, "
            "and read numbers after the call"
        )


@dataclass
class Recording:
    """What a function did: its inputs, what it computed from them, in order, and its outputs."""

    inputs: list[Tensor]
    tape: list[Tensor]
    outputs: list[Tensor]

    def needed(self) -> list[Tensor]:
        """Return what the outputs depend on, in the order in which it was computed."""
        needed = set(self.outputs)
        for tensor in reversed(self.tape):
            if tensor in needed:
                needed.update(tensor.inputs)
        return [tensor for tensor in self.tape if tensor in needed]

    def forget(self) -> None:
        """Let go of every Tensor; a TraceError if something else still holds one.

        A function that stores a Tensor elsewhere would expect it to change with every replay.
        """
        # Whatever is kept keeps what it was made from, and so an input.
        witnesses = [weakref.ref(tensor) for tensor in self.inputs]
        self.inputs.clear()
        self.outputs.clear()
        self.tape.clear()
        for pause in PAUSES:
            if all(witness() is None for witness in witnesses):
                return
            time.sleep(pause)
        kept = _last_made(self.tape)
        if kept is not None:
            origin = f"made by {kept.primitive.name}" if kept.primitive else "that it was given"
            raise TraceError(
                f"the function being traced kept a Tensor of shape {kept.shape} {origin} "
                "after it returned; return it instead, since a program has no other way out"
            )


def _last_made(tape: list[Tensor]) -> Tensor | None:
    """Find a Tensor of this tape that is still alive, and from which no other one was made."""
    alive = [x for x in gc.get_objects() if type(x) is Traced and x.tape is tape]
    read = {x for tensor in alive for x in tensor.inputs}
    return next((tensor for tensor in alive if tensor not in read), None)


@contextmanager
def without_collecting() -> Iterator[None]:
    """Keep the garbage collector from looking through thousands of new objects again and again.

    None of them is part of a cycle, so each is freed once nothing refers to it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def as_example(given: Any) -> Array:
    """Return what a program is traced for, or called on, as an array; of a Tensor, its numbers.

    What is not an array of numbers, or is a Tensor that is being traced, is a TypeError.
    """
    if isinstance(given, Traced):
        raise TraceError(
            "a program was given a Tensor that is being traced, but it computes with numbers and "
            "leaves no graph; call the function that it was traced from instead"
        )
    return as_array(given.data if isinstance(given, Tensor) else given)


def record(function: Callable[..., Outputs], examples: Sequence[Array]) -> Recording:
    """Run `function` on Tensors of the examples and keep every operation on them.

    A function that looks at numbers, or returns something other than Tensors, is a TraceError.
    """
    tape: list[Tensor] = []
    inputs: list[Tensor] = []
    for example in examples:
        traced = Traced(example)
        traced.tape = tape
        inputs.append(traced)
    answer = function(*inputs)
    outputs = list(answer) if isinstance(answer, tuple) else [answer]
    for output in outputs:
        if not isinstance(output, Tensor):
            raise TraceError(
                f"the function being traced returned {called(output)}; "
                "it must return a Tensor or a tuple of Tensors"
            )
    return Recording(inputs, tape, outputs)

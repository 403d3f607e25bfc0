"""A program read from text, which may be hostile: it is bounded, checked, and run once on zeros.

What the text says is looked up or counted, never executed; `tinyleak.program.export` describes it.
"""

import base64
import json
import math
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, TypeVar, get_type_hints

import numpy as np

from tinyleak.backend import Array
from tinyleak.program.export import DTYPES, FORMAT, VERSION
from tinyleak.program.kernels import prepare
from tinyleak.program.library import Scratch, empty_bytes
from tinyleak.program.memory import Instruction
from tinyleak.program.program import Program
from tinyleak.tensor import PRIMITIVES, Primitive

T = TypeVar("T")

PARTS = ("buffers", "arrays", "instructions", "inputs", "outputs")

MOST_TEXT = 2**27  # letters: constants of 100 MB; ResNet-20's objective takes 10 MB
MOST_BYTES = 2**31  # of all buffers together

MOST_ELEMENTS = 2**27
"""Of one array: a view may be far larger than its buffer, and what works on it makes copies."""

MOST_PLACES = 2**16  # of one window
MOST_WORK = 2**35  # multiplications, counted as matrix products do them: half a minute of one core


def load_program(text: str | bytes) -> Program:
    """Return the program that `Program.export` wrote: it replays the same numbers, bit for bit.

    A text that is not such a program is a ValueError: damaged, of another version, of more than 2²⁷
    characters, out of bounds, larger than a machine bears, or with primitives that this package
    does not have.
    """
    try:
        return _read(text)
    except _RefusedError as refused:
        raise ValueError(f"this text is no program that can be loaded: {refused}") from None


class _RefusedError(Exception):
    """Why a text is not a program."""


def _read(text: str | bytes) -> Program:
    if len(text) > MOST_TEXT:
        raise _RefusedError(f"it has {len(text):,} characters, and {MOST_TEXT:,} are read at most")
    said = _attempt(json.loads, [text], "it is not whole JSON; export the program again")
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise _RefusedError(f'it lacks "format": "{FORMAT}"; give what Program.export returned')
    if said.get("version") != VERSION:
        raise _RefusedError(f"it is not of version {VERSION}; export the program again")
    parts: list[Any] = [said.get(key) for key in PARTS]
    if not all(isinstance(part, list) for part in parts):
        raise _RefusedError(f"it lacks one of {', '.join(PARTS)}; export the program again")
    buffers, arrays, steps, inputs, outputs = parts
    memory = _Memory(buffers, arrays)
    work, instructions = 0, []
    for number, step in enumerate(steps):
        sentence = f"its instruction {number} does not fit"
        instruction = _attempt(partial(_instruction, memory), step, sentence)
        instructions.append(instruction)
        work += _attempt(_work, [instruction], sentence)
        if work > MOST_WORK:
            raise _RefusedError(f"it takes more than {MOST_WORK:,} multiplications")
    program = Program(
        tuple(instructions),
        tuple([call for instruction in instructions for call in instruction.calls]),
        tuple([memory.named(x, changes=True) for x in inputs]),
        tuple([memory.named(x) for x in outputs]),
        {},
        sum(raw.nbytes for raw in memory.raw),
    )
    for number, instruction in enumerate(instructions):
        _attempt(_run, [instruction], f"its instruction {number} does not fit")
    return program


class _Memory:
    """The buffers and arrays of a text."""

    def __init__(self, buffers: list[Any], arrays: list[Any]) -> None:
        sizes: list[int] = [
            _attempt(lambda one: _count(one["bytes"]), [one], "its buffers lack sizes")
            for one in buffers
        ]
        if sum(sizes) > MOST_BYTES:
            raise _RefusedError(
                f"it asks for {sum(sizes):,} bytes, and {MOST_BYTES:,} are given at most"
            )
        self.constant = ["data" in one for one in buffers]
        self.raw = [
            self._filled(one["data"], size) if "data" in one else self._zeros(size)
            for one, size in zip(buffers, sizes, strict=True)
        ]
        self.arrays = [
            _attempt(self._view, one, f"its array {number} is out of bounds")
            for number, one in enumerate(arrays)
        ]
        self.buffer_of = [one[1] for one in arrays]
        self.scratch = Scratch(np)

    def named(self, number: Any, *, changes: bool = False) -> Array:
        """Return the array of that number; one that is to be written to if it `changes`."""
        if type(number) is not int or not 0 <= number < len(self.arrays):
            raise _RefusedError("it names an array that it does not have")
        if changes and self.constant[self.buffer_of[number]]:
            raise _RefusedError("it writes over a constant")
        return self.arrays[number]

    def _zeros(self, size: int) -> Array:
        raw = empty_bytes(np, size)
        raw.fill(0)
        return raw

    def _filled(self, data: Any, size: int) -> Array:
        decode = partial(base64.b64decode, validate=True)
        content = _attempt(decode, [data], "a constant is damaged")
        if len(content) != size:
            raise _RefusedError(f"a constant has {len(content):,} bytes in place of {size:,}")
        raw = empty_bytes(np, size)
        raw[:] = np.frombuffer(content, np.uint8)
        return raw

    def _view(self, dtype: Any, buffer: Any, offset: Any, shape: Any, strides: Any) -> Array:
        lengths, steps = [*map(_count, shape)], [*map(_count, strides)]
        if dtype not in DTYPES or math.prod(lengths) > MOST_ELEMENTS:
            raise ValueError
        item = np.dtype(dtype).itemsize
        # NumPy refuses a view that leaves its buffer.
        return np.ndarray(
            lengths,
            dtype,
            self.raw[_count(buffer)],
            _count(offset) * item,
            [step * item for step in steps],
        )


def _instruction(memory: _Memory, name: str, out: Any, reads: Any, params: Any) -> Instruction:
    primitive = PRIMITIVES.get(name)
    if primitive is None:
        raise _RefusedError(
            f"it uses {ascii(name)[:40]}, which is no primitive here; import what defines it"
        )
    target = memory.named(out, changes=True)
    arrays = tuple([memory.named(x) for x in reads])
    kinds = _declared(primitive)
    static = {key: _as_kind(kinds.get(key), _tuples(value)) for key, value in params.items()}
    _require_room(name, arrays, target, static)
    calls = prepare(primitive, memory.scratch, arrays, target, static)
    return Instruction(name, target, arrays, calls, static)


def _require_room(name: str, arrays: tuple[Array, ...], out: Array, static: dict[str, Any]) -> None:
    """Refuse parameters by which a kernel would take memory or time that no array here has."""
    if name == "unfold":  # a padded image
        *leading, height, width, channels = arrays[0].shape
        top, left = map(_count, static["padding"])
        padded = (height + 2 * top) * (width + 2 * left) * channels
        if math.prod(leading) * padded > MOST_ELEMENTS:
            raise ValueError
    if name == "winners":  # a number for each window, and a pass for each place in one
        down, across = static["down"], static["across"]
        *leading, _, _, channels = arrays[0].shape
        windows = math.prod(leading) * down.number * across.number * channels
        if windows != out.size or not 0 < down.size * across.size <= MOST_PLACES:
            raise ValueError


@cache
def _declared(primitive: Primitive) -> dict[str, Any]:
    """Return the types that a primitive declares its parameters to have, as far as it does."""
    try:
        return get_type_hints(primitive.forward)
    except NameError:  # imported for a type checker alone
        return {}


def _as_kind(kind: Any, value: Any) -> Any:
    """Return a parameter as the primitive declares it: a named tuple comes as a list."""
    return kind(*value) if hasattr(kind, "_fields") else value


def _run(instruction: Instruction) -> None:
    with np.errstate(all="ignore"):
        for call in instruction.calls:
            call()


def _work(instruction: Instruction) -> int:
    """How many multiplications an instruction takes; an element moved counts as one."""
    sizes = [instruction.out.size, *(x.size for x in instruction.reads)]
    depth = instruction.reads[0].shape[-1] if instruction.name == "matmul" else 1
    return max(*sizes, instruction.out.size * depth)


def _count(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError
    return number


def _tuples(value: Any) -> Any:
    return tuple([_tuples(one) for one in value]) if isinstance(value, list) else value


def _attempt(read: Callable[..., T], arguments: Iterable[Any], sentence: str) -> T:
    """Do what a hostile text can make fail in many ways, and refuse it in one."""
    try:
        return read(*arguments)
    except _RefusedError:
        raise
    except Exception as error:
        raise _RefusedError(sentence) from error

"""A program as text: JSON that says what is done, to which numbers, and nothing that is executed.

    {"format": "tinyleak.program", "version": 1,
     "buffers": [{"bytes": 6272}, {"bytes": 96, "data": "AAAA…"}, …],
     "arrays": [["float64", 0, 0, [1, 784], [784, 1]], …],
     "instructions": [["matmul", 5, [0, 3], {}], …],
     "inputs": [0], "outputs": [9]}

- A buffer is memory of so many bytes, aligned to 64. One with `data` (base64, little-endian) is a
  constant and is never written; the others are working memory, and start as zeros.
- An array is a view of a buffer: dtype (float64, float32, bool or int64), buffer, offset, shape and
  strides. Offset and strides count elements, not bytes. Arrays may overlap: a buffer is used again
  after its last reading.
- An instruction computes the primitive of that name from arrays into an array, all by number, with
  static parameters. They run in order; each writes all of its array before the next one reads.
- Inputs are filled before the first instruction, and outputs are read after the last.

Primitives are described by their docstrings (`tinyleak.tensor.PRIMITIVES`). A change that an old
reader would get wrong raises the version.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.program.library import LINE
from tinyleak.program.memory import Instruction

FORMAT, VERSION = "tinyleak.program", 1

DTYPES = ("float64", "float32", "bool", "int64")


def written(
    instructions: Sequence[Instruction], inputs: Sequence[Array], outputs: Sequence[Array]
) -> str:
    """Return a program as JSON, on one line; the same program always as the same text.

    One on a GPU, or a parameter or dtype of a kind that the format lacks, is a TypeError.
    """
    views = [*inputs, *outputs]
    for line in instructions:
        views += [line.out, *line.reads]
    if array_module(*views) is not np:
        raise TypeError("a program on a GPU cannot be exported; trace the function on the CPU")
    memory = _Memory([*inputs, *(line.out for line in instructions)], views)
    steps = [
        [line.name, memory.place(line.out), [memory.place(x) for x in line.reads], line.params]
        for line in instructions
    ]
    program = {
        "format": FORMAT,
        "version": VERSION,
        "buffers": memory.buffers,
        "arrays": memory.arrays,
        "instructions": steps,
        "inputs": [memory.place(x) for x in inputs],
        "outputs": [memory.place(x) for x in outputs],
    }
    return json.dumps(program, separators=(",", ":"), default=_plain)


class _Memory:
    """The buffers behind some arrays, and the arrays as views of them."""

    def __init__(self, filled: Sequence[Array], views: Sequence[Array]) -> None:
        self.arrays: list[list[Any]] = []
        self._known: dict[str, int] = {}
        changing = {id(_owner(x)) for x in filled}
        owners: dict[int, Array] = {}
        ends: dict[int, list[int]] = {}
        for view in views:
            owner = _owner(view)
            owners[id(owner)] = owner
            ends.setdefault(id(owner), []).extend(np.lib.array_utils.byte_bounds(view))
        self._numbers = {key: number for number, key in enumerate(owners)}
        # Working memory was aligned to a line of the cache when it was cut, and is to be so again.
        self._starts = {
            key: min(all_ends) // LINE * LINE if key in changing else min(all_ends)
            for key, all_ends in ends.items()
        }
        self.buffers: list[dict[str, Any]] = []
        for key, owner in owners.items():
            size = max(ends[key]) - self._starts[key]
            self.buffers.append({"bytes": size})
            if key not in changing:
                first = self._starts[key] - np.lib.array_utils.byte_bounds(owner)[0]
                # A constant is dense, but its axes may lie in any order.
                order = sorted(range(owner.ndim), key=lambda axis: -owner.strides[axis])
                content = owner.transpose(order).tobytes()[first : first + size]
                self.buffers[-1]["data"] = base64.b64encode(content).decode()

    def place(self, view: Array) -> int:
        """Return the number of the array, which is entered if it is new."""
        if view.dtype.name not in DTYPES:
            raise TypeError(
                f"a program with {view.dtype} in it cannot be exported; the format has "
                f"{', '.join(DTYPES)}"
            )
        owner, item = id(_owner(view)), view.itemsize
        offset = (view.__array_interface__["data"][0] - self._starts[owner]) // item
        strides = [step // item for step in view.strides]
        # An axis of length 1 is never walked along: its stride is whatever NumPy left there.
        entry = [view.dtype.name, self._numbers[owner], offset, [*view.shape], strides]
        number = self._known.setdefault(str(entry), len(self.arrays))
        if number == len(self.arrays):
            self.arrays.append(entry)
        return number


def _owner(array: Array) -> Array:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a parameter {value!r} cannot be exported; JSON has numbers, texts and lists")

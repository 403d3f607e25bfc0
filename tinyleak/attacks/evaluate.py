"""The objective as L-BFGS wants it: arrays in, arrays out, many attacks at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tinyleak.attacks.matching import Matching
from tinyleak.backend import Array, array_module
from tinyleak.client.local import LocalSteps
from tinyleak.nn.model import Model
from tinyleak.program import Program, capture, trace
from tinyleak.tensor import Tensor

CACHE_BYTES = 4 * 2**20
"""How much memory one slice of a batch may work in on the CPU, so that it stays in the cache."""

Rows: TypeAlias = npt.NDArray[np.int64]
Evaluate: TypeAlias = Callable[[Array], tuple[Array, ...]]


@dataclass
class Evaluator:
    """Evaluates rows of dummies, each against its own problem.

    The first evaluation of a group of rows traces a program for it, which the later ones replay.
    A batch whose buffers would not fit the processor's cache is evaluated in slices that do.

    Attributes:
        model: the network.
        params: weights by name, common to all problems or with a leading axis over them.
        shared: the gradients to match, likewise.
        batch: N, how many images each client's batch had.
        weight: what each squared distance is multiplied with: () or (P,).
        targets: known labels as probabilities, (N, K) or (P, N, K), or None to optimise them.
        compiled: whether to replay programs or to run the engine eagerly each time.
        precision: what each entry's squared difference is multiplied with, like `shared`; or None.
        direction: match the shared gradients' directions, whatever their lengths.
        smoothness: how strongly smooth images are preferred.
        local: the steps that each client took, if that was more than one.
    """

    model: Model
    params: Mapping[str, Array]
    shared: Mapping[str, Array]
    batch: int
    weight: Array
    targets: Array | None = None
    compiled: bool = True
    precision: Mapping[str, Array] | None = None
    direction: bool = False
    smoothness: float = 0.0
    local: LocalSteps | None = None
    _programs: dict[object, Evaluate] = field(default_factory=dict, init=False, repr=False)
    _in_batch: int = field(default=0, init=False, repr=False)
    _slice: int = field(default=1, init=False, repr=False)
    _captures: bool = field(default=True, init=False, repr=False)

    def __call__(self, z: Array, rows: Rows) -> tuple[Array, Array]:
        """Return the distances (A,) and their gradients (A, n) at z: (A, n), of problems `rows`."""
        parts = []
        with np.errstate(all="ignore"):  # far from a solution overflow is expected, and handled
            if len(rows) != self._in_batch:
                # Problems have finished; the programs for more of them are not needed again.
                self._programs.clear()
                self._in_batch = len(rows)
                self._slice = self._slice_that_fits(z, rows)
            for start in range(0, len(rows), self._slice):
                part = slice(start, start + self._slice)
                parts.append(self._program(z[part], rows[part])(z[part]))
        if len(parts) == 1:
            return parts[0][0], parts[0][1]
        module = array_module(z)
        values, gradients = (module.concatenate(pieces) for pieces in zip(*parts, strict=True))
        return values, gradients

    def matching(self, rows: Rows) -> Matching:
        """Return the objective of the given problems alone."""
        return Matching(
            self.model,
            self._pick_all(self.params, rows),
            self._pick_all(self.shared, rows),
            self.batch,
            _pick(self.weight, rows, 0),
            None if self.targets is None else _pick(self.targets, rows, 2),
            None if self.precision is None else self._pick_all(self.precision, rows),
            self.direction,
            self.smoothness,
            self.local,
        )

    def _pick_all(self, arrays: Mapping[str, Array], rows: Rows) -> dict[str, Array]:
        shapes = self.model.shapes
        return {name: _pick(arrays[name], rows, len(shapes[name])) for name in shapes}

    def _program(self, z: Array, rows: Rows) -> Evaluate:
        """Return what evaluates these rows, traced now if it has not been before."""
        stacked = self.weight.ndim > 0
        key = rows.tobytes() if stacked else len(rows)
        if key not in self._programs:
            function = self.matching(rows).value_and_gradient
            if self.compiled:
                self._programs[key] = self._captured(trace(function, z, check=False))
            else:
                self._programs[key] = _eagerly(function)
        return self._programs[key]

    def _captured(self, program: Program) -> Evaluate:
        """On a GPU, capture the program; once that has failed, it is not tried again."""
        if array_module(*program.inputs) is np or not self._captures:
            return program
        captured = capture(program)
        self._captures = captured is not program
        return captured

    def _slice_that_fits(self, z: Array, rows: Rows) -> int:
        """Return into how large slices of about equal size these rows are best cut."""
        count = len(rows)
        if count == 1 or array_module(z) is not np or not self.compiled:
            return count
        one = trace(self.matching(rows[:1]).value_and_gradient, z[:1], check=False)
        largest = max(1, CACHE_BYTES // one.buffer_bytes)
        return -(-count // -(-count // largest))


def _eagerly(function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Evaluate:
    return lambda z: tuple(result.data for result in function(Tensor(z)))


def _pick(array: Array, rows: Rows, axes: int) -> Array:
    """Take the given problems' part of an array that may have a leading axis over problems."""
    if array.ndim == axes:
        return array
    module: Any = array_module(array)
    return module.take(array, module.asarray(rows), axis=0)

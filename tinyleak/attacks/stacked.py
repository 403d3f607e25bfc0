"""The objective as the batched L-BFGS wants it: arrays in, arrays out, many attacks at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tinyleak.attacks.matching import Matching
from tinyleak.backend import Array, array_module
from tinyleak.program import Program, capture, trace
from tinyleak.tensor import Tensor

CACHE_BYTES = 4 * 2**20
"""How much memory one slice of a batch may work in on the CPU, so that it stays in the cache: most
of a processor core's share of a third-level cache."""

Indices: TypeAlias = npt.NDArray[np.int64]
Evaluate: TypeAlias = Callable[[Array], tuple[Array, ...]]


@dataclass(eq=False, repr=False)
class Evaluator:
    """Evaluates rows of dummies, each against its own problem.

    The first evaluation of a group of problems traces a program for it, which the later ones
    replay. A batch whose buffers would not fit the processor's cache is evaluated in slices that
    do.
    """

    matching: Matching  # all problems, stacked, or one that all rows share
    compiled: bool = True  # whether to replay programs or to run the engine eagerly each time
    _programs: dict[object, Evaluate] = field(default_factory=dict, init=False, repr=False)
    _in_batch: int = field(default=0, init=False, repr=False)
    _slice: int = field(default=1, init=False, repr=False)
    _captures: bool = field(default=True, init=False, repr=False)

    def __call__(self, z: Array, problems: Indices) -> tuple[Array, Array]:
        """Return the distances (A,) and their gradients (A, n) at z: (A, n), of these problems."""
        parts = []
        with np.errstate(all="ignore"):  # far from a solution overflow is expected, and handled
            if len(problems) != self._in_batch:
                # Problems have finished; the programs for more of them are not needed again.
                self._programs.clear()
                self._in_batch = len(problems)
                self._slice = self._slice_that_fits(z, problems)
            for start in range(0, len(problems), self._slice):
                part = slice(start, start + self._slice)
                parts.append(self._program(z[part], problems[part])(z[part]))
        if len(parts) == 1:
            return parts[0][0], parts[0][1]
        module = array_module(z)
        values, gradients = (module.concatenate(pieces) for pieces in zip(*parts, strict=True))
        return values, gradients

    def pick(self, problems: Indices) -> Matching:
        """Return the objective of the given problems alone."""

        def part(arrays: Sequence[Array], axes: int) -> Array:
            (array,) = arrays
            if array.ndim == axes:  # common to all problems
                return array
            module: Any = array_module(array)
            return module.take(array, module.asarray(problems), axis=0)

        return with_arrays([self.matching], part)

    def matching_of(self, problem: int) -> Matching:
        """Return the objective of one problem."""
        return self.pick(np.array([problem]))

    def _program(self, z: Array, problems: Indices) -> Evaluate:
        """Return what evaluates these rows, traced now if it has not been before."""
        key = problems.tobytes() if self.matching.scale.ndim else len(problems)
        if key not in self._programs:
            function = self.pick(problems).value_and_gradient
            if self.compiled:
                self._programs[key] = self._captured(trace(function, z, check=False))
            else:
                self._programs[key] = lambda z: tuple(found.data for found in function(Tensor(z)))
        return self._programs[key]

    def _captured(self, program: Program) -> Evaluate:
        """On a GPU, capture the program; once that has failed, it is not tried again."""
        if array_module(*program.inputs) is np or not self._captures:
            return program
        captured = capture(program)
        self._captures = captured is not program
        return captured

    def _slice_that_fits(self, z: Array, problems: Indices) -> int:
        """Return into how large slices of about equal size these rows are best cut."""
        count = len(problems)
        if count == 1 or array_module(z) is not np or not self.compiled:
            return count
        one = trace(self.pick(problems[:1]).value_and_gradient, z[:1], check=False)
        largest = max(1, CACHE_BYTES // one.buffer_bytes)
        return -(-count // -(-count // largest))


def with_arrays(
    matchings: Sequence[Matching], made: Callable[[Sequence[Array], int], Array]
) -> Matching:
    """Return the first objective with each array made of those that all have in its place.

    `made` is also told how many axes the array of one problem has.
    """
    first, shapes = matchings[0], matchings[0].model.shapes

    def named(field: str) -> dict[str, Array]:
        parts = [getattr(one, field) for one in matchings]
        return {name: made([part[name] for part in parts], len(shapes[name])) for name in shapes}

    def array(field: str, axes: int) -> Array:
        return made([getattr(one, field) for one in matchings], axes)

    return replace(
        first,
        params=named("params"),
        shared=named("shared"),
        scale=array("scale", 0),
        targets=None if first.targets is None else array("targets", 2),
        precision=None if first.precision is None else named("precision"),
    )

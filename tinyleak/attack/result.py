"""What an attack gives back, while it runs and when it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tinyleak.backend import Array, array_module, to_numpy

MAX_FRAMES = 200
"""How many stages of a reconstruction are kept; beyond that every second one is dropped."""


class Frame(NamedTuple):
    """A stage of a reconstruction: images (N, C, H, W) and the distance after an iteration."""

    iteration: int
    images: Array
    distance: float


@dataclass(frozen=True)
class Reconstruction:
    """What an attack found.

    Attributes:
        images: (N, C, H, W), as found; data has pixels in [0, 1].
        labels: (N,), the most probable label of each image.
        soft_labels: (N, K), the probabilities.
        distance: the distance between gradients at the end, as the settings scale it.
        distances: that distance after each iteration, the start first.
        frames: stages on the way.
        iterations: how many L-BFGS took.
        evaluations: how often the objective was evaluated.
        seconds: from the start of the whole call.
        reason: why it stopped: "converged", "stalled", "saturated", "non-finite",
            "out of iterations" or "interrupted".
    """

    images: Array
    labels: Array
    soft_labels: Array
    distance: float
    distances: list[float]
    frames: list[Frame]
    iterations: int
    evaluations: int
    seconds: float
    reason: str


class Progress(NamedTuple):
    """Where a running attack is: the best restart's iteration, distance, and images on demand."""

    iteration: int
    distance: float
    images: Callable[[], Array]


class Stages:
    """Keeps stages of a run, evenly spaced, never more than `MAX_FRAMES` and the last.

    They stay on the device until they are asked for: the attack does not wait for them.
    """

    def __init__(self) -> None:
        self._stages: list[tuple[int, Array, float]] = []
        self._every = 1

    def add(self, iteration: int, x: Array, value: float) -> None:
        """Take note of an iterate, if it is time for one."""
        if self._stages and iteration <= self._stages[-1][0]:
            return
        # The last one is provisional: it stays only if it stands at a whole multiple.
        if self._stages and self._stages[-1][0] % self._every:
            self._stages.pop()
        # A copy, since a row of many attacks would keep all of them in memory.
        row = x if iteration % self._every else x.copy()
        self._stages.append((iteration, row, float(value)))
        if len(self._stages) > MAX_FRAMES:
            self._every *= 2
            self._stages = [stage for stage in self._stages if stage[0] % self._every == 0]

    @property
    def kept(self) -> list[tuple[int, Array, float]]:
        """The stages, in order, on the host."""
        if not self._stages:
            return []
        iterations, rows, values = zip(*self._stages, strict=True)
        together = to_numpy(array_module(*rows).stack(rows))
        return list(zip(iterations, together, values, strict=True))

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
        frames: stages on the way, each of the restart that was nearest then; the first is the
            start, the last is what is returned.
        iterations: how many it took.
        evaluations: how often the objective was evaluated.
        seconds: from the start of the whole call.
        reason: why it stopped: "converged" (the goal is reached), "stationary", "stalled",
            "saturated", "non-finite", "out of iterations" or "interrupted".
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
    """Keeps stages of a run: evenly spaced ones, `MAX_FRAMES` at most, and the last.

    They stay on the device until they are asked for: the attack does not wait for them.
    """

    def __init__(self) -> None:
        self._stages: list[tuple[int, Array, float]] = []
        self._every = 1

    def add(self, iteration: int, x: Array, distance: float) -> None:
        """Take note of the iterate that is nearest now; it is the last stage until the next."""
        stages = self._stages
        if stages and (stages[-1][0], stages[-1][2]) == (iteration, distance):
            return
        # Another restart may have become the nearest, after fewer iterations.
        while stages and stages[-1][0] >= iteration:
            stages.pop()
        # What was the last stays only if it stands at a whole multiple.
        if stages and stages[-1][0] % self._every:
            stages.pop()
        if len(stages) >= MAX_FRAMES:
            self._every *= 2
            stages[:] = [stage for stage in stages if stage[0] % self._every == 0]
        # A copy, since a row of many attacks would keep all of them in memory.
        stages.append((iteration, x.copy(), distance))

    @property
    def kept(self) -> list[tuple[int, Array, float]]:
        """The stages, in order, on the host."""
        if not self._stages:
            return []
        iterations, rows, distances = zip(*self._stages, strict=True)
        together = to_numpy(array_module(*rows).stack(rows))
        return list(zip(iterations, together, distances, strict=True))

"""What is noted while an attack runs, and what is made of it in the end."""

import time
from collections.abc import Callable
from functools import partial
from math import prod

import numpy as np

from tinyleak.attacks.matching import Matching
from tinyleak.attacks.problem import Problem
from tinyleak.attacks.result import Progress, Reconstruction, Snapshot
from tinyleak.backend import Array, array_module, to_numpy
from tinyleak.client.explanation import COARSE
from tinyleak.nn.criteria import likeliest
from tinyleak.tensor import Tensor

DIVERGED_PIXEL = 20.0
"""Dummy pixels beyond this size (data has them in [0, 1]) have left what the network can tell."""

ROUNDED = {"float64": 1e-20, "float32": COARSE}
"""A search that stalls at so small a relative distance is at the end of what the dtype can tell."""

MAX_SNAPSHOTS = 200  # how many snapshots of a run are kept; beyond that every second one is dropped


class Recorder:
    """Takes note of where the nearest attack on a client is, and tells whoever watches."""

    def __init__(
        self, problem: Problem, on_progress: Callable[[Progress], None] | None = None
    ) -> None:
        self.problem, self.on_progress = problem, on_progress
        self.distances: list[float] = []  # after each iteration, the start first
        self.snapshots = Snapshots()
        self.began = time.perf_counter()

    def note(self, x: Array, distance: float, iteration: int) -> None:
        """Take note of an iterate, x: (n,), on any device."""
        if len(self.distances) <= iteration:
            self.distances.append(distance)
        self.snapshots.add(x, distance, iteration)
        self.tell(x, distance, iteration)

    def tell(self, x: Array, distance: float, iteration: int) -> None:
        """Tell whoever watches of an iterate."""
        if self.on_progress is not None:
            images = partial(images_of, self.problem.matching, x)
            self.on_progress(Progress(iteration, distance, images))

    def conclude(
        self, x: Array, iterations: int, evaluations: int, reason: str | None
    ) -> Reconstruction:
        """Return what was found, from where the search ended: x, (n,); `reason` says why."""
        matching, settings = self.problem.matching, self.problem.settings
        images = images_of(matching, x)
        soft_labels = matching.labels(Tensor(to_numpy(x))).numpy()
        reason = "interrupted" if self.problem.interrupted else reason
        relative = settings.scale_free and self.distances[-1] <= ROUNDED[settings.dtype]
        if reason == "stalled" and relative:
            reason = "converged"
        if reason != "interrupted" and np.median(np.abs(images)) > DIVERGED_PIXEL:
            reason = "diverged"
        return Reconstruction(
            images=images,
            labels=likeliest(soft_labels),
            soft_labels=soft_labels,
            distance=self.distances[-1],
            distances=self.distances,
            snapshots=self.snapshots.of_shape(images.shape),
            iterations=iterations,
            evaluations=evaluations,
            seconds=time.perf_counter() - self.began + self.problem.seconds,
            reason=reason or "out of iterations",
        )


class Snapshots:
    """Keeps moments of a run: evenly spaced ones, `MAX_SNAPSHOTS` at most, and the last.

    They stay on the device until they are asked for: the attack does not wait for them.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[int, Array, float]] = []
        self._every = 1

    def add(self, x: Array, distance: float, iteration: int) -> None:
        """Take note of the iterate that is nearest now; it is the last moment until the next."""
        kept = self._kept
        if kept and (kept[-1][0], kept[-1][2]) == (iteration, distance):
            return
        # Another restart may have become the nearest, after fewer iterations.
        while kept and kept[-1][0] >= iteration:
            kept.pop()
        # What was the last stays only if it stands at a whole multiple.
        if kept and kept[-1][0] % self._every:
            kept.pop()
        if len(kept) >= MAX_SNAPSHOTS:
            self._every *= 2
            kept[:] = [one for one in kept if one[0] % self._every == 0]
        # A copy, since a row of many attacks would keep all of them in memory.
        kept.append((iteration, x.copy(), distance))

    def of_shape(self, shape: tuple[int, ...]) -> list[Snapshot]:
        """Return the moments, in order, on the host, with images of this shape."""
        if not self._kept:
            return []
        iterations, rows, distances = zip(*self._kept, strict=True)
        together = to_numpy(array_module(*rows).stack(rows))
        images = together[:, : prod(shape)].reshape(-1, *shape).astype(float)
        return [Snapshot(*one) for one in zip(iterations, images, distances, strict=True)]


def images_of(matching: Matching, x: Array) -> Array:
    """Return the dummy images of x, (n,), as float64 on the host: (N, C, H, W)."""
    shape = (matching.batch, *matching.model.image_shape)
    return to_numpy(x)[: matching.image_size].reshape(shape).astype(float)

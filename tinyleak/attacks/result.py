"""What an attack gives back, while it runs and when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinyleak.attacks.matching import Matching
from tinyleak.backend import Array, array_module, to_numpy
from tinyleak.tensor import Tensor

DIVERGED_PIXEL = 20.0
"""Dummy pixels beyond this size (data has them in [0, 1]) have left what the network can tell."""

MAX_SNAPSHOTS = 200
"""How many snapshots of a run are kept; beyond that every second one is dropped."""


class Snapshot(NamedTuple):
    """A moment of an attack: images (N, C, H, W) and the distance after an iteration."""

    iteration: int
    images: Array
    distance: float


class Progress(NamedTuple):
    """Where a running attack is: the best restart's iteration, distance, and images on demand."""

    iteration: int
    distance: float
    images: Callable[[], Array]


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """What an attack found. Two are equal only if they are one and the same object.

    Attributes:
        images: (N, C, H, W), as found; data has pixels in [0, 1].
        labels: (N,), the most probable label of each image.
        soft_labels: (N, K), the probabilities.
        distance: the distance between gradients at the end, as the settings scale it.
        distances: that distance after each iteration, the start first.
        snapshots: moments on the way, each of the restart that was nearest then; the first is the
            start, the last is what is returned.
        iterations: how many it took.
        evaluations: how often the objective was evaluated.
        seconds: from the start of the whole call.
        reason: why it stopped: "converged" (the goal is reached), "stationary", "stalled",
            "diverged", "non-finite", "out of iterations" or "interrupted".
    """

    images: Array
    labels: Array
    soft_labels: Array
    distance: float
    distances: list[float]
    snapshots: list[Snapshot]
    iterations: int
    evaluations: int
    seconds: float
    reason: str

    def __repr__(self) -> str:
        count = len(self.images)
        labels = ", ".join(map(str, self.labels[:10])) + (", …" if count > 10 else "")
        many = "1 image" if count == 1 else f"{count} images"
        return (
            f"<Reconstruction of {many} of {'×'.join(map(str, self.images.shape[1:]))}, labels "
            f"{labels}: {self.reason} after {self.iterations} iterations, "
            f"distance {self.distance:.1e}, {self.seconds:.1f} s>"
        )

    def plot(self, truth: Any = None) -> Any:
        """Draw how the images emerge, beside the truth (images or a `Truth`) if it is given.

        Returns:
            A matplotlib `Figure`.

        Raises:
            ValueError: images that cannot be drawn, or a truth of another shape.
        """
        from tinyleak.report import emergence

        return emergence(
            self.snapshots or [Snapshot(self.iterations, self.images, self.distance)],
            getattr(truth, "images", truth),
            labels=self.labels,
            labels_true=getattr(truth, "labels", None),
        )

    def _repr_png_(self) -> bytes:
        """Show the images in a notebook."""
        from tinyleak.report import as_png

        return as_png(self.plot())


class Snapshots:
    """Keeps moments of a run: evenly spaced ones, `MAX_SNAPSHOTS` at most, and the last.

    They stay on the device until they are asked for: the attack does not wait for them.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[int, Array, float]] = []
        self._every = 1

    def add(self, iteration: int, x: Array, distance: float) -> None:
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
        images = together[:, : int(np.prod(shape))].reshape(-1, *shape).astype(float)
        return [Snapshot(*one) for one in zip(iterations, images, distances, strict=True)]


def conclude(
    problem: Any,
    x: Array,
    distances: list[float],
    snapshots: Snapshots,
    spent: tuple[int, int],
    reason: str | None,
    began: float,
) -> Reconstruction:
    """Return what was found, from where the search ended: x, (n,), on the host.

    Args:
        problem: what was minimised, as `meet` returns it.
        x: the dummies at the end.
        distances: after each iteration.
        snapshots: moments on the way.
        spent: iterations, and evaluations.
        reason: why it stopped; None if it was still running.
        began: `time.perf_counter()` at the start.
    """
    images = images_of(problem.matching, x)
    soft_labels = problem.matching.labels(Tensor(x)).numpy()
    if reason == "stalled" and distances[-1] <= problem.settings.rounded:
        reason = "converged"
    if reason != "interrupted" and np.median(np.abs(images)) > DIVERGED_PIXEL:
        reason = "diverged"
    return Reconstruction(
        images=images,
        labels=np.argmax(soft_labels, axis=-1),
        soft_labels=soft_labels,
        distance=distances[-1],
        distances=distances,
        snapshots=snapshots.of_shape(images.shape),
        iterations=spent[0],
        evaluations=spent[1],
        seconds=time.perf_counter() - began,
        reason=reason or "out of iterations",
    )


def images_of(matching: Matching, x: Array) -> Array:
    """Return the dummy images of x, (n,), as float64: (N, C, H, W)."""
    shape = (matching.batch, *matching.model.image_shape)
    return x[: matching.image_size].reshape(shape).astype(float)

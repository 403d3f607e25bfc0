"""What an attack gives back, while it runs and when it is done."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinyleak.backend import Array


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A moment of an attack: images (N, C, H, W) and the distance after an iteration."""

    iteration: int
    images: Array = field(repr=False)
    distance: float


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a running attack is: the best restart's iteration, distance, and images on demand."""

    iteration: int
    distance: float
    images: Callable[[], Array] = field(repr=False)


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
        shape = "×".join(map(str, self.images.shape))
        labels = " ".join(map(str, self.labels[:10])) + (" …" if len(self.labels) > 10 else "")
        end = f"{self.reason} after {self.iterations} iterations, distance {self.distance:.1e}"
        return f"<Reconstruction: images {shape}, labels {labels}; {end}, {self.seconds:.1f} s>"

    def plot(self, truth: Any = None) -> Any:
        """Draw how the images emerge, beside a `Truth` or its images: a matplotlib `Figure`.

        Raises:
            ValueError: images that cannot be drawn, or a truth of another shape.
        """
        from tinyleak.interop import as_array
        from tinyleak.report import emergence

        images = getattr(truth, "images", truth)
        return emergence(
            self.snapshots or [Snapshot(self.iterations, self.images, self.distance)],
            None if images is None else as_array(images),
            labels=self.labels,
            labels_true=getattr(truth, "labels", None),
        )

    def _repr_png_(self) -> bytes | None:
        """Show the images in a notebook; None where they cannot be drawn, and then their `repr`."""
        from tinyleak.report import png_of

        return png_of(self.plot)

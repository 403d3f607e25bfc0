"""What every source of data answers with: images, their labels, and how many classes there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.backend import Array
from tinyleak.interop import as_array, whole


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images in memory.

    Raises:
        ValueError: images that are not four-dimensional, no classes, another count of labels than
            of images, or a label that is out of range or not a whole number.
        TypeError: images or labels that are not arrays of numbers.
    """

    name: str  # what `tinyleak.data.load` calls it
    images: Array  # (n, C, H, W) float64, pixels in [0, 1]
    labels: Array  # (n,) int64 in [0, classes)
    classes: int  # how many classes there are, counting those that no image here belongs to

    def __post_init__(self) -> None:
        for name in ("images", "labels"):
            object.__setattr__(self, name, as_array(getattr(self, name)))
        if self.images.ndim != 4:
            raise ValueError(
                f"data {self.name!r}: the images have shape {self.images.shape}, "
                "but (n, C, H, W) is expected"
            )
        whole(self.classes, 1, f"data {self.name!r}: {{}} classes were given; give 1 or more")
        if self.labels.dtype.kind not in "iu":
            raise ValueError(
                f"data {self.name!r}: labels of dtype {self.labels.dtype} were given; whole "
                "numbers are needed"
            )
        if self.labels.shape != (len(self.images),):
            raise ValueError(
                f"data {self.name!r}: labels of shape {self.labels.shape} do not fit "
                f"{len(self.images)} images; give one label an image"
            )
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= self.classes))
        if wrong.size:
            raise ValueError(
                f"data {self.name!r}: label {self.labels[wrong[0]]} of image {wrong[0]} is out of "
                f"range; with {self.classes} classes, labels are 0 to {self.classes - 1}"
            )

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, images {self.images.shape}, {self.classes} classes)"

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | Array) -> tuple[Array, Array]:
        """Return copies of the chosen images, (N, C, H, W), and their labels, (N,), in that order.

        Raises:
            TypeError: indices that are not a one-dimensional sequence of integers.
            ValueError: no indices, or one that is not in [0, n).
        """
        chosen = np.asarray(indices)
        if chosen.size == 0 or len(self) == 0:
            none = (
                "no image was chosen; give an index or more" if len(self) else "there is no image"
            )
            raise ValueError(f"data {self.name!r}: {none}")
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise TypeError(
                f"data {self.name!r}: a batch needs a flat sequence of integer indices, "
                f"not {chosen.dtype} of shape {chosen.shape}"
            )
        wrong = chosen[(chosen < 0) | (chosen >= len(self))]
        if wrong.size:
            raise ValueError(
                f"data {self.name!r}: index {wrong[0]} is out of range; "
                f"it holds {len(self)} images, 0 to {len(self) - 1}"
            )
        return self._chosen(chosen), self.labels[chosen]

    def _chosen(self, indices: Array) -> Array:
        """Return copies of the images, which are there."""
        return self.images[indices]

    def consecutive(self, index: int = 0, batch: int = 1) -> tuple[Array, Array]:
        """Return `batch` images from an index on, (N, C, H, W), and their labels, (N,).

        An image that the data does not hold is a ValueError.
        """
        whole(batch, 1, "a batch of {} images was asked for; give 1 or more")
        last = index + batch - 1
        if last >= len(self):
            held = f"images 0 to {len(self) - 1}" if len(self) else "none"
            raise ValueError(
                f"image {index} with a batch of {batch} asks for image {last}, but data "
                f"{self.name!r} holds {held}; lower one of them"
            )
        return self.batch(range(index, last + 1))

    def relabelled(self, label: int) -> Dataset:
        """Return the same images, all of this label; a ValueError if it is not in [0, classes)."""
        labels = np.full(len(self), label)
        return Dataset(self.name, self.images, labels, self.classes)

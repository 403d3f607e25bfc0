"""Where the images of a client come from: built-in digits, MNIST, CIFAR-100, image files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyleak.data.cifar import load_cifar100
from tinyleak.data.dataset import Dataset
from tinyleak.data.glyphs import load_glyphs
from tinyleak.data.image import load_image, load_portrait
from tinyleak.data.mnist import load_mnist

__all__ = [
    "NAMES",
    "Dataset",
    "choose",
    "load",
    "load_cifar100",
    "load_glyphs",
    "load_image",
    "load_mnist",
    "load_portrait",
]

BUILT_IN = {"glyphs": load_glyphs, "portrait": load_portrait}
FROM_FILES = {"mnist": load_mnist, "cifar100": load_cifar100}
NAMES = (*BUILT_IN, *FROM_FILES)
IMAGE_SHAPE, IMAGE_CLASSES = (1, 28, 28), 10
"""What image files are resized to, and the classes they are among, where nothing else is said."""


def load(name: str, *, data_dir: str | Path | None = None) -> Dataset:
    """Return the data of that name; of data with several splits, the test split.

    Args:
        name: one of `NAMES`.
        data_dir: a folder with the data's files. Without one they come from the user's cache, or
            are downloaded into it. The built-in data have no files.

    Raises:
        ValueError: an unknown name, a folder given for built-in data, or files that are damaged.
        OSError: files that are not there, or that cannot be downloaded.
    """
    if name in FROM_FILES:
        return FROM_FILES[name](data_dir)
    if name not in BUILT_IN:
        known = ", ".join(NAMES)
        raise ValueError(f"data {name!r} is unknown; choose one of {known}")
    if data_dir is not None:
        raise ValueError(
            f"data {name!r} is built in and reads no files, but the data folder "
            f"{str(data_dir)!r} was given; leave it out, or choose other data"
        )
    return BUILT_IN[name]()


def choose(
    name: str | None = None,
    *,
    image: str | Path | Sequence[str | Path] | None = None,
    data_dir: str | Path | None = None,
    shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    label: int | None = None,
) -> Dataset:
    """Return the data of a name, or that of image files, as the one or the other was chosen.

    Args:
        name: one of `NAMES`; by default the built-in digits, unless there are image files.
        image: an image file, or several.
        data_dir: as for `load`.
        shape: (C, H, W) that image files are resized to.
        classes: how many classes image files are among; their label is 0.
        label: the label of all images, instead of the data's own.

    Raises:
        ValueError: what does not go together, a label out of range, or damaged files.
        OSError: files that are not there.
    """
    if image is None:
        name = name or "glyphs"
        if shape is not None or classes is not None:
            raise ValueError(
                f"a shape and classes describe image files, but data {name!r} was chosen, which "
                "has its own; leave them out"
            )
        dataset = load(name, data_dir=data_dir)
    else:
        if name is not None or data_dir is not None:
            raise ValueError(
                f"data {name or str(data_dir)!r} was chosen, and image files besides; leave one "
                "of the two out"
            )
        files = [image] if isinstance(image, str | Path) else image
        images = np.stack([load_image(file, shape or IMAGE_SHAPE) for file in files])
        labels = np.zeros(len(images), np.int64)
        dataset = Dataset("image", images, labels, classes or IMAGE_CLASSES)
    return dataset if label is None else dataset.relabelled(label)

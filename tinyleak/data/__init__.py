"""Where the images of a client come from: built-in digits, MNIST, CIFAR-100, image files."""

from __future__ import annotations

from pathlib import Path

from tinyleak.data.cifar import load_cifar100
from tinyleak.data.dataset import Dataset
from tinyleak.data.glyphs import load_glyphs
from tinyleak.data.image import load_image, load_portrait
from tinyleak.data.mnist import load_mnist

__all__ = [
    "NAMES",
    "Dataset",
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

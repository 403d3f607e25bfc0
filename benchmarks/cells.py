"""Results that are kept as they come, so that a benchmark goes on where it was stopped."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinyleak.data import Dataset, load
from tinyleak.report import write_arrays

Cell = dict[str, np.ndarray]


class Cells:
    """A folder with one .npz for each cell of a benchmark's tables.

    A cell that is there is not computed again: delete the folder, or choose another, to start
    anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, compute: Callable[[], Cell]) -> Cell:
        """Return the cell of that name: from its file, or computed now and kept."""
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', name)}.npz"
        if not path.exists():
            print(name, file=sys.stderr, flush=True)
            write_arrays(path, **compute())
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)


def mnist(data_dir: Path | None, quick: bool) -> Dataset:
    """Return MNIST's test split; for a smoke test the built-in digits in its place."""
    if quick:
        return load("glyphs")
    return load("mnist", data_dir=data_dir or os.environ.get("TINYLEAK_MNIST"))

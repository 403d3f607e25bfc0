"""Results that are kept as they come, so that a benchmark goes on where it was stopped."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
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

    def peek(self, name: str) -> Cell | None:
        """Return the cell of that name if it is there."""
        path = self._path(name)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    def get(self, name: str, compute: Callable[[], Cell]) -> Cell:
        """Return the cell of that name: from its file, or computed now and kept."""
        if not self._path(name).exists():
            print(name, file=sys.stderr, flush=True)
            self.put(name, compute())
        cell = self.peek(name)
        assert cell is not None, "it has just been written"
        return cell

    def put(self, name: str, cell: Cell) -> None:
        """Keep a cell under that name, in place of what was there."""
        write_arrays(self._path(name), **cell)

    def drop(self, name: str) -> None:
        """Forget the cell of that name, if it is there."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', name)}.npz"


def add_options(parser: argparse.ArgumentParser, folder: str, what: str = "cells") -> None:
    """Declare --data-dir, --results and --quick, which `mnist` and `folder_of` read."""
    parser.add_argument("--data-dir", type=Path, help="MNIST's folder (else TINYLEAK_MNIST)")
    parser.add_argument(
        "--results", type=Path, help=f"where {what} go ({folder}; a new folder with --quick)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="built-in digits, few and short: a smoke test"
    )


def folder_of(options: argparse.Namespace, folder: str) -> Path:
    """Return where results go: where it was asked for, or there; a smoke test's in a new folder."""
    return options.results or Path(tempfile.mkdtemp() if options.quick else folder)


def mnist(data_dir: Path | None, quick: bool) -> Dataset:
    """Return MNIST's test split; for a smoke test the built-in digits in its place."""
    if quick:
        return load("glyphs")
    return load("mnist", data_dir=data_dir or os.environ.get("TINYLEAK_MNIST"))


def random_batch(data: Dataset, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return so many different images, chosen at random, and their labels."""
    chosen = np.random.default_rng([seed, 1]).choice(len(data), size, replace=False)
    return data.batch(chosen)

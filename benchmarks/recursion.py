"""What is read off a gradient layer by layer, without any search for the images.

    python benchmarks/recursion.py             the table; what is there is not computed again
    python benchmarks/recursion.py --report    the table of what there is

A client has just been initialised, and shares the exact gradient of built-in digits, computed in
float64. Its labels are known. An image counts as recovered as everywhere: MSE below 10⁻³.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

from timing import table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
from cells import Cell, Cells, folder_of, random_batch

from tinyleak import data
from tinyleak.attacks.recursion import recursion
from tinyleak.attacks.recursion.layers import INVERSES
from tinyleak.client import RECOVERED_MSE, simulate
from tinyleak.data import Dataset
from tinyleak.metrics import match_batch, mse
from tinyleak.nn import MLP, LeNet
from tinyleak.report.canvas import number

MODELS: dict[str, type[LeNet] | type[MLP]] = {"LeNet": LeNet, "MLP": MLP}


class Case(NamedTuple):
    """A row of the table."""

    model: str
    batch: int
    activation: str
    init: str

    def __str__(self) -> str:
        return f"{self.model} {self.batch} {self.activation} {self.init}"


CASES = [
    Case(model, batch, activation, init)
    for model, batch in (("LeNet", 1), ("MLP", 4))
    for activation in INVERSES
    for init in ("uniform", "default")
]


def measure(case: Case, source: Dataset, clients: int) -> Cell:
    """Return each image's error, (clients, N), and the seconds of processor time of each client."""
    model = MODELS[case.model](activation=case.activation)
    errors, seconds = [], []
    for seed in range(clients):
        images, labels = random_batch(source, case.batch, seed)
        client, truth = simulate(model, images, labels, seed=seed, init=case.init)
        began = time.process_time()
        found = recursion(client.last_layer, client.gradients, truth.labels)
        seconds.append(time.process_time() - began)
        errors.append(mse(found[match_batch(found, images)], images))
    return {"errors": np.array(errors), "seconds": np.array(seconds)}


def report(found: dict[Case, Cell]) -> None:
    """Print the table."""
    rows = []
    for case, cell in found.items():
        errors = cell["errors"]
        rows.append(
            [
                *(case.model, str(case.batch), case.activation, case.init),
                f"{int((errors < RECOVERED_MSE).sum())} of {errors.size}",
                number(float(np.median(errors))),
                number(float(np.median(cell["seconds"]))),
            ]
        )
    print(table(["network", "N", "activation", "weights", "recovered", "MSE", "seconds"], rows))


def main() -> int:
    """Compute what is missing, then say how it came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=5, help="for each row (5)")
    parser.add_argument("--report", action="store_true", help="compute nothing")
    parser.add_argument("--quick", action="store_true", help="one client, one row: a smoke test")
    parser.add_argument(
        "--results", type=Path, help="where cells go (results/recursion; a new folder with --quick)"
    )
    options = parser.parse_args()
    cases, clients = (CASES[-2:-1], 1) if options.quick else (CASES, options.clients)
    cells, source, found = Cells(folder_of(options, "results/recursion")), data.load("glyphs"), {}
    for case in cases:
        if options.report:
            cell = cells.peek(str(case))
        else:
            cell = cells.get(str(case), lambda one=case: measure(one, source, clients))
        if cell is not None:
            found[case] = cell
    report(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

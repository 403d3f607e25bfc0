"""Batches by L-BFGS, as in the paper's Table 1: iterations and success, on digits and in colour.

    python benchmarks/batches.py                   what is there is not computed again
    python benchmarks/batches.py --data mnist      or rgb: one of the two

N random images and a LeNet with weights from U(−0.5, 0.5); nothing but the gradient is known, and
labels are found with the images. Images are matched to the truth in the order that fits best; one
is recovered below an MSE of 1e-3, and legible below 0.03. Iterations are those at which the last
image of a batch was recovered, or first legible.

In colour the images are CIFAR-100's if `TINYLEAK_CIFAR100` names its folder, else parts of the
portrait among matplotlib's sample data, 32×32 each, with labels drawn from ten. Small colour
batches are attacked by Levenberg–Marquardt, too, with labels read off the gradient.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import cache, partial
from time import process_time

from timing import table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
from cells import Cell, Cells, add_options, folder_of, mnist, random_batch

from tinyleak.attacks import Method, Progress, Settings, attack
from tinyleak.client import RECOVERED_MSE, simulate
from tinyleak.data import Dataset, load
from tinyleak.metrics import match_batch, mse
from tinyleak.nn import LeNet

FOLDER = "results/batches"
BATCHES = (1, 2, 4, 8)
SEEDS = 5
ITERATIONS = 2000
SQUARES = {"rgb": (1, 2)}
"""Batches that are attacked by Levenberg–Marquardt, too; `least_squares.py` does so for digits."""

EVERY = 10
"""Iterations between two looks at the error."""

LEGIBLE = 0.03
"""About where an image becomes legible to the eye."""

SIDE, PARTS, PORTRAIT_CLASSES = 96, 40, 10
"""Size in pixels of the portrait's parts, before they are made smaller, and how many there are."""

PAPER = {1: 270, 2: 602, 4: 1173, 8: 2711}
"""Table 1 of Deep Leakage from Gradients, iterations for ResNet-20 on CIFAR, from memory of the
paper and not checked against its text."""


@cache
def colours() -> Dataset:
    """Return 32×32 RGB images: CIFAR-100's, or parts of a photograph."""
    folder = os.environ.get("TINYLEAK_CIFAR100")
    if folder:
        return load("cifar100", data_dir=folder)
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    rng = np.random.default_rng(0)
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photograph:
        parts = []
        for _ in range(PARTS):
            left, top = (int(rng.integers(size - SIDE)) for size in photograph.size)
            part = photograph.crop((left, top, left + SIDE, top + SIDE)).convert("RGB")
            parts.append(np.asarray(part.resize((32, 32), Image.Resampling.LANCZOS)) / 255.0)
    images = np.ascontiguousarray(np.stack(parts).transpose(0, 3, 1, 2))
    return Dataset("portrait", images, rng.integers(10, size=PARTS), PORTRAIT_CLASSES)


def run(data: Dataset, batch: int, seed: int, method: Method, iterations: int) -> Cell:
    """Attack one client; return what was found, and the errors on the way."""
    model = LeNet(data.images.shape[1:], data.classes)
    client, truth = simulate(model, *random_batch(data, batch, seed), seed=seed)
    course: list[tuple[int, float, float]] = []
    began = process_time()

    def note(progress: Progress) -> None:
        if method != "lbfgs" or progress.iteration % EVERY == 0:
            images = progress.images()
            found = images[match_batch(images, truth.images)]
            worst = float(mse(found, truth.images).max())
            course.append((progress.iteration, process_time() - began, worst))

    found = attack(
        client,
        labels=None if method == "lbfgs" else "infer",
        method=method,
        seed=seed,
        settings=Settings(iterations),
        on_progress=note,
    )
    outcome = truth.judge(found)
    return {
        "mse": outcome.mse,
        "recovered": outcome.recovered,
        "images": outcome.images.astype(np.float32),
        "truth": truth.images.astype(np.float32),
        "iterations": np.array(found.iterations),
        "seconds": np.array(process_time() - began),
        "course_iteration": np.array([iteration for iteration, _, _ in course]),
        "course_seconds": np.array([seconds for _, seconds, _ in course]),
        "course_worst": np.array([worst for _, _, worst in course]),
    }


def name_of(data: str, batch: int, method: str, seed: int) -> str:
    """Return the name of an attack's cell."""
    return f"{data} N={batch} {method} {seed}"


def first_below(cell: Cell, threshold: float) -> float:
    """Return the iteration at which every image was first so near; infinity if they never were."""
    below = np.flatnonzero(cell["course_worst"] < threshold)
    return float(cell["course_iteration"][below[0]]) if len(below) else np.inf


def row_of(name: str, batch: int, method: str, found: Sequence[Cell]) -> list[str]:
    """Return a row of the table: how many batches and images, iterations, errors."""
    complete = sum(bool(cell["recovered"].all()) for cell in found)
    errors = np.concatenate([cell["mse"] for cell in found])
    row = [name, f"{batch}", method, f"{complete} of {len(found)}"]
    row += [f"{int((errors < t).sum())} of {len(errors)}" for t in (RECOVERED_MSE, LEGIBLE)]
    for threshold in (RECOVERED_MSE, LEGIBLE):
        typical = float(np.median([first_below(cell, threshold) for cell in found]))
        row.append(f"{typical:.0f}" if np.isfinite(typical) else "–")
    recalled = f"{PAPER[batch]}" if name == "rgb" and method == "lbfgs" else ""
    return [*row, f"{np.median(errors):.0e}", f"{errors.max():.0e}", recalled]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("all", "mnist", "rgb"), default="all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="batches of each size (5)")
    add_options(parser, FOLDER)
    return parser.parse_args(arguments)


def main() -> int:
    """Compute what is missing, and print the table."""
    options = parse_arguments()
    cells = Cells(folder_of(options, FOLDER))
    iterations = 3 if options.quick else ITERATIONS
    rows = []
    for name in ("mnist", "rgb") if options.data == "all" else (options.data,):
        data = colours() if name == "rgb" else mnist(options.data_dir, options.quick)
        batches = BATCHES[:1] if options.quick else BATCHES
        plan: list[tuple[int, Method]] = [(batch, "lbfgs") for batch in batches]
        plan += [(batch, "levenberg-marquardt") for batch in SQUARES.get(name, ())]
        for batch, method in plan[:1] if options.quick else plan:
            found = [
                cells.get(
                    name_of(name, batch, method, seed),
                    partial(run, data, batch, seed, method, iterations),
                )
                for seed in range(1 if options.quick else options.seeds)
            ]
            rows.append(row_of(name, batch, method, found))
    header = ["data", "N", "method", "batches recovered", "images < 1e-3", f"images < {LEGIBLE}"]
    header += ["iterations to 1e-3", f"to {LEGIBLE}", "median MSE", "largest"]
    print(table([*header, "the paper's iterations, recalled"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

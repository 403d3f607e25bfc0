"""Batches to the rounding error, by Levenberg–Marquardt: how often, how far, at what cost.

    python benchmarks/least_squares.py                  10 seeds of N = 1, 2, 4, 8, 9, and larger N
    python benchmarks/least_squares.py --batches 1 2    these only
    python benchmarks/least_squares.py --report         the tables of what there is

A client is N random MNIST digits and a LeNet that has just been initialised. The labels are read
off its gradient first; the attack starts from noise. Each attack runs in a process of its own, so
that its memory can be told, and leaves a file: what is there is not computed again. After each
iteration it also keeps what it has reached, for the report in case it is stopped.

The gradient has 13,426 numbers and a digit 784, so 17 digits at most are determined by counting; 16
since the rows of the last layer's gradient add up to zero. Up to N = K − 1 = 9 the features can be
read off the last layer; beyond, the gradients are matched. An iteration is one step of all images
together, and so is the step that solves for each by itself. Seconds are of processor time on one
thread.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from time import process_time

from timing import table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
from batch_figure import Found, batch_figure, cost_figure
from cells import Cell, Cells, add_options, folder_of, mnist, random_batch
from growth import forget_peak, peak_bytes

from tinyleak.attacks import Method, Progress, Settings, attack
from tinyleak.client import simulate
from tinyleak.data import Dataset
from tinyleak.metrics import match_batch, mse
from tinyleak.nn import LeNet

FOLDER = "results/least_squares"
MODEL = LeNet()
SCHEMES = {"U": "uniform", "default": "default"}
SEEDS = 10
BATCHES = (1, 2, 4, 8, 9)
LARGER = (10, 12, 16)
"""Batches for which one seed is run, up to what counting allows."""

SHOWN = (8, "default", 1)
"""The attack that is drawn: N, initialisation and seed. Three digits have one label, and three
another."""

LBFGS_ITERATIONS = 2000

EXACT = 1e-8
"""Every image of a batch below this mean squared error: the batch is recovered exactly."""

GOAL, DEAR, DEAR_GOAL = 1e-24, 8, 1e-20
"""The distance that an attack stops at; for so many images and more, where an iteration is dear and
rounding may leave a distance above the first, the other: far below what an exact batch needs."""

LIMIT = 2400.0
"""Seconds of processor time for one attack: two cores for twenty minutes."""


def run(
    data: Dataset,
    batch: int,
    init: str,
    seed: int,
    restarts: int,
    iterations: int,
    method: Method = "levenberg-marquardt",
    keep: Callable[[Cell], None] = lambda cell: None,
) -> Cell:
    """Attack one client, and return what came of it and how; keep what it reaches on the way."""
    images = random_batch(data, batch, seed)
    client, truth = simulate(MODEL, *images, seed=seed, init=SCHEMES[init])
    labels = client.labels.labels
    forget_peak()
    memory, began = peak_bytes(), process_time()
    seconds, distances, errors = [], [], []

    def note(progress: Progress) -> None:
        images = progress.images()
        found = images[match_batch(images, truth.images)]
        seconds.append(process_time() - began)
        distances.append(progress.distance)
        errors.append(mse(found, truth.images))
        keep(
            {
                "mse": errors[-1],
                "images": found.astype(np.float32),
                "iterations": np.array(len(errors) - 1),
                "distance": np.array(distances[-1]),
                "seconds": np.array(seconds[-1]),
            }
        )
        if seconds[-1] > LIMIT:
            raise KeyboardInterrupt

    found = attack(
        client,
        labels=labels,
        method=method,
        seed=seed,
        restarts=restarts,
        settings=Settings(goal=GOAL if batch < DEAR else DEAR_GOAL, iterations=iterations),
        on_progress=note,
    )
    outcome = truth.judge(found)
    return {
        "mse": outcome.mse,
        "images": outcome.images.astype(np.float32),
        "truth": truth.images.astype(np.float32),
        "labels": truth.labels,
        "labels_inferred": labels,
        "iterations": np.array(found.iterations),
        "evaluations": np.array(found.evaluations),
        "reason": np.array(found.reason),
        "seconds": np.array(process_time() - began),
        "bytes": np.array(peak_bytes() - memory),
        "course_seconds": np.array(seconds),
        "course_distance": np.array(distances),
        "course_mse": np.array(errors),
    }


def name_of(batch: int, init: str, seed: int) -> str:
    """Return the name of an attack's cell."""
    return f"N={batch} {init} {seed}"


def reached_name(batch: int, init: str, seed: int) -> str:
    """Return the name of the cell with what an attack has reached that is not at its end."""
    return f"{name_of(batch, init, seed)} reached"


def unfinished(cells: Cells, points: Sequence[tuple[int, str, int]]) -> str:
    """Return a line for each attack that was stopped: how far it was."""
    lines = []
    for point in points:
        cell = cells.peek(reached_name(*point))
        if cell is not None and cells.peek(name_of(*point)) is None:
            lines.append(
                f"{name_of(*point)}: stopped after {int(cell['iterations'])} iterations and "
                f"{float(cell['seconds']):.0f} s, at a distance of {float(cell['distance']):.0e}; "
                f"{int((cell['mse'] < EXACT).sum())} images exact, largest MSE "
                f"{cell['mse'].max():.0e}, median {np.median(cell['mse']):.0e}"
            )
    return "\n".join(lines)


def success_table(cells: Cells, points: Sequence[tuple[int, str, int]]) -> str:
    """Return how many batches came back exactly, and what an attack takes, by N and init."""
    rows = []
    for batch, init in dict.fromkeys((batch, init) for batch, init, _ in points):
        names = [name_of(*point) for point in points if point[:2] == (batch, init)]
        found = [cell for cell in map(cells.peek, names) if cell is not None]
        if not found:
            continue
        worst = np.array([cell["mse"].max() for cell in found])
        images = np.concatenate([cell["mse"] for cell in found])
        right = [np.array_equal(np.sort(c["labels"]), c["labels_inferred"]) for c in found]
        rows.append(
            [
                f"{batch}",
                init,
                f"{int((worst < EXACT).sum())} of {len(found)}",
                f"{int((images < EXACT).sum())} of {len(images)}",
                f"{sum(right)} of {len(right)}",
                f"{np.median(worst):.0e}",
                f"{worst.max():.0e}",
                f"{np.median([int(cell['iterations']) for cell in found]):.0f}",
                f"{np.median([float(cell['seconds']) for cell in found]):.0f}",
                f"{batch * 784}",
                f"{np.median([int(cell['bytes']) for cell in found]) / 2**20:.0f}",
            ]
        )
    header = ["N", "init", f"batches with every MSE < {EXACT:g}", "images", "labels inferred"]
    header += ["median worst MSE", "largest", "iterations", "seconds", "n", "MiB"]
    return table(header, rows)


def draw(data: Dataset, cells: Cells) -> None:
    """Draw one client's batch, if it is there, beside what L-BFGS makes of the same gradient."""
    squares = cells.peek(name_of(*SHOWN))
    if squares is None:
        return
    compute = partial(run, data, *SHOWN, 1, LBFGS_ITERATIONS, "lbfgs")
    lbfgs = cells.get(f"L-BFGS {name_of(*SHOWN)}", compute)
    found = {
        name: Found(
            cell["images"], cell["mse"], cell["course_seconds"], cell["course_mse"].max(axis=1)
        )
        for name, cell in {"L-BFGS": lbfgs, "least squares": squares}.items()
    }
    path = cells.folder / "batch.png"
    batch_figure(path, squares["truth"], found)
    print(f"\nfigure: {path}")


def draw_costs(cells: Cells, points: Sequence[tuple[int, str, int]]) -> None:
    """Draw the time and memory of every attack that ended, against its number of images."""
    costs: dict[str, list[tuple[int, float, float]]] = {init: [] for init in SCHEMES}
    for batch, init, seed in points:
        cell = cells.peek(name_of(batch, init, seed))
        if cell is not None:
            costs[init].append((batch, float(cell["seconds"]), int(cell["bytes"]) / 2**20))
    path = cells.folder / "costs.png"
    cost_figure(path, costs, 784)
    print(f"figure: {path}")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--batches", type=int, nargs="+", help="1 2 4 8 9, and one seed of 10 12 16"
    )
    parser.add_argument("--inits", choices=SCHEMES, nargs="+", default=list(SCHEMES))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="clients to each (10)")
    parser.add_argument(
        "--restarts", type=int, default=3, help="starts, one after the other until one is in (3)"
    )
    parser.add_argument("--report", action="store_true", help="compute nothing")
    add_options(parser, FOLDER)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def points_of(options: argparse.Namespace) -> list[tuple[int, str, int]]:
    """Return which attacks are asked for, the cheap ones first: (N, init, seed)."""
    batches = options.batches or (BATCHES if options.batches is None else ())
    points = [
        (batch, init, seed)
        for batch in batches
        for init in options.inits
        for seed in range(options.seeds)
    ]
    if options.batches is None and not options.quick:
        points += [(batch, init, 0) for batch in LARGER for init in options.inits]
    return points


def main() -> int:
    """Run what is missing, each attack in its own process, and print the table."""
    options = parse_arguments()
    if options.quick:
        options.batches, options.seeds, options.restarts = options.batches or [1], 1, 1
    cells = Cells(folder_of(options, FOLDER))
    if options.one is not None:
        batch, init, seed = int(options.one[0]), options.one[1], int(options.one[2])
        data = mnist(options.data_dir, options.quick)
        iterations = 2 if options.quick else 200
        reached = reached_name(batch, init, seed)
        compute = partial(run, data, batch, init, seed, options.restarts, iterations)
        cells.get(name_of(batch, init, seed), partial(compute, keep=partial(cells.put, reached)))
        cells.drop(reached)
        return 0
    points = points_of(options)
    for batch, init, seed in points:
        if not options.report and cells.peek(name_of(batch, init, seed)) is None:
            command = [sys.executable, __file__, "--one", str(batch), init, str(seed)]
            command += ["--results", str(cells.folder), "--restarts", str(options.restarts)]
            command += ["--quick"] if options.quick else []
            command += ["--data-dir", str(options.data_dir)] if options.data_dir else []
            subprocess.run(command, check=True)
    print(success_table(cells, points))
    print(unfinished(cells, points))
    if not options.quick:
        draw(mnist(options.data_dir, options.quick), cells)
        draw_costs(cells, points)
    return 0


if __name__ == "__main__":
    sys.exit(main())

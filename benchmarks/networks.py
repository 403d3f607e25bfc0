"""A photograph out of the gradient of a LeNet and of a ResNet-20, in colour.

    python benchmarks/networks.py     what is there is not computed again

The portrait among matplotlib's sample data, 3×32×32, weights from U(−0.5, 0.5) and as PyTorch's
by default; the label is read off the gradient, and L-BFGS does the rest. The ResNet is the paper's
modification: sigmoid, no strides, batch norm in evaluation form.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import process_time

from timing import table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
from cells import Cell, Cells, folder_of

from tinyleak.attacks import Settings, attack
from tinyleak.client import simulate
from tinyleak.data import load_portrait
from tinyleak.nn import LeNet, ResNet
from tinyleak.nn.models import Network
from tinyleak.report.canvas import drawing, number, save, show_image

SCHEMES = {"U": "uniform", "default": "default"}
NETWORKS: dict[str, Network] = {"LeNet": LeNet((3, 32, 32)), "ResNet-20": ResNet((3, 32, 32))}
SMALL: dict[str, Network] = {"LeNet": LeNet((3, 32, 32), hidden=2)}
ITERATIONS = 1000
GOAL = 1e-30
STAGES = (0, 30, 100, 300)
"""Iterations after which the image is kept, if there were as many."""


def run(model: Network, init: str, iterations: int) -> Cell:
    """Attack a client with the portrait; return what was found, and stages on the way."""
    images, labels = load_portrait().batch([0])
    client, truth = simulate(model, images, labels, init=SCHEMES[init])
    began = process_time()
    found = attack(client, labels="infer", settings=Settings(iterations, goal=GOAL))
    outcome = truth.judge(found)
    kept = [min(found.snapshots, key=lambda one: abs(one.iteration - stage)) for stage in STAGES]
    return {
        "mse": outcome.mse,
        "psnr": outcome.psnr,
        "image": outcome.images[0],
        "stages": np.stack([one.images[0] for one in kept]),
        "stage_iterations": np.array([one.iteration for one in kept]),
        "label_right": np.array(bool(found.labels[0] == labels[0])),
        "distance": np.array(found.distance),
        "iterations": np.array(found.iterations),
        "evaluations": np.array(found.evaluations),
        "reason": np.array(found.reason),
        "seconds": np.array(process_time() - began),
        "weights": np.array(sum(int(np.prod(shape)) for shape in model.shapes.values())),
    }


def draw(path: Path, cells: dict[tuple[str, str], Cell]) -> None:
    """Draw the stages of each attack in a row, and the truth at its end."""
    truth = load_portrait().images[0]
    with drawing(1.6 * (len(STAGES) + 2), 1.85 * len(cells)) as figure:
        grid = figure.subplots(len(cells), len(STAGES) + 2, squeeze=False)
        for row, ((name, init), cell) in zip(grid, cells.items(), strict=True):
            row[0].set_ylabel(f"{name},\ninit {init}", fontsize=9)
            stages = zip(cell["stages"], cell["stage_iterations"], strict=True)
            for axes, (image, iteration) in zip(row, stages, strict=False):
                show_image(axes, np.clip(image, 0, 1))
                axes.set_xlabel(f"iteration {iteration}", fontsize=8)
            show_image(row[-2], np.clip(cell["image"], 0, 1))
            iteration, error = int(cell["iterations"]), number(float(cell["mse"][0]))
            row[-2].set_xlabel(f"iteration {iteration}\nMSE {error}", fontsize=8)
            show_image(row[-1], truth)
            row[-1].set_xlabel("truth", fontsize=8)
        save(figure, path)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results", type=Path, help="where it goes (results/networks; a new folder with --quick)"
    )
    parser.add_argument("--quick", action="store_true", help="small and short: a smoke test")
    return parser.parse_args(arguments)


def main() -> int:
    """Compute what is missing, print the table and draw the figure."""
    options = parse_arguments()
    folder = folder_of(options, "results/networks")
    store = Cells(folder)
    iterations = 2 if options.quick else ITERATIONS
    found = {
        (name, init): store.get(f"{name} {init}", partial(run, model, init, iterations))
        for name, model in (SMALL if options.quick else NETWORKS).items()
        for init in SCHEMES
    }
    rows = [
        [
            name,
            init,
            f"{int(cell['weights']):,}",
            f"{float(cell['mse'][0]):.0e}",
            f"{float(cell['psnr'][0]):.0f} dB",
            "right" if cell["label_right"] else "wrong",
            f"{float(cell['distance']):.0e}",
            f"{int(cell['iterations'])}",
            f"{float(cell['seconds']):.0f}",
            str(cell["reason"]),
        ]
        for (name, init), cell in found.items()
    ]
    header = ["network", "init", "weights", "MSE", "PSNR", "label", "distance", "iterations"]
    print(table([*header, "seconds", "reason"], rows))
    draw(folder / "portrait.png", found)
    print(f"\nfigure: {folder / 'portrait.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What each defence stops, and what it costs: leak and accuracy for every strength.

    python benchmarks/defenses.py                  every part; what is there is not computed again
    python benchmarks/defenses.py --part leak      attacks on ten digits, defence by strength
    python benchmarks/defenses.py --part accuracy  training with each defence
    python benchmarks/defenses.py --part report    the tables and figures of what there is

Three attackers: one who does not know of the defence (naive), one who knows it and weighs what was
shared by its precision (aware), and one who also prefers smooth images (aware, smooth). The client
has one image and a network that has just been initialised.

Accuracy is that of the attacked network (LeNet, sigmoid, weights from U(−0.5, 0.5)) after 1,500
steps of momentum on batches of 32, where every step's gradient was defended. MNIST's test split
alone is used: 8,000 images to train on, the other 2,000 to test. With PyTorch's default weights
the sigmoid LeNet does not leave its plateau in that time, so the leak at those weights stands
beside the same accuracy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
from cells import Cell, Cells, add_options, folder_of, mnist
from defense_figures import GRID, emergence_figure, reconstruction_figure, trade_figure
from timing import table

from tinyleak.attacks import Attacker, Progress, Settings, attack, attack_many
from tinyleak.client import RECOVERED_MSE, Client, Truth, simulate
from tinyleak.data import Dataset
from tinyleak.defenses import Defense, need_examples, parse, protect
from tinyleak.metrics import mse
from tinyleak.nn import LeNet, accuracy, train
from tinyleak.report.canvas import number

FOLDER = "results/defenses"
MODEL = LeNet()
SCHEMES = {"U": "uniform", "default": "default"}
SMOOTHNESS = 3.0
"""β of the smooth attacker. On six other digits 1 and 10 did worse at most strengths."""

NONE = "none"
NOISE = [
    *(f"gaussian:1e-{power}" for power in (5, 4, 3, 2, 1)),
    *(f"laplacian:1e-{power}" for power in (4, 3, 2)),
]
ROUNDING = ["float16", "bfloat16", "int8", "int8-affine"]
PRUNING = [
    *(f"prune:{fraction}" for fraction in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)),
    *(f"prune-global:{fraction}" for fraction in (0.3, 0.7, 0.9)),
]
CLIPPING = ["clip:1.0", "clip:0.1"]
DP = ["dpsgd:1.0,0.001", "dpsgd:1.0,0.01", "dpsgd:1.0,0.1", "dpsgd:1.0,1.0"]
NAIVE, AWARE, SMOOTH = "naive", "aware", "aware, smooth"
ATTACKERS = {
    NONE: [NAIVE],
    **dict.fromkeys([*NOISE, *DP], [NAIVE, SMOOTH]),
    **dict.fromkeys([*ROUNDING, *PRUNING, *CLIPPING], [NAIVE, AWARE]),
}
"""Who attacks what. To know of noise alone does not help: all entries are as uncertain."""

TRAINED, STEPS = 8000, 1500
RATE = 0.05


def client(data: Dataset, index: int, init: str, text: str) -> tuple[Client, Truth]:
    """Return a client with one image; its weights, noise and label follow from the index."""
    images, labels = data.batch([index])
    defenses = read(text)
    return simulate(MODEL, images, labels, seed=index, init=SCHEMES[init], defenses=defenses)


def read(text: str) -> list[Defense]:
    """Return the defences that a cell's name stands for."""
    return [] if text == NONE else [parse(text)]


def attacker_of(text: str, name: str, steps: int) -> Attacker:
    """Return what this attacker brings to clients with this defence."""
    smoothness = SMOOTHNESS if name == SMOOTH else 0.0
    known = [] if name == NAIVE else read(text)
    return Attacker(defenses=known, settings=Settings(steps, smoothness=smoothness))


def leak(data: Dataset, text: str, init: str, attacker: str, digits: int, steps: int) -> Cell:
    """Attack clients that defend themselves so; return what was found, (digits, …)."""
    pairs = [client(data, index, init, text) for index in range(digits)]
    # What is exact but sparse, or rounded, is worth more iterations; noise is only fitted by them.
    brought = attacker_of(text, attacker, 2 * steps if attacker == AWARE else steps)
    found = attack_many([one for one, _ in pairs], attacker=brought)
    outcomes = [truth.judge(one) for (_, truth), one in zip(pairs, found, strict=True)]
    return {
        "mse": np.concatenate([outcome.mse for outcome in outcomes]),
        "label_right": np.array([o.labels[0] == o.labels_true[0] for o in outcomes]),
        "images": np.concatenate([outcome.images for outcome in outcomes]).astype(np.float32),
        "labels": np.concatenate([outcome.labels_true for outcome in outcomes]),
    }


def course(data: Dataset, text: str, attacker: str, steps: int) -> Cell:
    """Attack one digit with U weights and return distance and error at each iteration."""
    attacked, truth = client(data, 0, "U", text)
    iterations, distances, errors = [], [], []

    def note(progress: Progress) -> None:
        iterations.append(progress.iteration)
        distances.append(progress.distance)
        errors.append(float(mse(progress.images(), truth.images)[0]))

    attack(attacked, attacker=attacker_of(text, attacker, steps), on_progress=note)
    return {
        "iterations": np.array(iterations),
        "distances": np.array(distances),
        "mse": np.array(errors),
    }


def price(data: Dataset, text: str, steps: int) -> Cell:
    """Train with this defence; return the accuracy and the network."""
    trained = min(TRAINED, 4 * len(data) // 5)
    params = MODEL.init(np.random.default_rng(0))
    with np.errstate(all="ignore"):  # too much noise drives the weights to where nothing is finite
        params = train(
            MODEL,
            data.images[:trained],
            data.labels[:trained],
            params=params,
            steps=steps,
            learning_rate=RATE,
            seed=1,
            protect=partial(protect, read(text)),
            per_example=need_examples(read(text)),
        ).params
        right = accuracy(MODEL, params, data.images[trained:], data.labels[trained:])
    return {"accuracy": np.array(right), **params}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("all", "leak", "accuracy", "report"), default="all")
    parser.add_argument("--digits", type=int, default=10, help="clients to a cell (10)")
    parser.add_argument(
        "--iterations", type=int, default=400, help="of each attack (400); the aware have twice"
    )
    add_options(parser, FOLDER, "cells and figures")
    return parser.parse_args(arguments)


def main() -> int:
    """Compute what is missing, then print the tables and draw the figures."""
    options = parse_arguments()
    texts = list(ATTACKERS)
    steps, training_steps = options.iterations, STEPS
    if options.quick:
        options.digits, steps, training_steps = 2, 5, 5
        texts = [NONE, "gaussian:1e-3", "bfloat16", "prune:0.5", "clip:1.0", "dpsgd:1.0,0.01"]
    data = mnist(options.data_dir, options.quick)
    cells = Cells(folder_of(options, FOLDER))
    leaks: dict[tuple[str, str, str], Cell] = {}
    prices: dict[str, Cell] = {}
    if options.part in ("all", "leak", "report"):
        for init in SCHEMES:
            for text in texts:
                for attacker in ATTACKERS[text]:
                    leaks[text, init, attacker] = cells.get(
                        f"leak {init} {text} {attacker} {options.digits}x{steps}",
                        lambda key=(text, init, attacker): leak(data, *key, options.digits, steps),
                    )
    if options.part in ("all", "accuracy", "report"):
        for text in texts:
            prices[text] = cells.get(
                f"accuracy {text} {training_steps}",
                lambda text=text: price(data, text, training_steps),
            )
    if options.part in ("all", "report"):
        report(data, cells, leaks, prices, steps)
    return 0


def report(
    data: Dataset,
    cells: Cells,
    leaks: dict[tuple[str, str, str], Cell],
    prices: dict[str, Cell],
    steps: int,
) -> None:
    """Print the table and draw the three kinds of figure."""
    reader = {name: array for name, array in prices[NONE].items() if name != "accuracy"}
    print(leak_table(leaks, prices, reader))
    print(f"\nMedian MSE of {len(leaks[NONE, 'U', NAIVE]['mse'])} digits; in brackets how many of")
    print(f"them were recovered (MSE < {RECOVERED_MSE:g} and the right label) and how many a LeNet")
    print(f"(trained without defence, {float(prices[NONE]['accuracy']):.1%}) reads right.")
    folder = cells.folder
    medians = {key: float(np.median(cell["mse"])) for key, cell in leaks.items()}
    scores = {text: float(cell["accuracy"]) for text, cell in prices.items()}
    trade_figure(folder / "trade.png", medians, scores)
    for init in SCHEMES:
        found = {
            (text, attacker): (cell["images"][0], float(cell["mse"][0]))
            for (text, its_init, attacker), cell in leaks.items()
            if its_init == init
        }
        reconstruction_figure(folder / f"reconstructions-{init}.png", data.images[0], found)
        reconstruction_figure(folder / f"chosen-{init}.png", data.images[0], found, GRID[:2])
    for name, attacker in (("naive", NAIVE), ("smooth", SMOOTH)):
        courses = {
            text: cells.get(
                f"course {text} {attacker} {steps}",
                lambda text=text, who=attacker: course(data, text, who, steps),
            )
            for text in leaks_of("gaussian", prices)
        }
        emergence_figure(folder / f"noise-{name}.png", courses)


def leaks_of(name: str, prices: dict[str, Cell]) -> list[str]:
    """Return the strengths of a defence that there are, weakest first."""
    return [text for text in prices if text.partition(":")[0] == name]


def leak_table(
    leaks: dict[tuple[str, str, str], Cell], prices: dict[str, Cell], reader: Cell
) -> str:
    """Return the table: a row for each strength, a column for each initialisation and attacker."""
    rows = []
    for text in prices:
        row = [text, f"{float(prices[text]['accuracy']):.1%}"]
        for init in SCHEMES:
            for attackers in ([NAIVE], [AWARE, SMOOTH]):
                found = [leaks.get((text, init, attacker)) for attacker in attackers]
                cell = next((one for one in found if one is not None), None)
                row.append("" if cell is None else describe(cell, reader))
        rows.append([*row, PAPER.get(text, "")])
    header = ["defence", "accuracy", "U, naive", "U, aware", "default, naive", "default, aware"]
    return table([*header, "the paper, recalled"], rows)


def describe(cell: Cell, reader: Cell) -> str:
    """Return a cell of the table: the median error, how many recovered, how many legible."""
    recovered = int(((cell["mse"] < RECOVERED_MSE) & cell["label_right"]).sum())
    legible = round(
        accuracy(MODEL, reader, np.clip(cell["images"], 0, 1), cell["labels"]) * len(cell["mse"])
    )
    return f"{number(float(np.median(cell['mse'])))} ({recovered}, {legible})"


PAPER = {
    NONE: "76.3 %",
    "gaussian:1e-4": "leaks; 75.6 %",
    "gaussian:1e-3": "leaks with artefacts; 73.3 %",
    "gaussian:1e-2": "does not leak; 45.3 %",
    "gaussian:1e-1": "does not leak; ≤ 1 %",
    "laplacian:1e-4": "leaks; 75.6 %",
    "laplacian:1e-3": "leaks with artefacts; 73.4 %",
    "laplacian:1e-2": "does not leak; 46.2 %",
    "float16": "leaks; 76.1 %",
    "bfloat16": "leaks",
    "int8": "does not leak; 53.7 %",
    "prune:0.1": "leaks as without",
    "prune:0.2": "leaks with artefacts",
    "prune:0.3": "does not leak",
    "prune:0.5": "does not leak",
    "prune:0.7": "does not leak",
    "prune:0.9": "does not leak",
}
"""What Deep Leakage from Gradients, section 5, says of a strength, from memory of the paper and not
checked against its text. Its accuracies are of another network and other data."""


if __name__ == "__main__":
    sys.exit(main())

"""Labels read off the gradient: of one image, of a batch; and inputs of a fully connected layer.

    python benchmarks/labels.py                   every part; what is there is not computed again
    python benchmarks/labels.py --part one        DLG's labels beside inferred ones, 1,000 digits
    python benchmarks/labels.py --part counts     label counts of batches up to 64
    python benchmarks/labels.py --part searched   labels of a trained network's batches, by trying
    python benchmarks/labels.py --part separated  which images of a batch the MLP's gradient gives

DLG finds the label with the image, by optimisation; the inferred one follows from the signs of the
last layer's gradient alone. iDLG's published figures are those of its README.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from cells import Cell, Cells, add_options, folder_of, mnist
from timing import table

from tinyleak.analytic import LayerGradient, infer_labels, separate_inputs
from tinyleak.attacks import Settings, attack_many
from tinyleak.attacks.settings import OUTER_STEP
from tinyleak.client import Client, Truth, share, simulate
from tinyleak.data import Dataset, load_glyphs
from tinyleak.metrics import mse, wilson_interval
from tinyleak.nn import MLP, LeNet, accuracy, train

FOLDER = "results/labels"
SCHEMES = {"U": "uniform", "default": "default"}
ACTIVATIONS = ("sigmoid", "tanh", "softplus")
AT_ONCE = 50
"""Clients attacked as one program, and kept as one cell."""

BATCHES = (2, 4, 8, 16, 32, 64)
BATCHES_EACH = 40
TRAINED = {"sigmoid": 0.05, "tanh": 0.005, "softplus": 0.002}
"""Rates of learning at which a LeNet with U weights learns."""

SEED = 11  # of the batches whose labels are searched for; the search was developed on 7

LEGIBLE = 0.03
"""About where a digit becomes legible to the eye."""


def inferred(data: Dataset, activation: str, init: str, indices: range) -> Cell:
    """Infer the labels of clients of one image."""
    model = LeNet(activation=activation)
    clients, truths = simulated(data, model, init, indices)
    found = [client.labels for client in clients]
    return {
        "labels": np.concatenate([truth.labels for truth in truths]),
        "found": np.concatenate([one.labels for one in found]),
        "trusted": np.array([one.trusted for one in found]),
    }


def optimised(data: Dataset, recipe: str, init: str, indices: range, steps: int) -> Cell:
    """Attack clients of one image with unknown labels; return those that were found with it."""
    model = LeNet()
    clients, truths = simulated(data, model, init, indices)
    outer = max(1, steps // OUTER_STEP)
    settings = Settings(steps) if recipe == "ours" else Settings.paper(iterations=outer)
    found = attack_many(clients, seeds=indices, settings=settings)
    pairs = list(zip(found, truths, strict=True))
    return {
        "labels": np.concatenate([truth.labels for truth in truths]),
        "found": np.concatenate([one.labels for one in found]),
        "mse": np.concatenate([mse(one.images, truth.images) for one, truth in pairs]),
    }


def simulated(
    data: Dataset, model: LeNet, init: str, indices: range
) -> tuple[list[Client], list[Truth]]:
    """Return a client for each image, every one with weights of its own, and their truths."""
    pairs = [
        simulate(model, *data.batch([index]), seed=index, init=SCHEMES[init]) for index in indices
    ]
    return [client for client, _ in pairs], [truth for _, truth in pairs]


def counts(
    data: Dataset,
    activation: str,
    init: str,
    training_steps: int,
    batches: Sequence[int],
    each: int,
) -> Cell:
    """Infer the label counts of random batches, with and without digits to stand in."""
    model, params, score = trained(data, activation, init, training_steps)
    half = len(data) // 2
    probes = {"smooth noise": None, "digits": load_glyphs(400, seed=9).images}
    wrong = np.zeros((len(probes), len(batches), each))
    trusted = np.zeros((len(probes), len(batches), each), dtype=bool)
    for column, size in enumerate(batches):
        for trial in range(each):
            chosen = np.random.default_rng([size, trial]).integers(half, size=size)
            client, truth = share(model, params, *data.batch(chosen))
            true_counts = np.bincount(truth.labels, minlength=data.classes)
            for row, images in enumerate(probes.values()):
                found = infer_labels(client.last_layer, probes=images)
                wrong[row, column, trial] = np.abs(found.counts - true_counts).sum() / 2
                trusted[row, column, trial] = found.trusted
    return {"wrong": wrong, "trusted": trusted, "accuracy": np.array(score)}


def trained(
    data: Dataset, activation: str, init: str, steps: int
) -> tuple[LeNet, dict[str, np.ndarray], float]:
    """Return a LeNet trained on the second half of the data, and its accuracy on the first."""
    model = LeNet(activation=activation)
    params = model.init(np.random.default_rng(0), SCHEMES[init])
    if steps:
        half = len(data) // 2
        images, labels, rate = data.images[half:], data.labels[half:], TRAINED[activation]
        params = train(
            model, images, labels, params=params, steps=steps, learning_rate=rate, seed=1
        ).params
    return model, params, accuracy(model, params, data.images[:500], data.labels[:500])


def searched(data: Dataset, activation: str, steps: int, size: int, each: int, dtype: str) -> Cell:
    """Find the labels of random batches as `attack` does, of clients whose loss is not told."""
    model, params, score = trained(data, activation, "U", steps)
    guessed, counted, found, right, seconds = (np.zeros(each) for _ in range(5))
    for trial in range(each):
        chosen = np.random.default_rng([size, trial, SEED]).integers(len(data) // 2, size=size)
        exact, truth = share(model, params, *data.batch(chosen))
        rounded = {name: g.astype(dtype) for name, g in exact.gradients.items()}
        client, true = Client.of(model, params, rounded, batch=size), np.sort(truth.labels)
        assert client.last_layer is not None, "a LeNet ends in a linear layer"
        guess = infer_labels(client.last_layer)
        guessed[trial] = np.array_equal(guess.labels, true)
        counted[trial] = guess.trusted
        began = time.perf_counter()
        labels = client.labels.labels if client.labels.trusted else None
        if labels is None and client.unmixed is not None:
            labels = client.unmixed.labels
        seconds[trial] = time.perf_counter() - began
        found[trial] = labels is not None
        right[trial] = labels is not None and np.array_equal(np.sort(labels), true)
    return {
        "guessed": guessed,
        "counted": counted,
        "found": found,
        "right": right,
        "seconds": seconds,
        "accuracy": np.array(score),
    }


def separated(data: Dataset, widths: tuple[int, ...], size: int, trials: int) -> Cell:
    """Count which images of random batches the first layer of a ReLU network gives away."""
    model = MLP(activation="relu", widths=widths)
    found = np.zeros(trials)
    errors = [0.0]
    for trial in range(trials):
        chosen = np.random.default_rng([size, trial]).integers(len(data), size=size)
        client, truth = simulate(model, *data.batch(chosen), seed=trial, init="default")
        pixels = truth.images.reshape(size, -1)
        layer = LayerGradient(client.gradients["0.weight"], client.gradients["0.bias"])
        for one_input in separate_inputs(layer):
            errors.append(float(np.abs(pixels - one_input.x).max(axis=1).min()))
            found[trial] += 1
    return {"found": found, "worst": np.array(max(errors))}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part", choices=("all", "one", "counts", "searched", "separated"), default="all"
    )
    parser.add_argument("--digits", type=int, default=1000, help="to infer labels of (1000)")
    parser.add_argument(
        "--iterations", type=int, default=200, help="of DLG, by which labels have settled (200)"
    )
    add_options(parser, FOLDER)
    return parser.parse_args(arguments)


def main() -> int:
    """Compute what is missing, and print the tables."""
    options = parse_arguments()
    cells = Cells(folder_of(options, FOLDER))
    data = mnist(options.data_dir, options.quick)
    if options.part in ("all", "one"):
        digits = 4 if options.quick else options.digits
        print(one_table(cells, data, digits, 3 if options.quick else options.iterations))
    if options.part in ("all", "counts"):
        print(counts_table(cells, data, options.quick))
    if options.part in ("all", "searched"):
        print(searched_table(cells, data, options.quick))
    if options.part in ("all", "separated"):
        print(separated_table(cells, data, options.quick))
    return 0


def one_table(cells: Cells, data: Dataset, digits: int, steps: int) -> str:
    """Return the table of labels of one image, inferred and optimised."""
    parts = [range(start, min(start + AT_ONCE, digits)) for start in range(0, digits, AT_ONCE)]

    def joined(name: str, compute: Callable[[range], Cell]) -> Cell:
        found = [
            cells.get(f"one {name} {part.start}-{part.stop}", partial(compute, part))
            for part in parts
        ]
        return {key: np.concatenate([cell[key] for cell in found]) for key in found[0]}

    rows = []
    for activation in ACTIVATIONS:
        for init in SCHEMES:
            cell = joined(
                f"inferred {activation} {init}",
                lambda part, activation=activation, init=init: inferred(
                    data, activation, init, part
                ),
            )
            sure = f"{int(cell['trusted'].sum())} trusted"
            rows.append(
                ["inferred", activation, init, right(cell["found"] == cell["labels"]), sure]
            )
    for recipe, init in (("ours", "U"), ("ours", "default"), ("the paper's", "U")):
        cell = joined(
            f"optimised {recipe} {init} {steps}",
            lambda part, recipe=recipe, init=init: optimised(data, recipe, init, part, steps),
        )
        near = int((cell["mse"] < LEGIBLE).sum())
        name = f"DLG, {recipe}, {steps} iterations"
        correct = right(cell["found"] == cell["labels"])
        rows.append([name, "sigmoid", init, correct, f"{near} with MSE < {LEGIBLE}"])
    rows.append(["DLG, iDLG's README", "sigmoid", "U", "89.9 %", ""])
    rows.append(["iDLG, its README", "sigmoid", "U", "100 %", ""])
    return table(["labels", "activation", "init", "right (95 % interval)", ""], rows)


def right(correct: np.ndarray) -> str:
    """Return how many are right, with Wilson's interval of 95 %."""
    low, high = wilson_interval(int(correct.sum()), len(correct))
    return f"{int(correct.sum())}/{len(correct)} ({low:.1%} to {high:.1%})"


def counts_table(cells: Cells, data: Dataset, quick: bool) -> str:
    """Return how often the counts of a batch are exact, and the share of labels that is right."""
    batches, each = ((2, 4), 2) if quick else (BATCHES, BATCHES_EACH)
    rows = []
    for activation in ACTIVATIONS:
        for init, steps in (("U", 0), ("default", 0), ("U", 50), ("U", 500)):
            its_steps = min(steps, 3) if quick else steps
            cell = cells.get(
                f"counts {activation} {init} {its_steps}",
                partial(counts, data, activation, init, its_steps, batches, each),
            )
            state = (
                f"{its_steps} steps, {float(cell['accuracy']):.0%}" if its_steps else "untrained"
            )
            for row, probes in enumerate(("smooth noise", "digits")):
                wrong, trusted = cell["wrong"][row], cell["trusted"][row]
                described = [
                    f"{np.mean(errors == 0):.0%} ({1 - np.mean(errors) / size:.0%})"
                    for errors, size in zip(wrong, batches, strict=True)
                ]
                sure = wrong[trusted] == 0
                described.append(f"{int(sure.sum())}/{sure.size}")
                rows.append([activation, init, state, probes, *described])
    header = ["activation", "init", "network", "stand-ins", *(f"N = {size}" for size in batches)]
    return table([*header, "exact where trusted"], rows)


def searched_table(cells: Cells, data: Dataset, quick: bool) -> str:
    """Return for how many of a trained network's batches the labels are known, and how many wrong.

    Known is what is claimed: by counting alone where that is trusted, or else by searching.
    """
    each, steps = (1, 3) if quick else (10, 500)
    rows = []
    for activation in ("sigmoid", "tanh"):
        for dtype in ("float64", "float32"):
            for size in (2,) if quick else (2, 3, 4, 6, 8):
                cell = cells.get(
                    f"searched {activation} {steps} {size} {dtype}",
                    partial(searched, data, activation, steps, size, each, dtype),
                )
                known, total = int(cell["found"].sum()), len(cell["found"])
                row = [activation, f"{float(cell['accuracy']):.0%}", dtype, str(size)]
                names = ("guessed", "counted", "right")
                row += [f"{int(cell[name].sum())}/{total}" for name in names]
                wrong = known - int(cell["right"].sum())
                seconds = f"{np.median(cell['seconds']):.1f}", f"{np.max(cell['seconds']):.0f}"
                rows.append([*row, str(wrong), *seconds])
    header = ["trained LeNet", "accuracy", "dtype", "N", "guessed", "counted for certain"]
    return table([*header, "known", "wrong", "median s", "longest"], rows)


def separated_table(cells: Cells, data: Dataset, quick: bool) -> str:
    """Return how many images of a batch are separated, by the first layer's width."""
    sizes, trials = ((2,), 2) if quick else ((1, 2, 4, 8, 16, 32), 20)
    rows = []
    for width in (128, 1024):
        row, worst = [f"784 → {width} → 64 → 10"], 0.0
        for size in sizes:
            cell = cells.get(
                f"separated {width} {size}", partial(separated, data, (width, 64), size, trials)
            )
            row.append(f"{cell['found'].mean():.1f}")
            worst = max(worst, float(cell["worst"]))
        rows.append([*row, f"{worst:.0e}"])
    header = ["ReLU MLP, default init", *(f"N = {size}" for size in sizes), "largest error"]
    return table(header, rows)


if __name__ == "__main__":
    sys.exit(main())

"""Batches taken apart record by record, out of one gradient: how many come back, exactly.

    python benchmarks/records.py                  the table; what is there is not computed again
    python benchmarks/records.py --picture        a picture of 128 digits out of one gradient

Clients compute with PyTorch, in float32 or float64, weights as PyTorch draws them or U(−0.5, 0.5);
seeds from 100 on were not used while the search was made. A record is exact below an MSE of 1e-8 in
float64 and 1e-6 in float32; a false one is any other that was returned. Seconds are of one
processor's time.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from time import process_time

from timing import table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
import torch
from cells import Cell, Cells, add_options, folder_of, mnist, random_batch

from tinyleak.analytic import LayerGradient
from tinyleak.analytic.records import Records, find_records
from tinyleak.data import Dataset
from tinyleak.nn import MLP
from tinyleak.nn.split import split

FOLDER = "results/records"
EXACT = {"float64": 1e-8, "float32": 1e-6}
ACTIVATIONS = {
    "sigmoid": torch.nn.Sigmoid,
    "tanh": torch.nn.Tanh,
    "softplus": torch.nn.Softplus,
    "relu": torch.nn.ReLU,
}
NETWORKS = {"784-1000-10": (1000,), "784-256-128-10": (256, 128)}
FIRST_SEED = 100


def network(widths: tuple[int, ...], act: str, init: str) -> torch.nn.Sequential:
    """A perceptron as a user of PyTorch writes it."""
    sizes, layers = (784, *widths, 10), []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(fan_in, fan_out), ACTIVATIONS[act]()]
    made = torch.nn.Sequential(*layers[:-1])
    if init == "uniform":
        for parameter in made.parameters():
            parameter.data.uniform_(-0.5, 0.5)
    return made


def train(made: torch.nn.Sequential, data: Dataset, seed: int, accuracy: float = 0.9) -> None:
    """Train by Adam until nine tenths of a thousand other digits are told."""
    images, labels = random_batch(data, min(6000, len(data)), seed + 1000)
    x = torch.tensor(images.reshape(len(images), -1), dtype=torch.float32)
    y = torch.tensor(labels)
    optimiser = torch.optim.Adam(made.parameters(), lr=1e-3)
    for step in range(2000):
        some = torch.randint(0, len(x) - 1000, (64,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(made(x[some]), y[some]).backward()
        optimiser.step()
        if step % 20 == 0 and (made(x[-1000:]).argmax(1) == y[-1000:]).float().mean() >= accuracy:
            return


def search(
    data: Dataset, name: str, act: str, init: str, dtype: str, count: int, seed: int, trained: bool
) -> tuple[Records, np.ndarray, np.ndarray, float]:
    """One client: its records, its images and labels, and the seconds."""
    torch.manual_seed(seed)
    made = network(NETWORKS[name], act, init)
    images, labels = random_batch(data, count, seed)
    if trained:
        train(made, data, seed)
    made = made.to(getattr(torch, dtype))
    x = torch.tensor(images.reshape(count, -1)).to(getattr(torch, dtype))
    torch.nn.functional.cross_entropy(made(x), torch.tensor(labels)).backward()
    params = {n: p.detach().double().numpy() for n, p in made.named_parameters()}
    layer = LayerGradient(
        made[0].weight.grad.numpy(), made[0].bias.grad.numpy(), count, float(np.finfo(dtype).eps)
    )
    cut = split(MLP((1, 28, 28), 10, act, NETWORKS[name]), params, "0.weight")
    start = process_time()
    found = find_records(layer, cut, bounds=(0.0, 1.0), seconds=300.0)
    return found, images, labels, process_time() - start


def cell_of(data: Dataset, clients: int, *setting) -> Cell:
    """What came of some clients: records exact, false, of how many, and seconds, for each."""
    rows = []
    for seed in range(FIRST_SEED, FIRST_SEED + clients):
        found, images, labels, seconds = search(data, *setting[:5], seed, setting[5])
        errors = np.square(found.inputs[:, None] - images.reshape(len(images), -1)).mean(axis=2)
        nearest = errors.argmin(axis=1) if len(errors) else np.zeros(0, int)
        exact = (errors.min(axis=1, initial=np.inf) < EXACT[setting[3]]) & (
            found.labels == labels[nearest]
        )
        rows.append((found.copies[exact].sum(), (~exact).sum(), len(images), seconds))
    return {"rows": np.array(rows)}


def settings(quick: bool) -> list[tuple]:
    """The cells of the table: network, activation, weights, dtype, N, whether it was trained."""
    if quick:
        return [("784-256-128-10", "tanh", "default", "float32", 4, False)]
    one, two = NETWORKS
    cells = [(one, a, "default", "float32", n, False) for n in (16, 64, 128) for a in ACTIVATIONS]
    cells += [(one, a, "default", "float64", 128, False) for a in ACTIVATIONS]
    cells += [(two, a, "default", "float32", 64, False) for a in ACTIVATIONS]
    cells += [(one, a, "uniform", d, 32, False) for d in EXACT for a in ACTIVATIONS]
    cells += [(one, a, "default", "float32", 32, True) for a in ACTIVATIONS]
    cells += [(one, a, "default", "float64", 256, False) for a in ("tanh", "relu")]
    return cells


def picture(data: Dataset, path: Path) -> None:
    """Draw 128 digits out of one gradient: the truth above, what was found below."""
    from tinyleak.report.canvas import drawing, save

    name, act = "784-1000-10", "relu"
    found, images, _, seconds = search(data, name, act, "default", "float32", 128, 100, False)
    rows = images.reshape(128, -1)
    order = np.square(found.inputs[:, None] - rows).mean(axis=2).argmin(axis=1)
    shown = np.ones_like(rows)
    shown[order] = np.clip(found.inputs, 0.0, 1.0)

    def wall(digits: np.ndarray) -> np.ndarray:
        grid = np.pad(digits.reshape(4, 32, 28, 28), [(0, 0), (0, 0), (1, 1), (1, 1)])
        return grid.transpose(0, 2, 1, 3).reshape(120, 960)

    with drawing(10.0, 3.1) as figure:
        titles = (
            "128 digits",
            f"out of one float32 gradient of {name}, ReLU, in {seconds:.0f} s: {len(order)} found",
        )
        for axes, wanted, title in zip(figure.subplots(2, 1), (rows, shown), titles, strict=True):
            axes.imshow(wall(wanted), cmap="gray_r", vmin=0, vmax=1)
            axes.set_title(title, fontsize=9, loc="left")
            axes.axis("off")
        save(figure, path)


def main() -> None:
    """Compute the cells that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser, FOLDER)
    parser.add_argument("--clients", type=int, default=10, help="clients a cell (10; 5 from 64 on)")
    parser.add_argument("--batches", type=int, nargs="*", help="only cells of these N (all)")
    parser.add_argument("--picture", action="store_true", help="draw results/records.png and end")
    options = parser.parse_args()
    data = mnist(options.data_dir, options.quick)
    if options.picture:
        picture(data, Path("results/records.png"))
        return
    cells, rows = Cells(folder_of(options, FOLDER)), []
    for setting in settings(options.quick):
        if options.batches and setting[4] not in options.batches:
            continue
        clients = 1 if options.quick else min(options.clients, 5 if setting[4] >= 64 else 10)
        name = " ".join(map(str, (*setting, clients)))
        done = cells.get(name, lambda c=clients, s=setting: cell_of(data, c, *s))["rows"]
        exact, false, all_of, seconds = done.T
        all_found = f"{int((exact == all_of).sum())} of {clients}"
        share = f"{exact.sum() / all_of.sum():.1%}"
        rows.append(
            [
                *map(str, setting),
                all_found,
                share,
                f"{false.sum():.0f}",
                f"{np.median(seconds):.1f}",
            ]
        )
    heads = ["network", "activation", "weights", "dtype", "N", "trained"]
    print(table([*heads, "all found", "exact", "false", "seconds"], rows))


if __name__ == "__main__":
    main()

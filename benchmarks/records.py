"""Batches taken apart record by record, out of one gradient: how many come back, exactly.

    python benchmarks/records.py                  the table; what is there is not computed again
    python benchmarks/records.py --noise          instead: how it ends as gradients become inexact
    python benchmarks/records.py --picture        a picture of 128 digits out of one gradient

Convolutional networks are taken apart by records_networks.py. Clients compute with PyTorch, in
float32 or float64, weights as PyTorch draws them or U(−0.5, 0.5); seeds from 300 on were not used
while the search was made. A record is exact below an MSE of 1e-8 in float64, 1e-6 in float32, and
1e-4 where its gradient was blurred; a false one is any other that was certified, and a guess, which
is not certified, is counted if it is within 1e-4. Seconds are of one processor's time. Beside what
is blurred stands gradient matching by L-BFGS with the labels known: images within 1e-4, median MSE.
Where pruning is "known", what it took is first filled in by the gradient's rank.
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

from tinyleak import attack
from tinyleak.analytic import LayerGradient
from tinyleak.analytic.completion import completed
from tinyleak.analytic.records import Records, find_records
from tinyleak.attacks import Settings
from tinyleak.client import Client
from tinyleak.data import Dataset
from tinyleak.defenses import Prune
from tinyleak.nn import MLP
from tinyleak.nn.split import split

FOLDER = "results/records"
EXACT = {"float64": 1e-8, "float32": 1e-6}
GUESSED = 1e-4
ACTIVATIONS = {
    "sigmoid": torch.nn.Sigmoid,
    "tanh": torch.nn.Tanh,
    "softplus": torch.nn.Softplus,
    "relu": torch.nn.ReLU,
    "leaky_relu": torch.nn.LeakyReLU,
    "gelu": torch.nn.GELU,
}
MAIN = ("sigmoid", "tanh", "softplus", "relu")
BATCHES = ("different", "repeated", "one label", "patches")
"""Kinds of batches: of different digits; of half as many, each twice; of digits of one kind; of
parts of a photograph, which do not overlap, with labels at random."""
NETWORKS = {"784-1000-10": (1000,), "784-256-128-10": (256, 128), "no first bias": (1000,)}
PRUNED = 0.001, 0.3, 0.5, 0.7, 0.9
"""Shares of each tensor. Of the weight's gradient half is zero anyway, where digits are black."""
FIRST_SEED = 300
CLIENTS = {16: 10, 32: 10, 64: 5, 96: 5, 128: 5, 256: 1}
"""How many clients a cell of N has, at most."""


def network(
    widths: tuple[int, ...], act: str, init: str, *, bias: bool = True
) -> torch.nn.Sequential:
    """A perceptron as a user of PyTorch writes it, with or without a bias of its first layer."""
    sizes, layers = (784, *widths, 10), []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(fan_in, fan_out), ACTIVATIONS[act]()]
    if not bias:
        layers[0] = torch.nn.Linear(784, widths[0], bias=False)
    made = torch.nn.Sequential(*layers[:-1])
    if init == "uniform":
        for parameter in made.parameters():
            parameter.data.uniform_(-0.5, 0.5)
    return made


def train(made: torch.nn.Sequential, data: Dataset, seed: int, flat: bool = True) -> None:
    """Train by Adam until nine tenths of a thousand other digits are told."""
    images, labels = random_batch(data, min(6000, len(data)), seed + 1000)
    x = torch.tensor(images.reshape(len(images), -1) if flat else images, dtype=torch.float32)
    y = torch.tensor(labels)
    optimiser = torch.optim.Adam(made.parameters(), lr=1e-3)
    for step in range(2000):
        some = torch.randint(0, len(x) - 1000, (64,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(made(x[some]), y[some]).backward()
        optimiser.step()
        with torch.no_grad():
            if step % 20 == 0 and (made(x[-1000:]).argmax(1) == y[-1000:]).float().mean() >= 0.9:
                return


def patches() -> Dataset:
    """All parts of 28 × 28 pixels of the photograph that matplotlib ships, in grey."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photograph:
        grey = np.asarray(photograph.convert("L")) / 255.0
    rows, columns = (size // 28 for size in grey.shape)
    parts = grey[: 28 * rows, : 28 * columns].reshape(rows, 28, columns, 28).swapaxes(1, 2)
    labels = np.random.default_rng(0).integers(10, size=rows * columns)
    return Dataset("patches", parts.reshape(-1, 1, 28, 28), labels, 10)


def batch(data: Dataset, count: int, seed: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of a client and their labels."""
    if kind == "patches":
        return random_batch(patches(), count, seed)
    if kind == "repeated":
        images, labels = random_batch(data, count // 2, seed)
        return np.repeat(images, 2, axis=0), np.repeat(labels, 2)
    if kind == "one label":
        images, labels = random_batch(data, min(40 * count, len(data)), seed)
        chosen = np.flatnonzero(labels == seed % 10)[:count]
        return images[chosen], labels[chosen]
    return random_batch(data, count, seed)


def blurred(gradient: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    """A gradient after noise of a relative variance, pruning, clipping to a share of its length, or
    rounding: "noise 1e-12".
    """
    kind, amount = (*how.split(), "", "")[:2]
    if kind == "noise":
        size = np.sqrt(float(amount) * np.square(gradient).mean())
        return gradient + size * rng.standard_normal(gradient.shape)
    if kind == "prune":
        return Prune(float(amount))({"": gradient}, rng)[""]
    if kind == "clip":
        return float(amount) * gradient
    if kind in ("float16", "bfloat16"):
        return torch.tensor(gradient).to(getattr(torch, kind)).double().numpy()
    return gradient


Shared = tuple[MLP, dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, np.ndarray]


def client(
    data: Dataset,
    name: str,
    act: str,
    init: str,
    dtype: str,
    count: int,
    trained: bool,
    kind: str,
    blur: str,
    seed: int,
) -> Shared:
    """One client: its network, weights and gradient, its images and labels."""
    torch.manual_seed(seed)
    biased = name != "no first bias"
    made = network(NETWORKS[name], act, init, bias=biased)
    images, labels = batch(data, count, seed, kind)
    if trained:
        train(made, data, seed)
    made = made.to(getattr(torch, dtype))
    made.zero_grad()
    x = torch.tensor(images.reshape(len(images), -1)).to(getattr(torch, dtype))
    torch.nn.functional.cross_entropy(made(x), torch.tensor(labels)).backward()
    params = {n: p.detach().double().numpy() for n, p in made.named_parameters()}
    rng = np.random.default_rng(seed)
    gradients = {n: blurred(p.grad.numpy(), blur, rng) for n, p in made.named_parameters()}
    model = MLP((1, 28, 28), 10, act, NETWORKS[name], unbiased=() if biased else ("0",))
    return model, params, gradients, images, labels


def search(data: Dataset, *setting) -> tuple[Records, np.ndarray, np.ndarray, float]:
    """One client's records, its images and labels, and the seconds."""
    model, params, gradients, images, labels = client(data, *setting)
    dtype, blur = setting[3], setting[-2]
    eps = torch.finfo(getattr(torch, blur if "float" in blur else dtype)).eps
    layer = LayerGradient(gradients["0.weight"], gradients.get("0.bias"), len(images), eps)
    cut = split(model, params, "0.weight")
    known, start = not blur.startswith("clip"), process_time()
    if blur.endswith("known"):
        layer = completed(layer, params["0.weight"])
    try:
        found = find_records(layer, cut, bounds=(0.0, 1.0), factor_known=known, seconds=300.0)
    except ValueError:  # what blurs the gradient hides how many records it shows
        if not blur:
            raise
        none = np.zeros((0, 784)), np.zeros(0, int), np.zeros(0, int)
        found = Records(*none, len(images), 0, 0.0, *none[:2])
    return found, images, labels, process_time() - start


def matched(data: Dataset, *setting) -> Cell:
    """How many images of one client come back by L-BFGS, which was told their labels."""
    model, params, gradients, images, labels = client(data, *setting, FIRST_SEED)
    direction = Settings(direction=setting[-1].startswith("clip"))
    how = Client.of(model, params, gradients, batch=len(images), reduction="mean")
    found = attack(how, labels=labels, settings=direction)
    errors = np.square(found.images[:, None] - images).mean(axis=(2, 3, 4)).min(axis=0)
    return {"near": np.array(np.mean(errors < GUESSED)), "median": np.array(np.median(errors))}


def cell_of(data: Dataset, clients: int, *setting) -> Cell:
    """What came of some clients: records exact, false, of how many, and seconds, for each."""
    rows = []
    most = max(EXACT[setting[3]], 1e-4 if setting[-1] else 0.0)
    for seed in range(FIRST_SEED, FIRST_SEED + clients):
        found, images, labels, seconds = search(data, *setting, seed)
        errors = np.square(found.inputs[:, None] - images.reshape(len(images), -1)).mean(axis=2)
        nearest = errors.argmin(axis=1) if len(errors) else np.zeros(0, int)
        exact = (errors.min(axis=1, initial=np.inf) < most) & (found.labels == labels[nearest])
        apart = np.square(found.guesses[:, None] - images.reshape(len(images), -1)).mean(axis=2)
        near = int((apart.min(axis=1, initial=np.inf) < GUESSED).sum())
        rows.append((found.copies[exact].sum(), (~exact).sum(), len(images), seconds, near))
    return {"rows": np.array(rows)}


def settings(quick: bool, noise: bool) -> list[tuple]:
    """The cells: network, activation, weights, dtype, N, trained, kind of batch, what blurs it."""
    plain = (False, "different", "")
    if quick:
        return [("784-256-128-10", "tanh", "default", "float32", 4, *plain)]
    one, two, unbiased = NETWORKS
    if noise:
        blurs = [f"noise 1e-{power}" for power in range(14, 5, -2)]
        for share in PRUNED:
            blurs += [f"prune {share}", f"prune {share} known"]
        blurs += ["clip 0.5", "bfloat16", "float16"]
        clear = "default", "float64", 16, False, "different"
        return [(one, a, *clear, blur) for blur in blurs for a in ("sigmoid", "tanh", "relu")]
    cells = [(one, a, "default", "float32", n, *plain) for n in (16, 64) for a in ACTIVATIONS]
    cells += [(two, a, "default", "float32", 64, *plain) for a in MAIN]
    cells += [
        (one, a, "default", "float32", 32, False, kind, "") for kind in BATCHES[1:3] for a in MAIN
    ]
    cells += [(one, a, "default", "float32", 32, True, "different", "") for a in ACTIVATIONS]
    cells += [(one, a, "default", "float32", 64, True, "different", "") for a in MAIN]
    cells += [(one, a, "uniform", d, 32, *plain) for d in EXACT for a in MAIN]
    cells += [(one, a, "uniform", "float32", 64, *plain) for a in MAIN]
    cells += [(one, a, "default", d, 128, *plain) for d in EXACT for a in MAIN]
    cells += [
        (one, a, "default", "float32", n, False, "patches", "") for n in (32, 64, 128) for a in MAIN
    ]
    cells += [(unbiased, a, "default", "float32", n, *plain) for n in (32, 128) for a in MAIN]
    cells += [(one, a, "default", "float64", 256, *plain) for a in MAIN]
    more = list(ACTIVATIONS)[-2:]
    cells += [(two, a, "default", "float32", 64, *plain) for a in more]
    cells += [(one, a, "default", "float32", 128, *plain) for a in more]
    cells += [(two, "relu", "default", "float32", 96, *plain)]
    cells += [(two, a, "default", "float32", 128, *plain) for a in MAIN]
    cells += [(one, a, "uniform", "float32", 128, *plain) for a in MAIN]
    cells += [(one, a, "default", "float32", 128, True, "different", "") for a in MAIN]
    return cells


def picture(data: Dataset, path: Path) -> None:
    """Draw 128 digits out of one gradient: the truth above, what was found below."""
    from tinyleak.report.canvas import drawing, save

    name, act = "784-1000-10", "relu"
    plain = "default", "float32", 128, False, "different", ""
    found, images, _, seconds = search(data, name, act, *plain, 100)
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
    parser.add_argument("--clients", type=int, default=10, help="clients a cell at most (10)")
    parser.add_argument("--batches", type=int, nargs="*", help="only cells of these N (all)")
    parser.add_argument("--done", action="store_true", help="print what is there, and no more")
    parser.add_argument("--noise", action="store_true", help="noise, pruning and rounding instead")
    parser.add_argument("--picture", action="store_true", help="draw results/records.png and end")
    options = parser.parse_args()
    data = mnist(options.data_dir, options.quick)
    if options.picture:
        picture(data, Path("results/records.png"))
        return
    cells, rows = Cells(folder_of(options, FOLDER)), []
    for setting in settings(options.quick, options.noise):
        if options.batches and setting[4] not in options.batches:
            continue
        clients = 1 if options.quick else min(options.clients, CLIENTS[setting[4]])
        name = " ".join(map(str, (*setting, clients)))
        if options.done and cells.peek(name) is None:
            continue
        cell = cells.get(name, lambda c=clients, s=setting: cell_of(data, c, *s))
        done = cell["rows"]
        exact, false, all_of, seconds, near = done.T
        all_found = f"{int((exact == all_of).sum())} of {clients}"
        share = f"{exact.sum() / all_of.sum():.1%}"
        rows.append(
            [
                *map(str, setting),
                all_found,
                share,
                f"{false.sum():.0f}",
                f"{near.sum() / all_of.sum():.1%}",
                f"{np.median(seconds):.1f}",
            ]
        )
        if options.noise and not setting[-1].endswith("known"):
            beside = cells.get(f"{name} matched", lambda s=setting: matched(data, *s))
            rows[-1] += [f"{float(beside['near']):.0%}", f"{float(beside['median']):.0e}"]
        elif options.noise:
            rows[-1] += ["", ""]
    heads = ["network", "activation", "weights", "dtype", "N", "trained", "batch", "blurred by"]
    heads += ["all found", "exact", "false", "guessed", "seconds"]
    print(table(heads + ["by L-BFGS", "its MSE"] * options.noise, rows))


if __name__ == "__main__":
    main()

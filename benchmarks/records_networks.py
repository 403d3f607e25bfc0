"""Batches of convolutional networks: PyTorch's MNIST example, FedAvg's CNN, the paper's LeNet.

    python benchmarks/records_networks.py            what is there is not computed again

What `attack(client, method="auto")` makes of float32 gradients. PyTorch's example and FedAvg's CNN
(ReLU or another activation, max pooling), fresh or trained to 90 % by PyTorch, are read from the
`.pt2` files that it writes, and taken apart at their first linear layer. The LeNet's batches are
least squares, in float64 as well; in colour it has 100 classes, and 32 × 32 patches of a photograph
with labels at random (one alone is searched for by its features first). An image counts below an
MSE of 1e-6; labels where all of a batch are right, in any order. Seconds are of one processor's
time, memory is what the attack took at most.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import process_time

from timing import table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
import torch
from cells import Cell, Cells, add_options, folder_of, mnist, random_batch
from growth import forget_peak, peak_bytes
from records import train
from torch.nn import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
)

from tinyleak import attack
from tinyleak.client import Client, Truth, certify_images, simulate
from tinyleak.data import Dataset
from tinyleak.data.networks import load_network
from tinyleak.nn import LeNet

FOLDER = "results/records_networks"
PRECISIONS = "float64", "float32"
RECOVERED = 1e-6
FIRST_SEED = 400
"""None of these seeds was developed on."""


def example() -> Module:
    """PyTorch's own example for MNIST."""
    convolutions = Conv2d(1, 32, 3), ReLU(), Conv2d(32, 64, 3), ReLU(), MaxPool2d(2), Dropout(0.25)
    return Sequential(
        *convolutions, Flatten(), Linear(9216, 128), ReLU(), Dropout(0.5), Linear(128, 10)
    )


def fedavg(act: type[Module] = ReLU) -> Module:
    """The CNN of McMahan et al. 2017."""
    first = Conv2d(1, 32, 5, padding=2), act(), MaxPool2d(2)
    second = Conv2d(32, 64, 5, padding=2), act(), MaxPool2d(2)
    return Sequential(*first, *second, Flatten(), Linear(3136, 512), act(), Linear(512, 10))


CNNS = {
    "PyTorch's example": example,
    "FedAvg's CNN": fedavg,
    "FedAvg's, tanh": lambda: fedavg(Tanh),
    "FedAvg's, sigmoid": lambda: fedavg(Sigmoid),
}


def patches() -> Dataset:
    """All parts of 32 × 32 pixels of the photograph that matplotlib ships, in colour."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photograph:
        pixels = np.asarray(photograph.convert("RGB")) / 255.0
    rows, columns = (size // 32 for size in pixels.shape[:2])
    parts = pixels[: 32 * rows, : 32 * columns].reshape(rows, 32, columns, 32, 3)
    parts = parts.transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)
    return Dataset("patches", parts, np.random.default_rng(0).integers(100, size=len(parts)), 100)


def client_of(
    data: Dataset, name: str, weights: str, dtype: str, count: int, seed: int
) -> tuple[Client, Truth]:
    """A client, and what is true of it."""
    images, labels = random_batch(data, count, seed)
    if name == "LeNet, colour":
        images, labels = random_batch(patches(), count, seed)
        model = LeNet((3, 32, 32), classes=100)
        return simulate(model, images, labels, seed=seed, init=weights, dtype=dtype)
    if name == "LeNet":
        return simulate(LeNet(), images, labels, seed=seed, init=weights, dtype=dtype)
    torch.manual_seed(seed)
    network = CNNS[name]().eval()
    if weights == "trained":
        train(network, data, seed, flat=False)
    network.zero_grad()
    x = torch.tensor(images, dtype=torch.float32)
    torch.nn.functional.cross_entropy(network(x), torch.tensor(labels)).backward()
    gradients = {n: p.grad.numpy().copy() for n, p in network.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt2"
        torch.export.save(torch.export.export(network, (torch.zeros(1, 1, 28, 28),)), path)
        model = load_network(path)
    client = Client.of(model, model.weights, gradients, batch=count, dtype=dtype)
    return client, Truth(images, labels)


def cell_of(data: Dataset, seed: int, *setting) -> Cell:
    """What came of a client: images recovered, certified, labels, worst MSE, seconds, MiB."""
    client, truth = client_of(data, *setting, seed)
    forget_peak()
    before = peak_bytes()
    start = process_time()
    few = setting[0] == "LeNet, colour" and client.batch == 1  # features, but enough with gradients
    found = attack(client, method="auto", seed=seed, start="features" if few else "auto")
    seconds, memory = process_time() - start, (peak_bytes() - before) / 2**20
    errors = np.square(found.images[:, None] - truth.images).mean(axis=(2, 3, 4)).min(axis=0)
    counts = np.array_equal(np.sort(found.labels), np.sort(truth.labels))
    verdicts = certify_images(client, found.images, found.labels).verdicts
    certified = sum(verdict is True for verdict in verdicts)
    recovered = int((errors < RECOVERED).sum())
    row = recovered, certified, counts, errors.max(), seconds, memory
    return {"row": np.array(row, dtype=float)}


def settings(quick: bool) -> list[tuple]:
    """The cells of the table: network, weights, dtype, N."""
    if quick:
        return [("LeNet", "default", "float64", 2)]
    cells = [
        ("LeNet", init, dtype, n)
        for n in (2, 4)
        for init in ("default", "uniform")
        for dtype in PRECISIONS
    ]
    cells += [("LeNet", "default", "float32", n) for n in (8, 9)]
    cells += [("LeNet, colour", "uniform", "float32", 1)]
    cells += [(name, "fresh", "float32", n) for n in (8, 16) for name in list(CNNS)[:2]]
    cells += [(name, "trained", "float32", 8) for name in list(CNNS)[:3]]
    # From here on clients take longer; the others are computed first.
    cells += [(name, "trained", "float32", 16) for name in list(CNNS)[:2]]
    cells += [("LeNet, colour", "uniform", "float32", n) for n in (2, 3)]
    cells += [("LeNet", "default", "float64", n) for n in (8, 9)]
    cells += [("LeNet", "uniform", dtype, n) for n in (8, 9) for dtype in PRECISIONS]
    return [*cells, ("FedAvg's, sigmoid", "trained", "float32", 8)]


def _name(setting: tuple, seed: int) -> str:
    return " ".join(map(str, (*setting, seed)))


def main() -> None:
    """Compute the cells that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser, FOLDER)
    parser.add_argument("--clients", type=int, default=10, help="clients for each row (10)")
    parser.add_argument("--report", action="store_true", help="the table of what there is")
    parser.add_argument("--rows", type=int, help="only so many of them, from the first on")
    options = parser.parse_args()
    data = mnist(options.data_dir, options.quick)
    cells, rows = Cells(folder_of(options, FOLDER)), []
    seeds = range(FIRST_SEED, FIRST_SEED + (1 if options.quick else options.clients))
    for seed in () if options.report else seeds:
        for setting in settings(options.quick)[: options.rows]:
            cells.get(_name(setting, seed), lambda i=seed, s=setting: cell_of(data, i, *s))
    for setting in settings(options.quick):
        known = [cells.peek(_name(setting, seed)) for seed in seeds]
        known = [cell["row"] for cell in known if cell is not None]
        if not known:
            continue
        recovered, certified, counts, worst, seconds, memory = np.array(known).T
        clients, of = len(known), len(known) * setting[-1]
        rows.append(
            [
                *map(str, setting),
                f"{int((recovered == setting[-1]).sum())} of {clients}",
                f"{recovered.sum():.0f} of {of}",
                f"{certified.sum():.0f}",
                f"{counts.sum():.0f} of {clients}",
                f"{np.median(worst):.0e}",
                f"{np.median(seconds):.1f}",
                f"{memory.max():.0f}",
            ]
        )
    heads = ["network", "weights", "dtype", "N", "all images", "images", "certified", "labels"]
    print(table([*heads, "median worst MSE", "seconds", "MiB"], rows))


if __name__ == "__main__":
    main()

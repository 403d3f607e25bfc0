"""What a client's weights give away after it has trained: its steps unrolled, or taken for one.

    python benchmarks/local_training.py          ten clients of each kind
    python benchmarks/local_training.py --quick  only shows that it works

An attacker who knows how the client trained goes the same steps with its dummies. One who does not
divides what the weights changed by the learning rate and the number of steps, and takes that for a
gradient of the whole batch. Both are told the labels, in the images' order, and run L-BFGS from the
same noise; clients have built-in digits, PyTorch's default weights and a learning rate of 0.1.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from statistics import median

from timing import environment, table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np

from tinyleak import data
from tinyleak.attacks import Settings, attack
from tinyleak.client import RECOVERED_MSE, Client, LocalSteps, Truth, share
from tinyleak.metrics import matched_mse
from tinyleak.nn import MLP, LeNet

RATE, SEEDS, ITERATIONS = 0.1, 10, 1000
NETWORKS = {"LeNet": LeNet(), "MLP": MLP(widths=(64,))}


@dataclass(frozen=True)
class Training:
    """How clients of one kind train: N images, b to a mini-batch, over so many epochs."""

    network: str
    images: int
    batch: int
    epochs: int
    momentum: float = 0.0
    shuffled: bool = False
    labels: str = "known"

    def client(self, seed: int) -> tuple[Client, Truth]:
        """Return a client as an attacker sees it, who takes the order to be always the same."""
        rng = np.random.default_rng(seed)
        digits = data.load("glyphs")
        images, labels = digits.batch(rng.permutation(len(digits))[: self.images])
        said = {"epochs": self.epochs, "local_batch": self.batch, "momentum": self.momentum}
        local = LocalSteps.of(self.images, RATE, **said)
        model = NETWORKS[self.network]
        order = np.arange(self.images)
        if self.shuffled:  # all epochs in a row are one of a client who has the images repeatedly
            later = [rng.permutation(self.images) for _ in range(self.epochs - 1)]
            order = np.concatenate([order, *later])
        seen = images[order], labels[order]
        client, _ = share(model, model.init(rng, "default"), *seen, local=local)
        known = Client(model, client.params, client.gradients, self.images, local=local)
        return known, Truth(images, labels)

    def errors(self, seed: int, iterations: int) -> tuple[float, float]:
        """Return the largest mean squared error of an image, unrolled and as one gradient."""
        client, truth = self.client(seed)
        mean = {name: g / client.multiple for name, g in client.gradients.items()}
        one = Client(client.model, client.params, mean, self.images)
        brief = {"seed": seed, "start": "noise", "method": "lbfgs"}
        brief["labels"] = truth.labels if self.labels == "known" else None
        brief["settings"] = Settings(iterations=iterations)
        found = [attack(known, **brief) for known in (client, one)]
        unrolled, single = (float(matched_mse(f.images, truth.images).max()) for f in found)
        return unrolled, single


KINDS = [
    Training("LeNet", 1, 1, 5),
    Training("LeNet", 1, 1, 20, 0.9),
    Training("LeNet", 2, 1, 1),
    Training("LeNet", 2, 1, 2),
    Training("MLP", 1, 1, 20, 0.9),
    Training("MLP", 4, 4, 1),
    Training("MLP", 4, 4, 5),
    Training("MLP", 4, 2, 1),
    Training("MLP", 4, 2, 5),
    Training("MLP", 4, 1, 5, 0.9),
    Training("MLP", 8, 4, 2),
    Training("MLP", 8, 2, 2),
    Training("MLP", 4, 2, 5, shuffled=True),
    Training("MLP", 4, 2, 1, labels="found with the images"),
]


def described(errors: list[float]) -> str:
    """Return how many clients' images all came back, and the median of their largest errors."""
    back = sum(error < RECOVERED_MSE for error in errors)
    return f"{back} of {len(errors)}, {median(errors):.0e}"


def main() -> None:
    """Attack all clients, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two kinds, two clients, few steps")
    quick = parser.parse_args().quick
    kinds, seeds = (KINDS[4:6], 2) if quick else (KINDS, SEEDS)
    print(environment(), end="\n\n", flush=True)
    rows = []
    for kind in kinds:
        began = time.process_time()
        pairs = [kind.errors(seed, 50 if quick else ITERATIONS) for seed in range(seeds)]
        unrolled, single = (list(column) for column in zip(*pairs, strict=True))
        seconds = (time.process_time() - began) / seeds
        order = "shuffled anew" if kind.shuffled else "the same"
        steps = kind.epochs * -(-kind.images // kind.batch)
        row = [kind.network, kind.images, kind.batch, kind.epochs, steps, kind.momentum, order]
        row += [kind.labels, described(unrolled), described(single), f"{seconds:.0f} s"]
        rows.append([str(cell) for cell in row])
        print(*rows[-1], sep=" | ", flush=True)
    header = ["", "N", "b", "epochs", "steps", "momentum", "order", "labels", "unrolled"]
    print(f"\n{table([*header, 'as one gradient', 'both'], rows)}")
    print(f"\nimages back (MSE < {RECOVERED_MSE:g}) of all clients, and the median largest MSE")


if __name__ == "__main__":
    main()

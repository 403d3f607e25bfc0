"""Certificates held against the truth: records of random clients of PyTorch, and what is none.

    python benchmarks/certificates.py --clients 400 --seed 0

The paper's LeNet with every activation, or a perceptron, weights as PyTorch draws them or
U(−0.5, 0.5), one to eight digits, a quarter of the batches with noise in all pixels, in float32 or
float64: each client is drawn by a seed of its own. `certify_images` is given the client's own
images, of which it should refuse none, and wrong candidates, of which it should certify none:
mixtures of two records, or of one and a stranger, down to 1 : 1000, mixtures of all, strangers,
near duplicates with a tenth of the pixels replaced, wrong labels, and noise of 1e-3. A LeNet's
last layer can tell five records apart, and 588 features do not determine 784 noisy pixels: those
are rows of their own.
"""

from __future__ import annotations

import argparse
from collections import Counter
from functools import partial
from pathlib import Path

from timing import table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
import torch
from cells import mnist
from torch.nn.functional import conv2d, cross_entropy, linear

from tinyleak.client import Client, certify_images
from tinyleak.data import Dataset
from tinyleak.nn import ACTIVATIONS, MLP, LeNet

FUNCTIONS = {name: getattr(torch.nn.functional, name, None) for name in ACTIVATIONS}
FUNCTIONS |= {"tanh": torch.tanh, "sigmoid": torch.sigmoid}
FUNCTIONS["gelu_tanh"] = partial(torch.nn.functional.gelu, approximate="tanh")
KINDS = "two records", "all records", "a stranger in it", "stranger", "few pixels", "label", "noise"
EACH = 15
"""Wrong candidates of each kind for a client."""


def logits(model: LeNet | MLP, params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return what a network's own layers make of images, in PyTorch: (N, K)."""
    act = FUNCTIONS[model.activation]
    if isinstance(model, LeNet):
        for n, stride in enumerate(model.strides):
            weight, bias = params[f"body.{2 * n}.weight"], params[f"body.{2 * n}.bias"]
            x = act(conv2d(x, weight, bias, stride, model.kernel // 2))
        return linear(x.flatten(1), params["fc.0.weight"], params["fc.0.bias"])
    x = x.flatten(1)
    names = [name.removesuffix(".weight") for name in params if name.endswith(".weight")]
    for name in names:
        x = linear(x, params[f"{name}.weight"], params[f"{name}.bias"])
        x = x if name == names[-1] else act(x)
    return x


def client_of(
    model: LeNet | MLP, init: str, dtype: str, images: np.ndarray, labels: np.ndarray, seed: int
) -> Client:
    """A client whose gradient PyTorch computes."""
    kind = getattr(torch, dtype)
    drawn = model.init(np.random.default_rng(seed), init)
    params = {n: torch.tensor(w).to(kind).requires_grad_() for n, w in drawn.items()}
    x = torch.tensor(images).to(kind)
    cross_entropy(logits(model, params, x), torch.tensor(labels)).backward()
    weights = {n: p.detach().numpy() for n, p in params.items()}
    gradients = {n: p.grad.numpy() for n, p in params.items()}
    return Client.of(model, weights, gradients, batch=len(images), dtype=dtype)


def wrong_candidates(
    images: np.ndarray, labels: np.ndarray, strangers: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return candidates that are no records, each with a label and its kind."""
    found: list[tuple[np.ndarray, int, str]] = []
    for kind in KINDS:
        for _ in range(EACH):
            i, share = rng.integers(len(images)), 10.0 ** rng.uniform(-3.0, -0.31)
            image, label = images[i], labels[i]
            stranger = strangers[rng.integers(len(strangers))]
            if kind in ("two records", "all records") and len(images) == 1:
                continue
            if kind == "two records":
                j = (i + rng.integers(1, len(images))) % len(images)
                image = (1.0 - share) * image + share * images[j]
            elif kind == "all records":
                image = np.tensordot(rng.dirichlet(np.ones(len(images))), images, 1)
            elif kind == "a stranger in it":
                image = (1.0 - share) * image + share * stranger
            elif kind == "stranger":
                image, label = stranger, int(rng.integers(10))
            elif kind == "few pixels":
                image = np.where(rng.random(image.shape) < 0.1, stranger, image)
            elif kind == "label":
                label = int((label + rng.integers(1, 10)) % 10)
            else:
                image = image + 1e-3 * rng.standard_normal(image.shape)
            found.append((image, label, kind))
    made, numbers, kinds = zip(*found, strict=True)
    return np.stack(made), np.array(numbers), list(kinds)


def measure(data: Dataset, seed: int) -> Counter[tuple[str, ...]]:
    """Count what is said of one client's records and of wrong candidates."""
    rng = np.random.default_rng([seed, 6])
    act = str(rng.choice(sorted(ACTIVATIONS)))
    model = (LeNet(activation=act), MLP((1, 28, 28), 10, act, (200,)))[int(rng.integers(4) == 0)]
    init, dtype = str(rng.choice(["default", "uniform"])), str(rng.choice(["float32", "float64"]))
    count, noisy = int(rng.integers(1, 9)), bool(rng.integers(4) == 0)
    images, labels = data.batch(rng.choice(len(data), count + 50, replace=False))
    if noisy:
        images = np.clip(images + 0.2 * rng.random(images.shape), 0.0, 1.0)
    images = images.astype(np.float32).astype(float)
    own, strangers = images[:count], images[count:]
    try:
        client = client_of(model, init, dtype, own, labels[:count], seed)
    except ValueError:  # so sure of its image that nothing is left of the gradient
        return Counter()
    wrong, guesses, kinds = wrong_candidates(own, labels[:count], strangers, rng)
    right = certify_images(client, own, labels[:count])
    said = certify_images(client, wrong, guesses).verdicts
    network = type(model).__name__
    if isinstance(model, LeNet):
        network += ", too many" if right.why else ", noisy" if noisy else ""
    refused = False in right.verdicts
    accepted = {kind for kind, answer in zip(kinds, said, strict=True) if answer}
    if refused or accepted:
        print(seed, model, init, dtype, "N =", count, right.verdicts, accepted, flush=True)
    answers = [("records", answer) for answer in right.verdicts]
    answers += [("wrong", answer) for answer in said]
    clients = Counter([(network, dtype, "clients", "")])
    return clients + Counter((network, dtype, group, str(answer)) for group, answer in answers)


def main() -> None:
    """Draw clients, and print what is said of their records and of wrong candidates."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="MNIST's folder (else TINYLEAK_MNIST)")
    parser.add_argument("--clients", type=int, default=400, help="how many (400)")
    parser.add_argument("--seed", type=int, default=0, help="of the first (0)")
    parser.add_argument("--quick", action="store_true", help="built-in digits, and three clients")
    options = parser.parse_args()
    data, counts = mnist(options.data_dir, options.quick), Counter[tuple[str, ...]]()
    for seed in range(options.seed, options.seed + (3 if options.quick else options.clients)):
        counts += measure(data, seed)
    answers = "True", "False", "None"
    rows = [
        [*name, str(counts[*name, "clients", ""])]
        + [str(counts[*name, group, said]) for group in ("records", "wrong") for said in answers]
        for name in sorted({key[:2] for key in counts})
    ]
    heads = ["network", "dtype", "clients", "records certified", "refused", "left open"]
    print(table([*heads, "wrong certified", "refused", "left open"], rows))


if __name__ == "__main__":
    main()

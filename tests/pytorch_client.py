"""Clients that train with PyTorch, and the files that a user of PyTorch would save of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from tinyleak import data
from tinyleak.attacks import Reconstruction
from tinyleak.metrics import matched_mse

GLYPHS = data.load("glyphs")


class Net(torch.nn.Module):
    """A LeNet as a user of PyTorch would write it, with names of its own."""

    def __init__(self, size: int = 28) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 12, 5, stride=2, padding=2)
        self.conv2 = torch.nn.Conv2d(12, 12, 5, stride=2, padding=2)
        self.conv3 = torch.nn.Conv2d(12, 12, 5, padding=2)
        self.fc = torch.nn.Linear(12 * (size // 4) ** 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.conv1, self.conv2, self.conv3):
            x = torch.sigmoid(layer(x))
        return self.fc(x.flatten(1))


def save_step(
    folder: Path,
    images: list[int],
    *,
    steps: int = 0,
    size: int = 28,
    ending: str = "safetensors",
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.nn.functional.cross_entropy,
    normalise: bool = False,
) -> np.ndarray:
    """Train for so many steps, save weights and one gradient, and return the images behind it."""

    def batch(indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, labels = GLYPHS.batch(indices)
        edge = (28 - size) // 2
        x = torch.tensor(pixels, dtype=torch.float32)[..., edge : 28 - edge, edge : 28 - edge]
        return (x - 0.13) / 0.31 if normalise else x, torch.tensor(labels)

    torch.manual_seed(0)
    network = Net(size)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(steps):
        x, y = batch(list(range(100 + 16 * (step % 10), 116 + 16 * (step % 10))))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    x, y = batch(images)
    optimiser.zero_grad()
    loss(network(x), y).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for name, tensors in (("w", network.state_dict()), ("g", gradients)):
        if ending == "npz":
            np.savez(folder / f"{name}.npz", **{k: v.numpy() for k, v in tensors.items()})
        else:
            safetensors.torch.save_file(tensors, folder / f"{name}.safetensors")
    return x.numpy()


def save_training(
    folder: Path, steps: int, reduction: str = "mean", momentum: float = 0.0
) -> np.ndarray:
    """Take steps of PyTorch's own SGD, save the weights before and after, return the images."""
    torch.manual_seed(3)
    network = torch.nn.Sequential(
        *(torch.nn.Flatten(), torch.nn.Linear(100, 30), torch.nn.Tanh(), torch.nn.Linear(30, 5))
    )
    x, y = torch.rand(2, 1, 10, 10), torch.tensor([1, 4])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=momentum)
    safetensors.torch.save_file(network.state_dict(), folder / "before.safetensors")
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y, reduction=reduction).backward()
        optimiser.step()
    safetensors.torch.save_file(network.state_dict(), folder / "after.safetensors")
    return x.numpy()


def error(found: Reconstruction, truth: np.ndarray) -> float:
    """The largest mean squared error of an image, in the order that fits best."""
    return float(matched_mse(found.images, truth).max())

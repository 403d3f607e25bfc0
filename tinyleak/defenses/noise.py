"""Noise: its variance is the strength."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyleak.backend import Array
from tinyleak.defenses.defense import Defense, Gradients, require_positive


@dataclass(frozen=True)
class Gaussian(Defense):
    """Add normal noise of a variance to every entry."""

    name: ClassVar[str] = "gaussian"
    noise_variance: float

    def __post_init__(self) -> None:
        require_positive("variance", self.noise_variance)

    def __call__(self, gradients: Gradients, rng: np.random.Generator) -> dict[str, Array]:
        return add(gradients, lambda shape: rng.normal(0, math.sqrt(self.noise_variance), shape))

    def variance(self, shared: Gradients, batch: int) -> dict[str, Array]:
        return {name: np.full(g.shape, self.noise_variance) for name, g in shared.items()}


@dataclass(frozen=True)
class Laplacian(Gaussian):
    """Add Laplacian noise of a variance, which is twice the square of its scale."""

    name: ClassVar[str] = "laplacian"

    def __call__(self, gradients: Gradients, rng: np.random.Generator) -> dict[str, Array]:
        scale = math.sqrt(self.noise_variance / 2)
        return add(gradients, lambda shape: rng.laplace(0, scale, shape))


def add(gradients: Gradients, noise: Callable[[tuple[int, ...]], Array]) -> dict[str, Array]:
    """Return the gradients with noise, drawn for each tensor's shape, in their dtypes."""
    return {name: (g + noise(g.shape)).astype(g.dtype) for name, g in gradients.items()}

"""Clipping: a bound on the norm, alone or with noise in proportion to it, as in DP-SGD.

Lesson: lessons/12b_clipping_and_privacy.py
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyleak.backend import Array
from tinyleak.defenses.defense import Defense, Gradients, require_positive
from tinyleak.defenses.noise import add


@dataclass(frozen=True)
class Clip(Defense):
    """Scale the gradient, all tensors together, down to an L2 norm if it is longer."""

    name: ClassVar[str] = "clip"
    changes_scale: ClassVar[bool] = True
    norm: float

    def __post_init__(self) -> None:
        require_positive("norm", self.norm)

    def __call__(self, gradients: Gradients, rng: np.random.Generator) -> dict[str, Array]:
        squared = sum(float(np.square(g, dtype=float).sum()) for g in gradients.values())
        factor = min(1.0, self.norm / math.sqrt(squared)) if squared else 1.0
        return {name: gradient * factor for name, gradient in gradients.items()}


@dataclass(frozen=True)
class DPSGD(Defense):
    """Clip each example's gradient, average, and add normal noise: the step of DP-SGD.

    Abadi et al. 2016, algorithm 1: each of the N gradients is clipped to the norm C, noise of
    standard deviation σ·C is added to their sum, and the sum is divided by N.
    """

    name: ClassVar[str] = "dpsgd"
    per_example: ClassVar[bool] = True
    changes_scale: ClassVar[bool] = True
    norm: float  # C
    noise_multiplier: float  # σ

    def __post_init__(self) -> None:
        require_positive("norm", self.norm)
        if not 0 <= self.noise_multiplier < math.inf:
            raise ValueError(
                f"the noise multiplier must be finite and not negative, not {self.noise_multiplier}"
            )

    def __call__(self, gradients: Gradients, rng: np.random.Generator) -> dict[str, Array]:
        """Return the mean with noise, from gradients with a leading axis over N examples."""
        batch, clip = len(next(iter(gradients.values()))), Clip(self.norm)
        examples = [
            clip({k: g[index] for k, g in gradients.items()}, rng) for index in range(batch)
        ]
        mean = {name: np.mean([one[name] for one in examples], axis=0) for name in gradients}
        deviation = self.noise_multiplier * self.norm / batch
        return add(mean, lambda shape: rng.normal(0, deviation, shape))

    def variance(self, shared: Gradients, batch: int) -> dict[str, Array]:
        variance = (self.noise_multiplier * self.norm / batch) ** 2
        return {name: np.full(gradient.shape, variance) for name, gradient in shared.items()}

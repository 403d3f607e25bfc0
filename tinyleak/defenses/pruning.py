"""Pruning: small entries become zero, as in gradient compression (Lin et al. 2018)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyleak.backend import Array
from tinyleak.defenses.defense import Defense, Gradients


@dataclass(frozen=True)
class Prune(Defense):
    """Set the smallest fraction of each tensor, by magnitude, to zero."""

    name: ClassVar[str] = "prune"
    fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"the fraction must lie in [0, 1], not be {self.fraction}")

    def __call__(self, gradients: Gradients, rng: np.random.Generator) -> dict[str, Array]:
        return {name: _without_smallest(g, self.fraction) for name, g in gradients.items()}

    def variance(self, shared: Gradients, batch: int) -> dict[str, Array]:
        """Return infinity where the shared entry is zero: it may have been anything small."""
        return {name: np.where(g == 0, np.inf, 0.0) for name, g in shared.items()}


@dataclass(frozen=True)
class PruneGlobal(Prune):
    """Set the smallest fraction of all entries together, by magnitude, to zero."""

    name: ClassVar[str] = "prune-global"

    def __call__(self, gradients: Gradients, rng: np.random.Generator) -> dict[str, Array]:
        flat = np.concatenate([gradient.ravel() for gradient in gradients.values()])
        ends = np.cumsum([gradient.size for gradient in gradients.values()])[:-1]
        parts = np.split(_without_smallest(flat, self.fraction), ends)
        shaped = zip(gradients.items(), parts, strict=True)
        return {name: part.reshape(gradient.shape) for (name, gradient), part in shaped}


def _without_smallest(gradient: Array, fraction: float) -> Array:
    """Return a copy with the fraction of the smallest magnitudes, rounded down, set to zero."""
    kept = gradient.flatten()
    # Of 0.29 · 100 = 28.999… entries, 29 are meant.
    count = math.floor(fraction * kept.size + 1e-9)
    kept[np.argsort(np.abs(kept), kind="stable")[:count]] = 0
    return kept.reshape(gradient.shape)

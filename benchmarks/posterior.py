"""The attacker that the audit's forecast speaks of, as one that can be run.

He knows how strong the noise is, and of images how much their pixels vary around a mean; what he
looks for is the most probable batch.
"""

from __future__ import annotations

import numpy as np

from tinyleak.attack import Matching
from tinyleak.attack.residual import GradientResidual
from tinyleak.nn import MLP, LeNet, one_hot
from tinyleak.optim import levenberg_marquardt
from tinyleak.victim import Victim

STEPS = 20
"""Of Levenberg-Marquardt, at most."""

PLAUSIBLE = 100.0
"""An attack has not arrived if the value is so many times what noise makes it: it starts anew."""

ENOUGH = 1e-3
"""It ends with a step that lowers the value by less than this share."""


class Posterior:
    """What the forecast takes the attacker to know, as a residual: ((g(x) − g) / √v, (x − μ) / τ).

    Args:
        model: the network.
        victim: its gradient, and its labels, are known.
        variance: v, of the noise.
        prior: τ², of a pixel.
        mean: μ (C, H, W), of typical images.
    """

    def __init__(
        self,
        model: LeNet | MLP,
        victim: Victim,
        variance: float,
        prior: float,
        mean: np.ndarray,
    ) -> None:
        batch, weight = len(victim.labels), np.array(1.0 / variance)
        targets = one_hot(victim.labels, model.classes)
        matching = Matching(model, victim.params, victim.gradients, batch, weight)
        self._gradients = GradientResidual(matching, targets, np.empty(0, np.int64))
        self._shape = (batch, *mean.shape)
        self.mean = mean
        self._mean = np.broadcast_to(mean, self._shape).ravel()
        self._width = np.sqrt(prior)

    def value(self, x: np.ndarray) -> np.ndarray:
        """Return the residual, (P + n,)."""
        return np.concatenate([self._gradients.value(x), (x - self._mean) / self._width])

    def slope(self, x: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Return Jᵀr, (n,)."""
        weights = len(r) - len(x)
        return self._gradients.slope(x, r[:weights]) + r[weights:] / self._width

    def gram(self, x: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return JᵀJ for these columns, (k, k)."""
        return self._gradients.gram(x, columns) + np.eye(len(columns)) / self._width**2

    def explains(self, value: float) -> bool:
        """Say whether noise, and images that vary, make up for a value: else there is a better."""
        return value < PLAUSIBLE * (len(self._gradients.value(self._mean)) + len(self._mean))

    def most_probable(
        self, start: np.ndarray, steps: int = STEPS, **bounds: float
    ) -> tuple[float, np.ndarray]:
        """Return the least value that is found from images on, and the images, (N, C, H, W)."""
        x, before = np.array(start, dtype=float).ravel(), np.inf
        for fit in levenberg_marquardt(self, x, max_iterations=steps, **bounds):
            if fit.value > before * (1 - ENOUGH) and fit.iterations:
                break
            before = fit.value
        return fit.value, fit.x.reshape(self._shape)


def finished(
    posterior: Posterior, alone: np.ndarray, rng: np.random.Generator, anew: int
) -> np.ndarray:
    """Return the most probable images that are found without knowing the truth: (N, C, H, W).

    From where the attack alone ended, from the mean of typical images, and, as long as noise does
    not explain what is left, from grey noise, of which the steps keep to the range of a pixel.
    """
    mean = np.broadcast_to(posterior.mean, alone.shape)
    value, images = min(
        (posterior.most_probable(start) for start in (alone, mean)), key=lambda pair: pair[0]
    )
    for _ in range(anew):
        if posterior.explains(value):
            break
        grey = 0.5 + 0.1 * rng.standard_normal(alone.shape)
        _, inside = posterior.most_probable(grey, 3 * STEPS, lowest=0.0, highest=1.0)
        again = posterior.most_probable(inside)
        if again[0] < value:
            value, images = again
    return images

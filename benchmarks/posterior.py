"""The attacker that the audit's forecast speaks of, as one that can be run.

It knows the labels, how strong the noise is, and how much the pixels of images vary around a mean;
it looks for the most probable batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tinyleak.attacks import Matching, Settings, attack
from tinyleak.attacks.least_squares.residual import GradientResidual
from tinyleak.attacks.problem import length
from tinyleak.attacks.recursion import recursion
from tinyleak.client import Client, share
from tinyleak.data import Dataset
from tinyleak.defenses import Gaussian
from tinyleak.nn import one_hot
from tinyleak.optim import levenberg_marquardt

STEPS = 30
"""Of Levenberg-Marquardt, at most."""

PLAUSIBLE = 3.0
"""An attack has not arrived if the value is so many times what noise makes it: it starts anew."""

ENOUGH = 1e-3
"""It ends with a step that lowers the value by less than this share."""


CANDIDATES, NEAREST = 40, 2
"""Of how many typical batches the attack starts from those whose gradients are near."""


class Posterior:
    """What the forecast takes the attacker to know, as a residual: ((g(x) − g) / √v, (x − μ) / τ).

    Args:
        client: its network, weights and gradient.
        labels: (N,), of its images.
        variance: v, of the noise.
        prior: τ², of a pixel.
        mean: μ (C, H, W), of typical images.
    """

    def __init__(
        self, client: Client, labels: np.ndarray, variance: float, prior: float, mean: np.ndarray
    ) -> None:
        model, scale = client.model, np.array(1.0 / np.sqrt(variance))
        shared = {name: scale * gradient for name, gradient in client.gradients.items()}
        matching = Matching(model, client.params, shared, client.batch, scale)
        targets = one_hot(labels, model.classes)
        self._gradients = GradientResidual(matching, targets, np.empty(0, np.int64))
        self._shape = (client.batch, *mean.shape)
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

    def gram(self, x: np.ndarray) -> np.ndarray:
        """Return JᵀJ, (n, n)."""
        return self._gradients.gram(x) + np.eye(len(x)) / self._width**2

    def explains(self, value: float) -> bool:
        """Say whether noise, and images that vary, make up for a value: else there is a better."""
        return value < PLAUSIBLE * (len(self._gradients.value(self._mean)) + len(self._mean))

    def most_probable(
        self, start: np.ndarray, steps: int = STEPS, **bounds: float
    ) -> tuple[float, np.ndarray]:
        """Return the least value that is found from images on, and the images, (N, C, H, W)."""
        x, before = np.array(start, dtype=float).ravel(), np.inf
        how = {"damping": 1e-3, "radius": np.inf, **bounds}
        for fit in levenberg_marquardt(self, x, max_iterations=steps, **how):
            if fit.value > before * (1 - ENOUGH) and fit.iterations:
                break
            before = fit.value
        return fit.value, fit.x.reshape(self._shape)


def attacked(
    posterior: Posterior,
    starts: Sequence[np.ndarray],
    more: Iterable[np.ndarray],
) -> np.ndarray:
    """Return the most probable images that are found without knowing the truth: (N, C, H, W).

    Args:
        posterior: what is known.
        starts: from which all is tried.
        more: from which it starts anew, one by one, as long as noise does not explain what is left;
            from there the first steps keep to the range of a pixel.
    """
    value, images = min(
        (posterior.most_probable(start) for start in starts), key=lambda pair: pair[0]
    )
    for start in more if not posterior.explains(value) else ():
        _, inside = posterior.most_probable(start, lowest=0.0, highest=1.0)
        again = posterior.most_probable(inside)
        if again[0] < value:
            value, images = again
        if posterior.explains(value):
            break
    return images


def first(client: Client, labels: np.ndarray, variance: float) -> list[np.ndarray]:
    """Return what can be read off the gradient layer by layer, if anything."""
    try:
        return [recursion(client.last_layer, client.gradients, labels, variance=variance)]
    except (ValueError, np.linalg.LinAlgError):
        return []


def more(
    client: Client,
    labels: np.ndarray,
    known: Dataset,
    variance: float,
    rng: np.random.Generator,
    iterations: int,
    anew: int,
) -> Iterator[np.ndarray]:
    """Yield where else to start from: near typical images, what L-BFGS finds, grey noise.

    Args:
        client: the client.
        labels: (N,), of its images.
        known: typical images.
        variance: of the noise, or 0.
        rng: decides which typical images are looked at, and the grey noise.
        iterations: of L-BFGS.
        anew: how often from grey noise.
    """
    candidates = []
    for _ in range(CANDIDATES):
        chosen = [rng.choice(np.flatnonzero(known.labels == label)) for label in labels]
        near, _ = share(client.model, client.params, *known.batch(chosen))
        off = {name: near.gradients[name] - g for name, g in client.gradients.items()}
        candidates.append((length(off), known.images[chosen]))
    candidates.sort(key=lambda pair: pair[0])
    yield from (images for _, images in candidates[:NEAREST])
    defenses = [Gaussian(variance)] if variance else []
    found = attack(client, labels=labels, defenses=defenses, settings=Settings(iterations))
    yield found.images.clip(0, 1)
    for _ in range(anew):
        yield 0.5 + 0.1 * rng.standard_normal(found.images.shape)

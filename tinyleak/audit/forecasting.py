"""The audit: what to expect of a network's gradient, said without attacking it.

Lesson: lessons/15_pytorch.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.layer_gradient import LayerGradient, ends_linear
from tinyleak.attacks.least_squares import Jacobian
from tinyleak.audit.likeness import rescaled_jacobians
from tinyleak.audit.shared import Shared, length, read_shared
from tinyleak.audit.spectrum import Spectrum, forecasts, measure, noise_for
from tinyleak.audit.structure import Counting, Finding, Saturation, count, find, saturation
from tinyleak.backend import Array
from tinyleak.client.simulated import RECOVERED_MSE, Victim, share
from tinyleak.nn.losses import one_hot
from tinyleak.nn.model import Model, require_fit

VARIANCES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""The noise that is forecast for, if nothing else is asked for."""

HIDDEN = 0.9
"""An image is hidden where the error is more than this part of what is known without a gradient."""


@dataclass(frozen=True)
class Forecast:
    """What the best attacker is left with at one strength of noise.

    Attributes:
        variance: of the noise on every number of the gradient.
        mse: the expected squared error of a pixel, the mean over the typical batches.
        lowest: of the batches.
        highest: of the batches.
        seen: of 1, how many of the directions are not drowned.
        verdict: "recovered", "recognisable" or "hidden".
    """

    variance: float
    mse: float
    lowest: float
    highest: float
    seen: float
    verdict: str


@dataclass(frozen=True)
class Audit:
    """What there is to expect.

    Attributes:
        model: the network.
        counting: numbers shared beside numbers unknown.
        findings: what the structure says.
        saturations: how flat each activation is.
        images: the typical images (M, C, H, W) that were measured at.
        jacobians: at each typical batch.
        spectra: of each of them.
        prior: τ², the variance of a pixel that is not known.
        rounding: the mean square of what a client that computes in float32 gets wrong.
        variances: of the noise that is forecast for.
        shared: what the given gradient says, if one was given.
    """

    model: Model
    counting: Counting
    findings: list[Finding]
    saturations: list[Saturation]
    images: Array
    jacobians: list[Jacobian]
    spectra: list[Spectrum]
    prior: float
    rounding: float
    variances: tuple[float, ...]
    shared: Shared | None

    def at(self, variance: float) -> Forecast:
        """Return the forecast at noise of this variance.

        Raises:
            ValueError: a variance below 0.
        """
        errors = forecasts(self.spectra, np.array([variance]), self.prior)[:, 0]
        seen = [one.seen(variance, self.prior) / one.unknowns for one in self.spectra]
        mean = float(errors.mean())
        return Forecast(
            variance,
            mean,
            float(errors.min()),
            float(errors.max()),
            float(np.mean(seen)),
            verdict(mean, self.prior),
        )

    @property
    def ranks(self) -> list[int]:
        """How many directions each typical batch's gradient determines."""
        return [one.rank for one in self.spectra]

    @property
    def recovered_below(self) -> float:
        """The variance of the noise up to which images are recovered; 0 if they never are."""
        return noise_for(RECOVERED_MSE, self.spectra, self.prior)

    @property
    def hidden_above(self) -> float:
        """The variance of the noise from which images are hidden."""
        return noise_for(HIDDEN * self.prior, self.spectra, self.prior)


def audit(
    model: Model,
    params: Mapping[str, Array],
    images: Array,
    labels: Sequence[int] | Array,
    *,
    batch: int = 1,
    gradients: Mapping[str, Array] | None = None,
    examples: int = 5,
    prior: float | None = None,
    variances: Sequence[float] = VARIANCES,
) -> Audit:
    """Say what to expect of the gradient that a client of this network shares.

    The labels are taken as known, since a gradient tells them. The images are typical ones and
    none of the client's; the first `examples` batches of them are measured at. If a gradient is
    given, batches of its labels are, each image as though the network were as unsure of it as of
    the client's, which the gradient tells (see `tinyleak.audit.likeness`).

    Args:
        model: the network.
        params: its weights, by name.
        images: (M, C, H, W), M at least the batch, pixels in [0, 1].
        labels: (M,).
        batch: N, of how many images the client shares the mean gradient.
        gradients: a shared gradient, by name, to look at as well.
        examples: how many batches to measure at, at most.
        prior: τ², the variance of a pixel that is not known; by default that of the images.
        variances: of the noise to forecast for.

    Raises:
        ValueError: weights or gradients that do not fit the model, or are not finite; too few
            images, or such as do not fit the model, or are all alike; numbers out of range.
    """
    require_fit(model, params, "weights")
    if gradients is not None:
        require_fit(model, gradients, "gradients")
    if batch < 1 or examples < 1:
        raise ValueError(f"a batch of {batch} and {examples} examples were given; give 1 or more")
    if len(images) < batch:
        raise ValueError(
            f"{len(images)} typical images were given for a batch of {batch}; give at least as many"
        )
    prior = pixel_variance(images) if prior is None else prior
    if not 0 < prior < math.inf:
        raise ValueError(f"pixels of variance {prior} leave nothing to find; give more than 0")
    parts = [slice(start, start + batch) for start in range(0, len(images) - batch + 1, batch)]
    parts = parts[:examples]
    labels = np.asarray(labels)
    # Weights travel in float32, so that they are known as exactly to client and attacker.
    weights = {name: np.asarray(params[name], dtype=np.float32) for name in model.shapes}
    clients = [share(model, weights, images[part], labels[part]) for part in parts]
    norm = float(np.mean([length(one.gradients) for one in clients]))
    jacobians = [
        Jacobian(model, params, one.images, one_hot(one.labels, model.classes)) for one in clients
    ]
    shared = None
    if gradients is not None:
        linear = ends_linear(model)
        layer = LayerGradient.last(model, params, gradients, batch) if linear else None
        shared = read_shared(gradients, layer, norm, probes=images)
        if shared.labels is not None:
            jacobians = list(
                rescaled_jacobians(
                    model,
                    params,
                    images,
                    labels,
                    shared.labels,
                    shared.error_norms,
                    shared.signal,
                    examples,
                )
            )
    measured = images[: parts[-1].stop]
    return Audit(
        model,
        count(model, batch),
        find(model, batch),
        saturation(model, params, measured),
        measured,
        jacobians,
        [measure(jacobian) for jacobian in jacobians],
        prior,
        float(np.mean([_rounding(model, one) for one in clients])),
        tuple(variances),
        shared,
    )


def pixel_variance(images: Array) -> float:
    """Return what is not known of a pixel by knowing such images: its variance around their mean.

    Of a single image, the variance among its pixels.
    """
    if len(images) == 1:
        return float(images.var())
    return float(images.var(axis=0, ddof=1).mean())


def _rounding(model: Model, exact: Victim) -> float:
    """Return the mean square of what computing in float32 changes in a gradient.

    Far more than rounding the result would, where the softmax is nearly the label: the client
    computes the small difference of two numbers near one.
    """
    rounded = share(model, exact.params, exact.images, exact.labels, dtype="float32").gradients
    off = {name: rounded[name] - gradient for name, gradient in exact.gradients.items()}
    return length(off) ** 2 / sum(array.size for array in off.values())


def verdict(error: float, prior: float) -> str:
    """Return a word for a mean squared error."""
    if error < RECOVERED_MSE:
        return "recovered"
    return "recognisable" if error < HIDDEN * prior else "hidden"

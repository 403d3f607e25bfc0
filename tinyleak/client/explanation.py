"""Whether what an attack found explains the shared gradient: the only test without a truth.

The images and labels found make a gradient of their own. They are what the client had, or as good,
if that differs from the shared one by no more than what is wrong with the shared one itself: the
rounding of the numbers it was computed and saved in, and noise, of which the last layer tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from tinyleak.backend import Array
from tinyleak.client.local import LocalSteps
from tinyleak.client.loss import Loss
from tinyleak.client.outcome import Found, Outcome
from tinyleak.nn.model import Model, parameter_gradients
from tinyleak.tensor import Tensor

MARGIN, COARSE_MARGIN = 10.0, 1000.0
"""The client's additions may have been in another order, and so rounded otherwise; and an attack in
float32 stops where its own rounding, in every evaluation another, hides which way is down."""

NOISE_MARGIN = 2.0
"""Noise is estimated from one layer."""

LEAST = 1e-16
"""A distance so small needs no excuse."""

COARSE = 1e-6
"""Where float32's own rounding ends an attack: from 24 clients of one image it stalled at 1e-14 to
3e-7, always with the image (MSE 6e-5 at most). What tells two images of one label apart can be
smaller than that, so for a batch it proves nothing."""


class Shared(Protocol):
    """What of a client decides whether its gradient is explained; see `tinyleak.client.Client`."""

    @property
    def model(self) -> Model: ...
    @property
    def params(self) -> Mapping[str, Array]: ...
    @property
    def gradients(self) -> Mapping[str, Array]: ...
    @property
    def loss(self) -> Loss: ...
    @property
    def dtype(self) -> str: ...
    @property
    def local(self) -> LocalSteps | None: ...
    @property
    def rounding(self) -> Mapping[str, Array] | None: ...
    @property
    def noise(self) -> float | None: ...


@np.errstate(all="ignore")  # a lost attack's numbers may be anything
def explain(
    client: Shared, found: Found, precision: Mapping[str, Array] | None, dtype: str
) -> Outcome:
    """Compare the gradient that was found with the one that was shared.

    Args:
        client: whose it is.
        found: by the attack.
        precision: what each entry's squared difference was multiplied with, by name, or None.
        dtype: in which the attack computed.
    """
    shared = _row(client.gradients)
    exact = _row(_gradient(client, found, "float64"))
    weight = np.ones_like(shared) if precision is None else _row(precision)
    length = float(weight @ shared**2)
    factor = client.loss.factor
    if not client.loss.exact and exact.any():
        stretch = float(weight @ (exact * shared)) / float(weight @ exact**2)
        exact, factor = exact * stretch, factor * stretch
    coarse = dtype == "float32"
    rounding = _rounding(client, found, exact, weight, coarse=coarse) / length
    noise = (client.noise or 0.0) * float(weight.sum()) / length
    least = COARSE if coarse and len(found.images) == 1 else LEAST
    usual = max(least, (COARSE_MARGIN if coarse else MARGIN) * rounding)
    distance = float(weight @ (exact - shared) ** 2) / length
    tolerance = max(usual, NOISE_MARGIN * noise)
    noisy = NOISE_MARGIN * noise > MARGIN * usual
    if distance > tolerance or np.isnan(distance):
        verdict = "NO success, what was found does not explain the gradient"
    elif noisy:
        verdict = "success, as far as noise on the gradient lets tell (tinyleak audit says more)"
    else:
        verdict = "success, what was found explains the gradient"
    return Outcome(
        succeeded=distance <= tolerance,
        verdict=verdict,
        images=found.images,
        labels=found.labels,
        soft_labels=found.soft_labels,
        order=np.arange(len(found.images)),
        distance=distance,
        tolerance=tolerance,
        noisy=noisy,
        factor=factor,
    )


def _rounding(client: Shared, found: Found, exact: Array, weight: Array, *, coarse: bool) -> float:
    """Return how far rounding, the client's or a coarse attack's, takes the gradient found."""
    saved = 0.0 if client.rounding is None else float(weight @ _row(client.rounding))
    if client.dtype == "float64" and not coarse:
        return saved
    if client.dtype == "float16":
        return saved + float(weight @ (exact.astype(np.float16) - exact) ** 2)
    plain = _row(_gradient(client, found, "float64"))
    return saved + float(weight @ (_row(_gradient(client, found, "float32")) - plain) ** 2)


def _gradient(client: Shared, found: Found, dtype: str) -> dict[str, Array]:
    params = {name: Tensor(array.astype(dtype)) for name, array in client.params.items()}
    images, labels = (Tensor(array.astype(dtype)) for array in (found.images, found.soft_labels))

    def gradient(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return parameter_gradients(client.model, weights, images, labels)

    local = client.local
    gradients = gradient(params) if local is None else local.update(params, gradient)
    return {name: gradient.data for name, gradient in gradients.items()}


def _row(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([np.asarray(arrays[name], dtype=float).ravel() for name in arrays])

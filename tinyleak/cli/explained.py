"""Whether what an attack found explains the shared gradient: the only test where no truth is known.

The images and labels found make a gradient of their own. They are what the client had, or as good,
if that differs from the shared one by no more than what is wrong with the shared one itself: the
rounding of the numbers it was computed and saved in, and noise, of which the last layer tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.layer_gradient import LayerGradient, ends_linear
from tinyleak.attacks import Reconstruction
from tinyleak.backend import Array
from tinyleak.cli.client import Client
from tinyleak.nn.model import parameter_gradients
from tinyleak.tensor import Tensor

MARGIN, COARSE_MARGIN = 10.0, 1000.0
"""The client's additions may have been in another order, and so rounded otherwise; and an attack in
float32 stops where its own rounding, in every evaluation another, hides which way is down."""

NOISE_MARGIN = 2.0
"""Noise is estimated from one layer."""

LEAST = 1e-16
"""A distance so small needs no excuse."""


@dataclass(frozen=True)
class Explained:
    """How well images and labels explain a gradient.

    Attributes:
        distance: ‖found − shared‖² / ‖shared‖².
        tolerance: what it may be.
        noisy: whether that is because of noise, beyond any rounding.
        factor: what the shared gradient is of the gradient of the mean loss.
    """

    distance: float
    tolerance: float
    noisy: bool
    factor: float

    @property
    def succeeded(self) -> bool:
        """Whether the gradient is explained."""
        return self.distance <= self.tolerance


@np.errstate(all="ignore")  # a lost attack's numbers may be anything
def explain(
    client: Client,
    found: Reconstruction,
    precision: Mapping[str, Array] | None = None,
    dtype: str = "float64",
) -> Explained:
    """Compare the gradient that was found with the one that was shared.

    Args:
        client: whose it is.
        found: by the attack.
        precision: what each entry's squared difference was multiplied with, by name, or None.
        dtype: in which the attack computed.
    """
    shared = _row(client.shared)
    exact = _row(_gradient(client, found, "float64"))
    weight = np.ones_like(shared) if precision is None else _row(precision)
    length = float(weight @ shared**2)
    factor = client.loss.factor
    if not client.loss.exact and exact.any():
        stretch = float(weight @ (exact * shared)) / float(weight @ exact**2)
        exact, factor = exact * stretch, factor * stretch
    coarse = dtype == "float32"
    rounding = _rounding(client, found, exact, weight, coarse=coarse) / length
    noise = _noise(client) * float(weight.sum()) / length
    usual = max(LEAST, (COARSE_MARGIN if coarse else MARGIN) * rounding)
    return Explained(
        distance=float(weight @ (exact - shared) ** 2) / length,
        tolerance=max(usual, NOISE_MARGIN * noise),
        noisy=NOISE_MARGIN * noise > MARGIN * usual,
        factor=factor,
    )


def _noise(client: Client) -> float:
    """Return the variance of the noise on the gradient, as far as the last layer tells."""
    if not ends_linear(client.model):
        return 0.0
    layer = LayerGradient.last(client.model, client.params, client.shared, client.batch)
    return layer.noise or 0.0


def _rounding(
    client: Client, found: Reconstruction, exact: Array, weight: Array, *, coarse: bool
) -> float:
    """Return how far rounding, the client's or a coarse attack's, takes the gradient found."""
    saved = 0.0 if client.rounding is None else float(weight @ _row(client.rounding))
    if client.dtype == "float64" and not coarse:
        return saved
    if client.dtype == "float16":
        return saved + float(weight @ (exact.astype(np.float16) - exact) ** 2)
    plain = _row(_gradient(client, found, "float64"))
    return saved + float(weight @ (_row(_gradient(client, found, "float32")) - plain) ** 2)


def _gradient(client: Client, found: Reconstruction, dtype: str) -> dict[str, Array]:
    params = {name: Tensor(array.astype(dtype)) for name, array in client.params.items()}
    images, labels = (Tensor(array.astype(dtype)) for array in (found.images, found.soft_labels))

    def gradient(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return parameter_gradients(client.model, weights, images, labels)

    local = client.local
    gradients = gradient(params) if local is None else local.update(params, gradient)
    return {name: gradient.data for name, gradient in gradients.items()}


def _row(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([np.asarray(arrays[name], dtype=float).ravel() for name in arrays])

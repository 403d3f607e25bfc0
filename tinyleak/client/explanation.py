"""Whether what an attack found explains the shared gradient: the only test without a truth.

The images and labels found make a gradient of their own. They are what the client had, or as good,
if that differs from the shared one by no more than the error of the shared one itself: the rounding
of the numbers it was computed and saved in, and noise, which the last layer's gradient shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.client.local import shared_gradients
from tinyleak.client.outcome import Found, Outcome

MARGIN, COARSE_MARGIN = 10.0, 1000.0
"""How many times the rounding, as a squared distance, is allowed. The client's additions may have
been in another order, and so rounded otherwise; and an attack in float32 stops where its own
rounding, which differs between evaluations, hides which way is down."""

NOISE_MARGIN = 2.0
"""How many times the noise is allowed: it is estimated from one layer, and others have more."""

LEAST = 1e-16
"""A relative distance that always counts as none: gradients that agree to eight digits."""

COARSE = 1e-6
"""Where float32's own rounding ends an attack: from 24 clients of one image it stalled at 1e-14 to
3e-7, always with the image (MSE 6e-5 at most). What tells two images of one label apart can be
smaller than that, so for a batch it proves nothing."""


@np.errstate(all="ignore")  # a lost attack's numbers may be anything
def explain(
    client: Any, found: Found, precision: Mapping[str, Array] | None, dtype: str
) -> Outcome:
    """Compare the gradient that was found with the one that was shared.

    Args:
        client: whose it is, a `tinyleak.Client`.
        found: by the attack.
        precision: what each entry's squared difference was multiplied with, by name, or None.
        dtype: in which the attack computed.
    """
    shared = _row(client.gradients)
    exact = _gradient(client, found, "float64")
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


def _rounding(client: Any, found: Found, exact: Array, weight: Array, *, coarse: bool) -> float:
    """Return how far rounding, the client's or a coarse attack's, takes the gradient found."""
    saved = 0.0 if client.rounding is None else float(weight @ _row(client.rounding))
    if client.dtype == "float64" and not coarse:
        return saved
    if client.dtype == "float16":
        return saved + float(weight @ (exact.astype(np.float16) - exact) ** 2)
    plain = _gradient(client, found, "float64")
    return saved + float(weight @ (_gradient(client, found, "float32") - plain) ** 2)


def _gradient(client: Any, found: Found, dtype: str) -> Array:
    """Return what the client would have shared with what was found, computed in a dtype: (P,)."""
    params = {name: array.astype(dtype) for name, array in client.params.items()}
    images, labels = found.images.astype(dtype), found.soft_labels.astype(dtype)
    return _row(shared_gradients(client.model, params, images, labels, client.local))


def _row(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([np.asarray(arrays[name], dtype=float).ravel() for name in arrays])

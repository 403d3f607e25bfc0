"""Weight decay within a gradient: g = ∂L/∂θ + λθ, as PyTorch's SGD adds it.

The rows of the cross-entropy's gradient of the last layer add up to zero, so with decay they add up
to λ times the sum of the layer's weights: a direction that nothing else has. For other losses the
rank tells: a gradient of N images has the rank N, and the weights have every rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.shared import ALLOWED, Layer, Shared
from tinyleak.analytic.spectrum import SIGNIFICANT, read_decay, read_spectrum
from tinyleak.backend import Array

PARALLEL = 0.99
"""The cosine from which on one vector counts as the multiple of another that noise was added to,
where only that tells: two unrelated ones of 65 numbers or more reach it practically never."""


@dataclass(frozen=True, eq=False)
class Decay:
    """What is known of weight decay.

    Attributes:
        rate: λ; 0 where there is none.
        error: its standard error.
        biases: whether it includes the biases.
        zero_sum: whether the last layer's rows add up to zero without it, as cross-entropy's do.
        cause: the same for a person, or None.
    """

    rate: float
    biases: bool
    zero_sum: bool
    error: float = 0.0
    cause: Cause | None = None


def read_weight_decay(shared: Shared, layer: Layer) -> Decay:
    """Read λ off the last layer."""
    matrix, own, batch = layer.matrix, layer.own, shared.batch
    width = layer.gradient.shape[1]
    total, weights = matrix.sum(axis=0), own.sum(axis=0)
    allowed = shared.zero_sum_error(matrix, layer.deviations)
    if np.linalg.norm(total) <= allowed:
        return Decay(0.0, False, zero_sum=True)
    along = float(weights[:width] @ weights[:width])
    rate = float(total[:width] @ weights[:width]) / along if along else 0.0
    without = total - rate * weights
    cosine = rate * np.sqrt(along) / (float(np.linalg.norm(total[:width])) or 1.0)
    if np.linalg.norm(without[:width]) <= allowed:
        biases = width == matrix.shape[1] or abs(without[-1]) <= abs(total[-1])
        left = without[-1] if biases else total[-1]
        if abs(left) <= allowed:
            text = (
                f"the last layer's rows add up to {rate:.4g} times the sum of its weights "
                f"(cosine {cosine:.6f})"
            )
            error = allowed / ALLOWED / np.sqrt(along)
            return Decay(rate, biases, True, error, Cause("weight decay", text, sure=True))
    rounding = shared.rounding_of(matrix, layer.deviations)
    if read_spectrum(matrix, rounding, batch, zero_sum=False).clean:
        return Decay(0.0, False, zero_sum=False)
    if batch <= min(matrix.shape) - 3:
        return _by_rank(matrix, own, width, batch, rounding)
    if abs(cosine) > PARALLEL:
        text = f"the last layer's rows add up to {rate:.2g} times its weights (cosine {cosine:.4f})"
        return Decay(rate, True, False, 0.0, Cause("weight decay", text))
    return Decay(0.0, False, zero_sum=False)


def refined(shared: Shared, decay: Decay) -> Decay:
    """Return λ with a smaller error, from the largest layer whose rank shows it."""
    best = decay
    for layer in shared.layers:
        if not decay.rate or shared.batch > min(layer.matrix.shape) - 3:
            continue
        width = layer.gradient.shape[1]
        own = (
            layer.own
            if decay.biases
            else np.where(np.arange(layer.own.shape[1]) < width, layer.own, 0.0)
        )
        rate, error = read_decay(layer.matrix, own, shared.batch, decay.rate)
        near = abs(rate - decay.rate) <= ALLOWED * (decay.error + error)
        if near and error < best.error:
            best = replace(decay, rate=rate, error=error)
    return best


def _by_rank(matrix: Array, own: Array, width: int, batch: int, rounding: float) -> Decay:
    best: tuple[float, float, float, bool] | None = None
    for biases in (True, False) if width < matrix.shape[1] else (True,):
        decayed = own if biases else np.where(np.arange(own.shape[1]) < width, own, 0.0)
        rate, error = read_decay(matrix, decayed, batch)
        noise = read_spectrum(matrix - rate * decayed, rounding, batch, zero_sum=False).noise
        tail = np.inf if noise is None else noise
        if best is None or tail < 0.9 * best[0]:
            best = (tail, rate, error, biases)
    assert best is not None, "both are tried"
    _, rate, error, biases = best
    if abs(rate) < SIGNIFICANT * error:
        return Decay(0.0, False, zero_sum=False)
    text = (
        f"the last layer's gradient holds {rate:.3g} times its weights (standard error {error:.1g})"
    )
    return Decay(rate, biases, False, error, Cause("weight decay", text, sure=True))

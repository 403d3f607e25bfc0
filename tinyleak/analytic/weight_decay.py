"""Weight decay within a gradient: g = ∂L/∂θ + λθ, as PyTorch's SGD adds it.

The rows of the cross-entropy's gradient of the last layer add up to zero, so with decay they add up
to λ times the sum of the layer's weights: a direction that nothing else has. For other losses the
rank tells: a gradient of N images has the rank N, and the weights have every rank.
"""

from dataclasses import dataclass, replace

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.shared import ALLOWED, Layer, Shared
from tinyleak.analytic.spectrum import FEWEST, SIGNIFICANT, read_decay
from tinyleak.backend import Array

PARALLEL = 0.9
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
    if any(shared.spectrum(each.matrix, each.deviations).clean for each in shared.layers):
        return Decay(0.0, False, zero_sum=False)
    widest = max(shared.layers, key=lambda each: min(each.matrix.shape))
    if batch + FEWEST <= min(widest.matrix.shape):
        return _by_rank(shared, widest)
    if abs(cosine) > PARALLEL:
        text = f"the last layer's rows add up to {rate:.2g} times its weights (cosine {cosine:.4f})"
        return Decay(rate, True, False, 0.0, Cause("weight decay", text))
    return Decay(0.0, False, zero_sum=False)


def refined(shared: Shared, decay: Decay) -> Decay:
    """Return λ with a smaller error, from the layer whose rank shows it best."""
    best = decay
    for layer in shared.layers:
        if shared.batch + FEWEST > min(layer.matrix.shape):
            continue
        own = decayed(layer, decay.biases)
        rate, error = read_decay(layer.matrix, own, shared.batch, decay.rate)
        near = abs(rate - decay.rate) <= ALLOWED * (decay.error + error)
        if near and error < best.error:
            best = replace(decay, rate=rate, error=error)
    return best


def _by_rank(shared: Shared, layer: Layer) -> Decay:
    best, tail = Decay(0.0, True, zero_sum=False), np.inf
    for biases in (True, False) if layer.bias_gradient is not None else (True,):
        own = decayed(layer, biases)
        rate, error = read_decay(layer.matrix, own, shared.batch)
        noise = shared.spectrum(layer.matrix - rate * own, layer.deviations).noise
        if noise is not None and noise < 0.9 * tail:
            best, tail = Decay(rate, biases, zero_sum=False, error=error), noise
    if abs(best.rate) <= SIGNIFICANT * best.error:
        return Decay(0.0, False, zero_sum=False)
    text = (
        f"a layer's gradient holds {best.rate:.3g} times its weights (standard error "
        f"{best.error:.1g})"
    )
    return replace(best, cause=Cause("weight decay", text, sure=True))


def decayed(layer: Layer, biases: bool) -> Array:
    """Return what decay adds a multiple of: the weights, and the biases if it includes them."""
    width = layer.gradient.shape[1]
    return layer.own if biases else np.where(np.arange(layer.own.shape[1]) < width, layer.own, 0.0)

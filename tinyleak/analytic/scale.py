"""By which factor a client multiplied its loss: read off the last layer's gradient.

PyTorch's cross-entropy averages over the batch, or adds up (N times as much) if told so, and a
client may weight its loss besides. Then the last layer's weight has the gradient
c · mean((p − y) hᵀ) and its bias c · mean(p − y), with probabilities p, labels y and features h.

For one image that tells c exactly: the weight's gradient divided by the bias's is h, and h gives p
and c. For a batch a mean of p is enough, since a label that no image has gives c · mean(pₖ); before
much training that hardly depends on the images, so probes show it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.first_layer import first_layer_input
from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.nn.losses import softmax
from tinyleak.tensor import Tensor

CONSISTENT = 1e-3
"""How far the bias's gradient may be from c · (p − y) of one image, relative to its length.
Rounding to float32 changes it less, and a second image more."""

LEAST_ERROR = 1e-3
"""No estimate from probes is taken to be better than this share: the client's images differ."""

MOST_ERROR = 0.1
"""With a larger error an estimate does not tell a mean from a mean times a factor."""


@dataclass(frozen=True)
class LossScale:
    """What the shared gradient is of the gradient of the mean loss.

    Attributes:
        factor: c; 1 where the client averaged, N where it added up.
        exact: whether c is known, and not only about: for one image, and for a batch where a mean
            or a sum is all that it can have been.
        error: how far off the factor may be, as a share of it: about three standard deviations.
    """

    factor: float
    exact: bool
    error: float = 0.0


def infer_loss_scale(layer: LastLayerGradient) -> LossScale | None:
    """Return the factor on a client's loss, or None where the last layer does not tell.

    With more than two classes it may be negative: whoever shares the change of the weights shares
    the gradient times −lr.

    Args:
        layer: the last layer's gradient, of c times the mean cross-entropy over the batch.
    """
    by_bias = layer.bias_gradient
    if by_bias is None or layer.bias is None or len(by_bias) < 2 or not by_bias.any():
        return None
    if layer.batch > 1:
        return _of_a_batch(layer)
    logits = layer.weight @ first_layer_input(layer) + layer.bias
    residual = softmax(Tensor(logits[np.newaxis])).data[0]
    # |p − y| is largest at the label, since there it is what all others add up to. Of two classes
    # neither is larger, and c is taken to be positive.
    residual[np.argmax(np.abs(by_bias)) if len(by_bias) > 2 else np.argmin(by_bias)] -= 1.0
    factor = float(by_bias @ residual / (residual @ residual)) if residual.any() else math.nan
    error = np.linalg.norm(by_bias - factor * residual)
    if not error <= CONSISTENT * np.linalg.norm(by_bias):
        return None
    return LossScale(factor, exact=True)


def _of_a_batch(layer: LastLayerGradient) -> LossScale | None:
    """Compare the absent labels' gradient with how probable the probes say that they are."""
    assert layer.bias_gradient is not None
    absent = layer.bias_gradient > 0
    probable = softmax(Tensor(layer.probe_logits)).data[:, absent].sum(axis=1)
    mean = float(probable.mean())
    if not absent.any() or mean <= 0.0:
        return None
    total = float(layer.bias_gradient[absent].sum())
    noise = math.sqrt((layer.noise or 0.0) * np.count_nonzero(absent)) / total
    error = LEAST_ERROR + 3 * (float(probable.std()) / mean / math.sqrt(layer.batch) + noise)
    factor = total / mean
    if error <= MOST_ERROR:
        for usual in (1.0, float(layer.batch)):
            if abs(factor / usual - 1.0) <= error:
                return LossScale(usual, exact=True, error=error)
    return LossScale(factor, exact=False, error=error)

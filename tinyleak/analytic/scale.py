"""By which factor a client multiplied its loss: read off the last layer's gradient.

PyTorch's cross-entropy averages over the batch, or adds up (N times as much) if told so, and a
client may weigh its loss besides. Then it shares c · mean((p − y) hᵀ) by the last layer's weight
and c · mean(p − y) by its bias, where p are the probabilities, y the labels and h the features.

For one image that tells c exactly: the rows of the one are multiples of h, and the other says
which, so h is known, and with it p and c. For a batch only a mean of p is needed, since a label
that no image has gives c · mean(pₖ); before much training that hardly depends on the images, and
stand-ins show it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.labels import last_layer, logits_of, stand_ins
from tinyleak.backend import Array, to_numpy
from tinyleak.nn.losses import softmax
from tinyleak.nn.model import Model, require_fit
from tinyleak.tensor import Tensor

CONSISTENT = 1e-3
"""How far, of its length, the bias's gradient may be from c · (p − y) of one image."""

LEAST_ERROR = 1e-3
"""No estimate from stand-ins is taken to be better than this share."""

MOST_ERROR = 0.1
"""With more the estimate does not tell a mean from a mean times something."""


@dataclass(frozen=True)
class LossScale:
    """What the shared gradient is of the gradient of the mean loss.

    Attributes:
        factor: c; 1 where the client averaged, N where it added up.
        exact: whether c is known, and not only about: for one image, and for a batch where a mean
            or a sum is all that it can have been.
    """

    factor: float
    exact: bool


def infer_loss_scale(
    model: Model, params: Mapping[str, Array], shared: Mapping[str, Array], batch: int = 1
) -> LossScale | None:
    """Return the factor on a client's loss, or None where the last layer does not tell.

    With more than two classes it may be negative: whoever shares the change of the weights shares
    the gradient times −lr.

    Args:
        model: the network; its last layer is linear, (K, F), with a bias.
        params: its weights, by name.
        shared: the gradient of c times the mean cross-entropy over the batch, by name.
        batch: N, how many images it was computed from.

    Raises:
        ValueError: params or shared do not fit the model; its last layer is not linear.
    """
    require_fit(model, params, "weights")
    require_fit(model, shared, "gradients")
    weight, bias = last_layer(model)
    if bias is None or model.classes < 2:
        return None
    by_bias = to_numpy(shared[bias]).astype(float)
    if not by_bias.any():
        return None
    if batch > 1:
        logits = logits_of(model, params, stand_ins(model))
        return _of_a_batch(by_bias, softmax(Tensor(logits)).data, batch)
    features = by_bias @ to_numpy(shared[weight]).astype(float) / (by_bias @ by_bias)
    logits = to_numpy(params[weight]) @ features + to_numpy(params[bias])
    residual = softmax(Tensor(logits[np.newaxis])).data[0]
    # |p − y| is largest at the label, since there it is what all others add up to. Of two classes
    # neither is larger, and c is taken to be positive.
    residual[np.argmax(np.abs(by_bias)) if model.classes > 2 else np.argmin(by_bias)] -= 1.0
    factor = float(by_bias @ residual / (residual @ residual)) if residual.any() else math.nan
    error = np.linalg.norm(by_bias - factor * residual)
    if not error <= CONSISTENT * np.linalg.norm(by_bias):
        return None
    return LossScale(factor, exact=True)


def _of_a_batch(by_bias: Array, predictions: Array, batch: int) -> LossScale | None:
    """Compare the absent labels' gradient with how probable they are to stand-ins, (M, K)."""
    absent = by_bias > 0
    probable = predictions[:, absent].sum(axis=1)
    mean = float(probable.mean())
    if not absent.any() or mean <= 0.0:
        return None
    factor = float(by_bias[absent].sum()) / mean
    error = LEAST_ERROR + 3 * float(probable.std()) / mean / math.sqrt(batch)
    if error <= MOST_ERROR:
        for usual in (1.0, float(batch)):
            if abs(factor / usual - 1.0) <= error:
                return LossScale(usual, exact=True)
    return LossScale(factor, exact=False)

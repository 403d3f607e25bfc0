"""The activation of a network, inferred from the features that its last layer's gradient shows.

The last layer's gradient is mean((pₖ − yₖ) hᵀ) with respect to the weights of label k, and
mean(pₖ − yₖ) with respect to its bias. For a label that no image of the batch has, y is 0, so their
quotient is a mean of the features h, weighted by probabilities: it lies where features can. For one
image every label shows h itself.
"""

from __future__ import annotations

import math

import numpy as np

from tinyleak.analytic.layer_gradient import LastLayerGradient

MOST_NOISE = 1e-3
"""The largest noise with which anything is inferred, as its root mean square relative to that of
the gradient; and how far noise may take features out of their range. Rounding to float32 or float16
is below it."""


def infer_activation(layer: LastLayerGradient) -> str | None:
    """Return "tanh", "relu" or "softplus" where only that makes such features, else None.

    Only tanh has negative features. Features above 1 are softplus's or relu's, and only relu's are
    in part exactly 0. Features within [0, 1] may be any activation's, so the answer is None.

    Args:
        layer: the last layer's gradient, of any multiple of the loss. The activation of its model
            is not looked at.
    """
    by_weight, by_bias = layer.weight_gradient, layer.bias_gradient
    if by_bias is None or not by_bias.any() or layer.noise is None:
        return None
    if math.sqrt(layer.noise * by_weight.size) > MOST_NOISE * np.linalg.norm(by_weight):
        return None
    # Most labels are absent, and their signs agree; a factor on the loss may turn all of them.
    label = int(np.argmax(by_bias * (np.sign(np.median(by_bias)) or 1.0)))
    features = by_weight[label] / by_bias[label]
    if features.min() < -MOST_NOISE:
        return "tanh"
    if features.max() > 1.0 + MOST_NOISE:
        return "relu" if (features == 0.0).any() else "softplus"
    return None

"""The activation of a network, told from the features that its last layer's gradient shows.

The last layer's gradient is mean((pₖ − yₖ) hᵀ) by the weights of label k and mean(pₖ − yₖ) by its
bias. For a label that no image of the batch has, y is 0, so their quotient is a mean of the
features h, weighted by probabilities: it lies where features can. For one image every label shows
h itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinyleak.analytic.labels import last_layer
from tinyleak.backend import Array, to_numpy
from tinyleak.nn.model import Model, require_fit

EXACT = 1e-3
"""How far the labels' rows may be from adding up to zero; and how far a feature from its range."""


def infer_activation(model: Model, shared: Mapping[str, Array]) -> str | None:
    """Return "tanh", "relu" or "softplus" where only that makes such features, else None.

    Features of tanh alone can be negative. Above 1 are those of softplus, or of relu, of which some
    are exactly 0. Within [0, 1] nothing can be told: sigmoid's are, but others' may be.

    Args:
        model: the network; its last layer is linear, with a bias. Its activation does not matter.
        shared: the gradient of any multiple of the loss, by name.

    Raises:
        ValueError: shared does not fit the model; its last layer is not linear.
    """
    require_fit(model, shared, "gradients")
    weight, bias = last_layer(model)
    if bias is None:
        return None
    by_weight = to_numpy(shared[weight]).astype(float)
    by_bias = to_numpy(shared[bias]).astype(float)
    # Logits that rise together change no probability. Noise does not know that.
    remainder = np.linalg.norm(by_weight.sum(axis=0))
    if not by_bias.any() or remainder > EXACT * np.linalg.norm(by_weight):
        return None
    # Most labels are absent, and their signs agree; a factor on the loss may turn all of them.
    label = int(np.argmax(by_bias * (np.sign(np.median(by_bias)) or 1.0)))
    features = by_weight[label] / by_bias[label]
    if features.min() < -EXACT:
        return "tanh"
    if features.max() > 1.0 + EXACT:
        return "relu" if (features == 0.0).any() else "softplus"
    return None

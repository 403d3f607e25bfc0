"""Batch norm in training mode, told by what it does to the gradient of the layer before it."""

from itertools import pairwise

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.shared import Shared

ORTHOGONAL = 1e-2
"""The largest cosine that counts as none. What is added to the variance, 10⁻⁵ in PyTorch, leaves
about as much over the variance."""


def batch_norm_in_training(shared: Shared) -> Cause | None:
    """Return the cause if statistics of the batch itself normalised what a convolution gave.

    Then multiplying a channel's weights changes nothing, so that its gradient is orthogonal to
    them. With running statistics, as in evaluation, it is not.
    """
    names = list(shared.model.shapes)
    cosines: list[float] = []
    for weight, scale in pairwise(names):
        normed = shared.params[scale].ndim == 1 and scale.endswith("weight")
        if shared.params[weight].ndim < 2 or not normed or weight not in shared.gradients:
            continue
        own, gradient = (
            part[weight].reshape(len(part[weight]), -1)
            for part in (shared.params, shared.gradients)
        )
        length = np.linalg.norm(own, axis=1) * np.linalg.norm(gradient, axis=1)
        inner = np.abs(np.sum(own * gradient, axis=1))
        cosines += list(inner[length > 0] / length[length > 0])
    if not cosines or float(np.max(cosines)) > ORTHOGONAL:
        return None
    text = (
        f"the gradient of every channel before a batch norm is orthogonal to its weights (cosine "
        f"{float(np.max(cosines)):.1g}), as statistics of the batch itself make it"
    )
    return Cause("batch norm", text, sure=True)

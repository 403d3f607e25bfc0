"""How far apart records may be that a gradient shows as copies of one.

Records h + d and h − d of one label add δ(h) hᵀ 2 / N to the gradient, and ∂δ/∂h[d] dᵀ 2 / N, which
noise hides where they are alike, or where the δ of other records span ∂δ/∂h[d]: then their mean has
the certificate of a record that is in the batch twice. So copies are claimed only where noise hides
no more than a pixel's exactness.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyleak.analytic.layer_gradient import EDGE, LayerGradient
from tinyleak.backend import Array

TWINS = 4e-3
"""How far from their mean noise may hide records that are claimed as copies of it, as a share of
its length: of pixels that is an error of about 1e-6, and twins 1 % apart are 5e-3 from it."""


def are_copies(
    layer: LayerGradient, inputs: Array, copies: Array, deltas: Callable[[Array], Array]
) -> Array:
    """Tell which inputs are no mean of others that noise hides: (M,) booleans.

    Args:
        layer: the gradient.
        inputs: (M, F).
        copies: (M,), how often each is in the batch as far as its certificate says.
        deltas: δ of M inputs, (M, O).
    """
    if not (copies > 1.0).any() or layer.records is None:
        return np.full(len(inputs), True)
    lengths = np.linalg.norm(inputs, axis=1)
    aside = np.random.default_rng(0).standard_normal(inputs.shape)
    aside *= (TWINS * lengths / np.linalg.norm(aside, axis=1))[:, None]
    change, U = deltas(inputs + aside) - deltas(inputs), layer.decomposition[0][:, : layer.rank]
    change = np.linalg.norm(change - change @ U @ U.T, axis=1)
    deviation = np.sqrt(layer.variance)
    # What records that are TWINS from their mean add to the rank, unless noise hides it.
    added = copies / layer.records * change * TWINS * lengths
    return (copies <= 1.0) | (added > EDGE * deviation * np.sqrt(layer.matrix.shape).sum())

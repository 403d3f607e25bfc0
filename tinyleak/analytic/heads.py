"""What the last layers of a network with several heads show of one image.

Each head's layer has a bias, whose gradient is δ = ∂L/∂z of that head, whatever its loss is: so a
squared error over all that they return has the same gradient, with targets that may be any numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tinyleak.analytic.loss_kind import is_usual
from tinyleak.analytic.one_image import OneImage, fits_of, look_at_one_image
from tinyleak.analytic.shared import Shared
from tinyleak.backend import Array
from tinyleak.nn.model import Model


def heads_of_one(
    model: Model,
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    layers: Sequence[tuple[str, str]],
    dtype: str,
) -> tuple[OneImage, bool] | None:
    """Return what the heads' last layers show of one image, as one layer.

    Args:
        model: a network that returns what its heads' last layers do, one after another.
        params: its weights, by name.
        gradients: of one image, by name; parameters may be missing.
        layers: the names of each head's weight and bias.
        dtype: the coarsest in which the gradient was written.

    Returns:
        That, and whether every head's is the gradient of the cross-entropy with one label; None if
        a layer does not tell.
    """
    shared = Shared.of(model, params, gradients, 1, dtype, None)
    found = []
    for weight, bias in layers:
        layer = shared.layer(weight, bias)
        if layer is None or bias not in gradients or not gradients[bias].any():
            return None
        found.append(look_at_one_image(layer, 0.0, shared.computed))
    usual = all(
        any(
            fit.loss == "cross-entropy" and fit.kind == "hard" and fit.holds and is_usual(fit)
            for fit in fits_of(image)
        )
        for image in found
    )
    logits, delta = (np.concatenate([getattr(i, n) for i in found]) for n in ("logits", "delta"))
    return replace(found[0], logits=logits, delta=delta), usual

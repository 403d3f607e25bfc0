"""What the last layers of a network with several heads show of one image.

Each head's layer has a bias, whose gradient is δ = ∂L/∂z of that head, whatever its loss is: so a
squared error over all that they return has the same gradient, with targets that may be any numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tinyleak.analytic.loss_kind import LossReading, any_loss, is_usual
from tinyleak.analytic.one_image import fits_of, look_at_one_image
from tinyleak.analytic.shared import Shared
from tinyleak.backend import Array
from tinyleak.nn.model import Model


def reading_of_heads(
    model: Model,
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    layers: Sequence[tuple[str, str]],
    dtype: str,
) -> tuple[LossReading | None, bool]:
    """Return the squared error, with its targets, that has the gradient of one image.

    Args:
        model: a network that returns what its heads' last layers do, one after another.
        params: its weights, by name.
        gradients: of one image, by name; parameters may be missing.
        layers: the names of each head's weight and bias.
        dtype: the coarsest in which the gradient was written.

    Returns:
        That error, or None if a layer does not tell; and whether every head's is the
        gradient of the cross-entropy with one label.
    """
    shared = Shared.of(model, params, gradients, 1, dtype, None)
    found = []
    for weight, bias in layers:
        if bias not in gradients or not gradients[bias].any():
            return None, False
        layer = shared.layer(weight, bias)
        if layer is None:
            return None, False
        found.append(look_at_one_image(layer, 0.0, shared.computed))
    usual = all(
        any(
            fit.loss == "cross-entropy" and fit.kind == "hard" and fit.holds and is_usual(fit)
            for fit in fits_of(image)
        )
        for image in found
    )
    logits, delta = (np.concatenate([getattr(i, n) for i in found]) for n in ("logits", "delta"))
    return any_loss(replace(found[0], logits=logits, delta=delta)), usual

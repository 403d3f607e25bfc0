"""By which optimiser, and in how many steps, weights changed, as the change itself shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.one_image import fits_of, look_at_one_image
from tinyleak.analytic.shared import Layer, Shared
from tinyleak.analytic.weight_decay import Decay
from tinyleak.backend import Array

ALIKE = 0.1
"""Entries within this share of their median are of one size: of a gradient's own entries, whatever
their distribution, about a tenth are."""

MOST = 0.5
"""That many of one size are no gradient."""

EXPLAINED = 0.5
"""A decay has to leave less than this of how entries differ from one size."""

GROWTH = 1.15
"""Steps of plain SGD on one image make its gradient shorter, so their mean is no larger than the
first; momentum of 0.9 makes two steps 1.45 times as large."""


def adaptive_step(
    params: Mapping[str, Array], moved: Mapping[str, Array], *, update: bool
) -> Cause | None:
    """Return the cause if the optimiser divides by the sizes of entries.

    Adam's first step is the rate times g / (|g| + ε): all entries are of one size (Kingma and Ba
    2015, algorithm 1). So are those of RMSprop and of signSGD. AdamW adds λθ to that (Loshchilov
    and Hutter 2019, algorithm 2).

    Args:
        params: the weights before, by name.
        moved: (weights before − weights after) / rate, or what was shared as a gradient, by name.
        update: which of the two.
    """
    row = np.concatenate([array.ravel() for array in moved.values()])
    weights = np.concatenate([params[name].ravel() for name in moved])
    top = np.quantile(np.abs(row[row != 0]), 0.99)
    size = np.median(np.abs(row[np.abs(row) > 0.5 * top]))
    signs, near = np.sign(row) * size, np.abs(np.abs(row) - size) < ALIKE * size
    square = float(weights[near] @ weights[near])
    decay = float(weights[near] @ (row - signs)[near]) / square if square else 0.0
    before, after = (row - signs)[near], (row - signs - decay * weights)[near]
    # A decay is one only if it explains most of how the sizes differ.
    decay *= float(after @ after) < EXPLAINED * float(before @ before)
    # What does not move has no gradient, such as the weights of a black pixel.
    without = np.abs(row - decay * weights)
    without = without[without > 0.05 * top]
    size = float(np.median(without))
    alike = float((np.abs(without - size) < ALIKE * size).mean())
    if alike < MOST:
        return None
    if not update:
        text = f"{alike:.0%} of the entries are of one size, so that little but their signs is left"
        return Cause("rounding", text, sure=True)
    name = "decoupled decay" if decay else "adam"
    text = f"{alike:.0%} of the entries are of one size, {size:.3g} times the learning rate"
    if decay:
        text += f", once {decay:.3g} times the weights are taken off, as AdamW leaves them"
    else:
        text += ", as after a step of Adam, RMSprop or signSGD, which hides their own"
    return Cause(name, text, sure=True)


def several_steps(shared: Shared, last: Layer, decay: Decay, steps: float) -> list[Cause]:
    """Return what the mean over several steps still tells."""
    causes = []
    if not decay.zero_sum and not decay.rate:
        text = "the last layer's rows do not add up to zero, as those of cross-entropy's steps do"
        causes.append(Cause("loss", text, "--loss bce"))
    if shared.batch == 1 and last.bias_gradient is not None and last.bias_gradient.any():
        image = look_at_one_image(last, 0.0, shared.computed)
        factor = min(fits_of(image), key=lambda fit: (fit.kind != "hard", fit.misfit)).factor
        if factor > GROWTH:
            text = f"the change is {factor:.2f} times what {steps:g} steps of plain SGD make of it"
            causes.append(Cause("momentum", text, "--momentum 0.9"))
    return causes

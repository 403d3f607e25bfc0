"""By which optimiser a client's weights changed, as the change itself shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.backend import Array

ALIKE = 0.1
"""Entries within this share of their median are of one size: of a gradient's own entries, whatever
their distribution, about a tenth are."""

MOST = 0.5
"""That many of one size are no gradient."""

EXPLAINED = 0.25
"""A decay has to leave less than this of the variance that it explains."""


def adaptive_step(params: Mapping[str, Array], update: Mapping[str, Array]) -> Cause | None:
    """Return the cause if the optimiser divides by the sizes of entries.

    Adam's first step is the rate times g / (|g| + ε): all entries are of one size (Kingma and Ba
    2015, algorithm 1). So are those of RMSprop and of signSGD. AdamW adds λθ to that (Loshchilov
    and Hutter 2019, algorithm 2).

    Args:
        params: the weights before, by name.
        update: (weights before − weights after) / rate, by name.
    """
    moved = np.concatenate([array.ravel() for array in update.values()])
    weights = np.concatenate([params[name].ravel() for name in update])
    top = np.quantile(np.abs(moved), 0.99)
    near = np.abs(moved) > 0.5 * top
    signs = np.sign(moved) * np.median(np.abs(moved[near]))
    square = float(weights[near] @ weights[near])
    decay = float(weights[near] @ (moved - signs)[near]) / square if square else 0.0
    before, after = (moved - signs)[near], (moved - signs - decay * weights)[near]
    # A decay is one only if it explains most of how the sizes differ.
    decay *= float(after @ after) < EXPLAINED * float(before @ before)
    # What does not move has no gradient, such as the weights of a black pixel.
    without = np.abs(moved - decay * weights)
    without = without[without > 0.05 * top]
    size = float(np.median(without))
    alike = float((np.abs(without - size) < ALIKE * size).mean())
    if alike < MOST:
        return None
    name = "decoupled decay" if decay else "adam"
    text = f"{alike:.0%} of the entries are of one size, {size:.3g} times the learning rate"
    if decay:
        text += f", once {decay:.3g} times the weights are taken off, as AdamW leaves them"
    else:
        text += ", as after a step of Adam, RMSprop or signSGD, which hides their own"
    return Cause(name, text, sure=True)

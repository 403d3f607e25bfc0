"""By which optimiser, and in how many steps, weights changed, as the change itself shows."""

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

MOST = 0.5  # that many of one size are no gradient
EXPLAINED = 0.5  # a decay has to leave less than this of how entries differ from one size

SPREAD = 4.0
"""Tensors whose typical entries are within such a factor of each other were divided by their sizes:
those of a gradient differ by more, from layer to layer, in all of 16 clients of SGD."""

MOVED = 0.3
"""And they are at least so many times the rate: each step of Adam or RMSprop is about the rate."""

GROWTH = 1.15
"""Steps of plain SGD on one image make its gradient shorter, so their mean is no larger than the
first; momentum of 0.9 makes two steps 1.45 times as large."""

CLOSER = 0.1
"""A soft label that leaves so little of what a hard one leaves unexplained is a likely cause."""


def adaptive_step(
    params: Mapping[str, Array], moved: Mapping[str, Array], *, update: bool
) -> Cause | None:
    """Return the cause if the optimiser divides by the sizes of entries, in a single step.

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
    tensors = [np.median(np.abs(array[array != 0])) for array in moved.values() if array.any()]
    everywhere = float((np.abs(np.array(tensors) - size) < ALIKE * size).mean())
    # What pruning left of one row may be of one size, and that of other layers is not.
    if alike < MOST or (not decay and everywhere < MOST):
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


def adaptive_steps(moved: Mapping[str, Array]) -> Cause | None:
    """Return the cause if every layer's weights moved alike, as in some steps of such an optimiser.

    Args:
        moved: (weights before − weights after) / rate, by name.
    """
    sizes = [np.median(np.abs(a[a != 0])) for a in moved.values() if a.ndim > 1 and a.any()]
    if len(sizes) < 2 or min(sizes) < MOVED or max(sizes) > SPREAD * min(sizes):
        return None
    text = (
        f"the typical entry of every layer moved alike, {min(sizes):.2g} to {max(sizes):.2g} times "
        "the learning rate, as in steps of Adam or RMSprop"
    )
    return Cause("adam", text)


def several_steps(
    shared: Shared, last: Layer, decay: Decay, steps: float, said: str | None
) -> list[Cause]:
    """Return what the mean over several steps of a loss, or of the usual one, still tells."""
    causes: list[Cause] = []
    if said not in (None, "cross-entropy"):
        return causes
    if not decay.zero_sum and not decay.rate:
        text = "the last layer's rows do not add up to zero, as those of cross-entropy's steps do"
        causes.append(Cause("loss", text, "--loss bce"))
    if shared.batch == 1 and last.bias_gradient is not None and last.bias_gradient.any():
        fits = [
            fit
            for fit in fits_of(look_at_one_image(last, 0.0, shared.computed))
            if fit.loss == "cross-entropy"
        ]
        hard = next(fit for fit in fits if fit.kind == "hard")
        if hard.factor > GROWTH:
            text = f"the change is {hard.factor:.2f} times what {steps:g} steps of plain SGD make"
            causes.append(Cause("momentum", text, "--momentum 0.9"))
        for fit in fits:
            if fit.kind in ("smoothed", "mixed") and fit.misfit < CLOSER * hard.misfit:
                top = np.sort(fit.targets)[::-1]
                text = f"soft labels explain it better, such as {top[0]:.2g}, {top[1]:.2g}, …"
                causes.append(Cause("soft labels", text))
                break
    return causes

"""The loss of one image, where what a client shared is of a sum: of several steps, or heads.

The last layer shows the sum of the steps' δ. With features h that hardly change, z moves by
−η (h·h + 1) δ a step: so a loss and a label say what that sum is, about, and one suits it or none.

Each head's layer has a bias, whose gradient is δ = ∂L/∂z of that head, whatever its loss is: so a
squared error over all that they return has the same gradient, with targets that may be any numbers.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from tinyleak.analytic.loss_kind import is_usual
from tinyleak.analytic.one_image import OneImage, fits_of, look_at_one_image
from tinyleak.analytic.residuals import delta_of
from tinyleak.analytic.shared import Shared
from tinyleak.backend import Array

NEAR, ANYWHERE = 0.1, 1.0
"""How far, as a share of its length, the sum of δ may be from what a loss makes of it, in general
and where its entries add up to zero. Of 240 clients with a label, 2 to 5 steps and momentum of 0 or
0.9, all were read so."""

BALANCED = 0.01
"""Entries of δ whose sum is below this share of their sizes' add up to zero, but for noise."""


@np.errstate(over="ignore", invalid="ignore")  # steps by another loss may run away
def loss_of_steps(
    shared: Shared, losses: Collection[str], *, count: int, rate: float, momentum: float
) -> str | None:
    """Return the loss that suits what several steps on one image changed.

    Args:
        shared: that, over the learning rate, of a network that returns what its last layer does.
        losses: the names, in `RESIDUALS` and `OTHERS`, of those to choose from, besides "mse".
        count: how many steps.
        rate: η.
        momentum: m.

    Returns:
        One of them, or "mse" if only free targets are left; None if the last layer does not tell.
    """
    last = shared.last
    if last is None or last.bias is None or last.bias_gradient is None:
        return None
    if not last.bias_gradient.any():
        return None
    image = look_at_one_image(last, 0.0, shared.computed)
    found, total = image.delta, float(np.linalg.norm(image.delta))
    rate *= float(image.features @ image.features) + 1.0
    balanced = len(found) > 1 and abs(found.sum()) < BALANCED * np.abs(found).sum()
    misfits = {"mse": ANYWHERE if balanced else NEAR}
    for loss, targets in _candidates(losses, found):
        z, velocity, made = image.logits, np.zeros_like(found), np.zeros_like(found)
        for _ in range(count):
            velocity = momentum * velocity + delta_of(loss, z, targets)
            made, z = made + velocity, z - rate * velocity
        misfit = float(np.nan_to_num(np.linalg.norm(made - found) / total, nan=np.inf))
        misfits[loss] = min(misfit, misfits.get(loss, np.inf))
    return min(misfits, key=misfits.__getitem__)


def _candidates(losses: Collection[str], delta: Array) -> Iterator[tuple[str, Array]]:
    """Yield each loss with all targets that there may be, by what δ adds up to."""
    labels = np.eye(len(delta) if len(delta) > 1 else 0)
    for loss in losses:
        for targets in [np.asarray(delta < 0, float)] if loss == "bce" else labels:
            yield loss, targets


def heads_of_one(shared: Shared, layers: Sequence[tuple[str, str]]) -> tuple[OneImage, bool] | None:
    """Return what the heads' last layers show of one image, as one layer.

    Args:
        shared: the gradient of a network that returns what these do, one after another.
        layers: the names of each head's weight and bias.

    Returns:
        That, and whether every head's is the gradient of the cross-entropy with one label; None if
        a layer does not tell.
    """
    found = []
    for weight, bias in layers:
        layer = shared.layer(weight, bias)
        if layer is None or bias not in shared.gradients or not shared.gradients[bias].any():
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

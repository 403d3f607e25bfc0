"""Tests of an activation against what a gradient shows of features.

For one image the last layer shows the features h and ∂L/∂h = Wᵀ δ exactly. The layer below has the
bias gradient Σ ∂L/∂h · act′, over the positions of a channel, and act′ follows from h (see
`slopes`): an activation for which that comes out, in every channel, is the client's. Between two
fully connected layers the input of both is known, and with it act(W x + b) itself.

For a batch only means of features are seen, which lie where features can.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.one_image import OneImage
from tinyleak.analytic.shared import ALLOWED
from tinyleak.analytic.slopes import INTERPOLATION, range_of, slopes_at
from tinyleak.analytic.without_bias import Direction
from tinyleak.backend import Array
from tinyleak.nn import ACTIVATIONS
from tinyleak.tensor import Tensor

DROPPED = tuple(0.05 * step for step in range(1, 19))
"""The shares of features that dropout is looked for with: every twentieth up to 0.9."""

PRECISE = 0.01
"""An error below this share of what is compared leaves no room for another activation: their slopes
differ by more wherever inputs are of order 1."""


@dataclass(frozen=True)
class ActivationFit:
    """How well an activation explains what a gradient shows."""

    name: str  # in `tinyleak.nn.ACTIVATIONS`
    misfit: float  # the largest deviation, in those that rounding and noise allow
    possible: bool  # whether its other slopes, where it has two, could explain the rest
    distance: float  # of all that is compared, relative to its length
    # Whether no more than a hundredth was allowed, so that another would not fit.
    precise: bool = True
    dropped: float = 0.0  # the share of features that dropout left out; 0 where it was off
    # What the features were multiplied with, where only their direction is known.
    scale: float = 1.0

    @property
    def holds(self) -> bool:
        """Whether it explains what is seen without any choice."""
        return self.precise and self.misfit <= ALLOWED


def by_slopes(
    image: OneImage,
    pulled: Array,
    pulled_error: Array,
    below: Array,
    below_error: Array,
    *,
    scaled: bool = False,
) -> list[ActivationFit]:
    """Compare every activation's slopes with the gradient of the layer below, best first.

    Args:
        image: what the last layer shows of it; the features channel by channel.
        pulled: (F,), ∂L/∂h.
        pulled_error: (F,), a standard deviation.
        below: (O,), the bias gradient of the layer below; F is a multiple of O.
        below_error: (O,).
        scaled: whether only the direction of `below` is known.
    """
    found: list[ActivationFit] = []
    shape, features, features_error = (len(below), -1), image.features, image.features_error
    kept = np.abs(features) > ALLOWED * features_error
    for dropped in (0.0, *(DROPPED if not kept.all() else ())):
        scale = 1.0 / (1.0 - dropped)
        h, error = features / scale, features_error / scale
        r = pulled * scale * (kept if dropped else 1.0)
        for name in ACTIVATIONS:
            low, high = range_of(name)
            if (h < low - ALLOWED * error - 1e-7).any() or (
                h > high + ALLOWED * error + 1e-7
            ).any():
                continue
            slopes = slopes_at(name, h)
            moved = [slopes_at(name, h + side * error)[0] for side in (2.0, -2.0)]
            off = np.maximum(*(np.abs(slope - slopes[0]) for slope in moved))
            terms = r * slopes[0]
            variance = (r * off) ** 2 + (pulled_error * scale * slopes[0]) ** 2
            size = np.abs(r) * (4 * image.computed * (1.0 + np.abs(slopes[0])) + INTERPOLATION)
            allowed = np.sqrt(variance.reshape(shape).sum(axis=1)) + size.reshape(shape).sum(axis=1)
            total = terms.reshape(shape).sum(axis=1)
            factor = float(total @ below) / float(below @ below) if scaled else 1.0
            allowed = np.hypot(allowed, factor * below_error) + np.finfo(float).tiny
            missing = factor * below - total
            misfit = float(np.max(np.abs(missing) / allowed))
            # Where h has two slopes, any choice between them adds up to something in between.
            other = (r * (slopes[-1] - slopes[0])).reshape(shape)
            least, most = np.minimum(other, 0).sum(axis=1), np.maximum(other, 0).sum(axis=1)
            margin = ALLOWED * allowed
            within = (missing >= least - margin) & (missing <= most + margin)
            length = float(np.linalg.norm(factor * below)) or 1.0
            precise = float(np.linalg.norm(allowed)) < PRECISE * length
            distance = float(np.linalg.norm(missing)) / length
            possible = bool(within.all())
            found.append(ActivationFit(name, misfit, possible, distance, precise, dropped))
        if any(fit.holds for fit in found):
            break
    return sorted(found, key=lambda fit: (not fit.holds, not fit.possible, fit.distance))


def by_values(before: OneImage, after: OneImage | Direction) -> list[ActivationFit]:
    """Compare every activation of z, a layer's answer, with what came into the next, best first.

    Args:
        before: what the one layer shows.
        after: what the next one does, or the direction of that alone.
    """
    found, inputs, outputs = [], before.logits, after.features
    # GELU is z times 1 + erf z, which cancels where z is far below 0.
    rounded = 2.0 * before.computed * (1.0 + np.abs(inputs))
    kept = np.abs(outputs) > ALLOWED * after.features_error
    for dropped in (0.0, *(DROPPED if not kept.all() else ())):
        scale = 1.0 / (1.0 - dropped)
        for name, function in ACTIVATIONS.items():
            at, *moved = (
                function(Tensor(inputs + side * before.logits_error)).data * scale
                for side in (0.0, 1.0, -1.0)
            )
            off = np.maximum(*(np.abs(value - at) for value in moved))
            seen = at * (kept | (dropped == 0))
            scaled = isinstance(after, Direction)
            times = float(outputs @ seen) / float(outputs @ outputs) if scaled else 1.0
            allowed = np.hypot(off, times * after.features_error) + scale * rounded
            missing = np.where(kept | (dropped == 0), times * outputs - at, 0.0)
            misfit = float(np.max(np.abs(missing) / allowed))
            length = abs(times) * np.linalg.norm(outputs)
            distance = float(np.linalg.norm(missing) / (length or 1.0))
            precise = bool(np.linalg.norm(allowed) < PRECISE * length)
            possible = misfit <= ALLOWED
            found.append(ActivationFit(name, misfit, possible, distance, precise, dropped, times))
        if any(fit.holds for fit in found):
            break
    return sorted(found, key=lambda fit: (not fit.holds, fit.distance))


def by_range(means: Array, error: Array, present: int) -> Iterator[str]:
    """Yield the activations that can have such features, of means over a batch.

    Every row of a class that no image has is such a mean, with weights above 0. Which rows those
    are is not known; but what more rows than there are classes present show, one of them does.

    Args:
        means: (K, F), each row of the weight's gradient over its entry of the bias's.
        error: (K, F), a standard deviation.
        present: how many classes images have, at most.
    """
    below = np.sort((means + ALLOWED * error).min(axis=1))
    above = np.sort((means - ALLOWED * error).max(axis=1))[::-1]
    # Of more rows than classes present the last one is still as low, or as high.
    low = float(below[present]) if present < len(below) else np.inf
    high = float(above[present]) if present < len(above) else -np.inf
    for name in ACTIVATIONS:
        least, most = range_of(name)
        if low >= least and high <= most:
            yield name

"""What an attacker who knows the defences can use."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.backend import Array
from tinyleak.defenses.defense import Defense, Gradients, as_defenses
from tinyleak.interop import as_array

LEAST_SHARE = 0.1
"""No entry's variance is taken to be less than this share of the mean over its tensor.

Entries that a rounded float holds far more precisely than others would dominate the distance, and
the optimiser would hardly move.
"""


@dataclass(frozen=True, eq=False, repr=False)
class Knowledge:
    """What an attacker who knows the defences can use."""

    precision: dict[str, Array] | None  # of each squared difference; None if that is 1
    direction: bool  # match only that: the client may have scaled the gradient

    def __repr__(self) -> str:
        weighted = "no precision" if self.precision is None else "a precision for each entry"
        return f"Knowledge({weighted}, direction={self.direction})"


def knowledge(defenses: Sequence[Defense], shared: Gradients, batch: int = 1) -> Knowledge:
    """Return what can be known of a shared gradient, by name, given the defences and nothing else.

    The precision of an entry is 0 where it was pruned, and 1 / variance where noise was added or
    the entry was rounded; where there is neither, 1. The client had `batch` examples.
    """
    shared = {name: as_array(gradient) for name, gradient in shared.items()}
    variances = {name: np.zeros(gradient.shape) for name, gradient in shared.items()}
    for defense in as_defenses(defenses):
        for name, variance in defense.variance(shared, batch).items():
            variances[name] = variances[name] + variance
    finite = {name: variance[np.isfinite(variance)] for name, variance in variances.items()}
    means = {name: float(v.mean()) if v.size else 0.0 for name, v in finite.items()}
    noisy = [mean for mean in means.values() if mean > 0]
    precision = {}
    for name, variance in variances.items():
        # A tensor without any noise beside noisy ones is as precise as the most precise of them.
        least = LEAST_SHARE * (means[name] or min(noisy, default=1.0 / LEAST_SHARE))
        precision[name] = 1.0 / np.maximum(variance, least)
    plain = all(bool((p == 1.0).all()) for p in precision.values())
    return Knowledge(None if plain else precision, any(d.changes_scale for d in defenses))

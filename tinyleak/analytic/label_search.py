"""Labels of a batch by trying: those with which some features make the last layer's gradient.

With N < K images their features and labels make K·N numbers out of N·(N − 1) unknowns (see
`tinyleak.analytic.mixture`), so that wrong labels leave a misfit of 10¹¹ times the noise and more.
What `infer_labels` holds likeliest is tried first; then every set of labels that has those which
are certain. That tells the labels of trained networks, too, where counts are a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement, islice

import numpy as np

from tinyleak.analytic.labels import LabelInference, certain_counts, infer_labels
from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.analytic.mixture import EXPLAINED, Mixture, unmix
from tinyleak.backend import Array

MOST_SETS, MOST_SORTED = 60, 5000
"""How many sets of labels are tried, all 55 of two unknown ones of ten classes; and of how many
they are the nearest to what is inferred. Of seven batches of eight by a trained LeNet four had the
right ones among the first five, and all among the first 31."""

STARTS = (1, 5)
"""How many starts the features of each set are searched from, first for all sets and then again:
one is enough for most that are right, and those that are wrong take the longest."""

DOUBLE_PRECISION, ROUNDINGS = 1e-14, 8.0
"""How exact a gradient is at best, relative to its entries' root mean square: float64 rounds to
1e-16, and what it was computed from more often than once; or so many roundings of its dtype."""


def search_labels(layer: LastLayerGradient) -> LabelInference | None:
    """Search for the labels of a batch with which some images make the last layer's gradient.

    Args:
        layer: the last layer's gradient, with that of its bias, of the mean cross-entropy over
            fewer images than classes.

    Returns:
        The labels, by the rule "features"; they are trusted. None if none of those that were tried
        do: too many are unknown, or the loss or its factor is another, or the labels are soft.
    """
    if layer.bias_gradient is None:
        return None
    inferred = infer_labels(layer)
    possible = [inferred.labels]
    if not inferred.trusted:
        possible = _possible(layer, layer.bias_gradient, inferred.labels)
    for starts in STARTS:
        for labels in possible:
            if explanation(layer, labels, starts) is not None:
                counts = np.bincount(labels, minlength=layer.model.classes)
                return LabelInference(np.sort(labels), counts, "features", None)
    return None


def explanation(
    layer: LastLayerGradient,
    labels: Sequence[int] | Array,
    starts: int = STARTS[-1],
    guess: Array | None = None,
    rng: np.random.Generator | None = None,
) -> Mixture | None:
    """Return the features with which images of these labels make the gradient, if any do.

    For the arguments see `unmix`. None, too, where noise hides an image: any label would do for it.
    """
    rounding = max(DOUBLE_PRECISION, ROUNDINGS * layer.roundoff)
    try:
        found = unmix(layer, labels, rounding=rounding, guess=guess, starts=starts, rng=rng)
    except ValueError:  # it is zero, without a bias, or of too many images
        return None
    return found if found.misfit <= EXPLAINED and found.error_norms.all() else None


def _possible(layer: LastLayerGradient, by_bias: Array, likeliest: Array) -> list[Array]:
    """Return the labels that a batch may have, in the order in which they are tried.

    Those come first that differ from the likeliest in the fewest images; among them those whose
    rows of the bias's gradient are the least.
    """
    certain = np.flatnonzero(certain_counts(layer))
    likely = np.argsort(by_bias)
    others = combinations_with_replacement(likely, layer.batch - len(certain))
    sets = [np.sort([*certain, *other]) for other in islice(others, MOST_SORTED)]

    def distance(labels: Array) -> float:
        return float(np.abs(np.bincount(labels, minlength=len(by_bias)) - known).sum())

    known = np.bincount(likeliest, minlength=len(by_bias))
    return sorted(sets, key=distance)[:MOST_SETS]

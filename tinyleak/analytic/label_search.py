"""Labels of a batch by searching: those with which some features make the last layer's gradient.

Of up to about K / 2 images each has its features and its label told alone, with a certificate, as
records are (see `tinyleak.analytic.records`): no set of labels is tried.

With N < K images their features and labels make K·N numbers out of N·(N − 1) unknowns (see
`tinyleak.analytic.mixture`), so that wrong labels leave a misfit of 10¹¹ times the noise and more.
What `infer_labels` holds likeliest is tried first; then labels and features are searched for
together (see `tinyleak.analytic.free_labels`). That tells the labels of trained networks, too,
where counts are a guess. What is found is believed if it makes the gradient to its last digits.
"""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from tinyleak.analytic.certificate import certify
from tinyleak.analytic.free_labels import fits
from tinyleak.analytic.known import Records
from tinyleak.analytic.labels import LabelInference, infer_labels
from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.analytic.mixture import EXPLAINED, Mixture, unmix
from tinyleak.analytic.records import find_records
from tinyleak.backend import Array
from tinyleak.nn.split import Split, linear_layers

STARTS = 5
"""How many starts the features of labels that were given are searched from: one is enough for most
that are right, and those that are wrong take the longest."""

DOUBLE_PRECISION, ROUNDINGS = 1e-14, 8.0
"""How exact a gradient is at best, relative to its entries' root mean square: float64 rounds to
1e-16, and what it was computed from more often than once; or so many roundings of its dtype."""


ALONE, ALTOGETHER = 10.0, 40.0
"""Seconds to search for records, and for labels, at most. Of 61 batches of two to five by trained
LeNets, in float32, counts or else records told the labels of 60, each within two seconds."""

USUAL, AGREED = 1e-4, 1e-6
"""How near a mean's or a sum's factor is taken for that, and how well records must agree on others:
of float32 files with large weights it was off by 1e-5."""


def labels_by_records(layer: LastLayerGradient) -> LabelInference | None:
    """Return the labels of a batch of which each image is certified as a record of the last layer.

    Args:
        layer: as for `search_labels`.

    Returns:
        The labels, by the rule "records"; they are trusted. None if not all images were found, or
        there are too many of them to be told apart.
    """
    found, _ = _all_records(layer, factor_known=True)
    if found is None:
        return None
    labels = np.sort(np.repeat(found.labels, found.copies))
    counts = np.bincount(labels, minlength=layer.model.classes)
    return LabelInference(labels, counts, "records", None)


def factor_by_records(layer: LastLayerGradient) -> float | None:
    """Return by how much a gradient is multiplied, by records that agree on it.

    A factor near 1 or N, a mean's or a sum's, is that.

    Returns:
        None where not all images are found, each of them once, or they do not agree.
    """
    found, cut = _all_records(layer, factor_known=False)
    if found is None or cut is None:
        return None
    told = certify(layer, cut, found.inputs, found.labels, factor_known=False)
    factor = float(np.median(told.counts))
    usual = (1.0, float(layer.batch))
    agreed = float(np.ptp(told.counts)) <= AGREED * factor
    others = factor if agreed else None
    return next((c for c in usual if abs(factor / c - 1.0) <= USUAL), others)


def _all_records(
    layer: LastLayerGradient, *, factor_known: bool
) -> tuple[Records | None, Split | None]:
    """Return the records of a last layer, None unless all were found, and the network cut there."""
    params = {name: np.asarray(array, dtype=float) for name, array in layer.params.items()}
    cut = linear_layers(layer.model, params)[-1]
    if not cut.is_last:
        return None, None
    rng = np.random.default_rng(0)
    try:
        found = find_records(layer, cut, factor_known=factor_known, rng=rng, seconds=ALONE)
    except ValueError:  # there are more than it tells apart, or than were said
        return None, cut
    return (None if found.missing else found), cut


def search_labels(layer: LastLayerGradient, *, records: bool = True) -> LabelInference | None:
    """Search for the labels of a batch with which some images make the last layer's gradient.

    Args:
        layer: the last layer's gradient, with that of its bias, of the mean cross-entropy over
            fewer images than classes.
        records: whether to search for records first; not, if that was in vain.

    Returns:
        The labels, by the rule "records" or "features"; they are trusted. None if none of those
        that were tried do: too many are unknown, or the loss or its factor is another, or the
        labels are soft, or the time has run out.
    """
    if layer.bias_gradient is None:
        return None
    if records and (alone := labels_by_records(layer)) is not None:
        return alone
    near: Iterable[tuple[Array, Array | None]] = [(infer_labels(layer).labels, None)]
    if layer.shown <= layer.batch < min(layer.weight.shape):
        near = chain(near, fits(layer, np.random.default_rng(0), ALTOGETHER))
    for labels, features in near:
        if explanation(layer, labels, 1, features) is not None:
            counts = np.bincount(labels, minlength=layer.model.classes)
            return LabelInference(np.sort(labels), counts, "features", None)
    return None


def explanation(
    layer: LastLayerGradient,
    labels: Sequence[int] | Array,
    starts: int = STARTS,
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

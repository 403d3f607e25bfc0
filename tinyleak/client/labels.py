"""The labels of a client's batch, as its gradient tells them or a search finds them."""

from typing import Any, NamedTuple

import numpy as np

from tinyleak.analytic.label_search import factor_by_records, labels_by_records, search_labels
from tinyleak.analytic.labels import LabelInference, infer_labels
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.backend import Array

WHOLE = 1e-4
"""How far from whole numbers the counts of labels may be: float32 leaves 1e-6 of a label."""


class Unmixed(NamedTuple):
    """A factor of the loss, and labels, (N,), with which some images make a client's gradient."""

    factor: float
    labels: Array


def rows_of(told: Array, batch: int) -> Array:
    """Return the labels of a batch, (N, K), whose gradient is that of one image with a soft one.

    Images that are equal to the network, with one label each, have the mean of their labels; else
    each has that soft label.
    """
    counts = np.rint(batch * told)
    if np.abs(batch * told - counts).max() < WHOLE and counts.sum() == batch:
        return np.repeat(np.eye(told.shape[1]), counts[0].astype(int), axis=0)
    return np.repeat(told, batch // len(told), axis=0)


def labels_of(client: Any) -> LabelInference:
    """Return the labels that follow from a client's last layer; see `Client.labels`."""
    if client.premises.targets is not None:
        soft = client.targets
        assert soft is not None, "it has been told"
        likeliest = np.argmax(soft, axis=1)
        counts = np.bincount(likeliest, minlength=soft.shape[1])
        return LabelInference(likeliest, counts, "bias", None)
    if client.last_layer is None:
        # Says which layer it is, and what to do.
        LayerGradient.last(client.model, client.params, client.gradients, client.batch)
        other = client.loss.kind != "cross-entropy"
        why = f"is that of {client.loss.kind} of a batch" if other else "was not sent"
        raise ValueError(
            f"labels are inferred from the last layer's gradient, which {why}; give "
            "them, or find them with the images (--labels optimise)"
        )
    inferred = infer_labels(client.last_layer)
    if inferred.trusted or client.batch == 1 or not client.loss.exact or client.local is not None:
        return inferred
    return labels_by_records(client.last_layer) or inferred


def unmix(client: Any) -> Unmixed | None:
    """Search for labels, and the loss's factor where it is not exact; see `Client.unmixed`.

    A wrong factor leaves a misfit as wrong labels do.
    """
    factors = [client.loss.factor] if client.loss.exact else [1.0, float(client.batch)]
    plain = None if client.loss.exact else client.with_factor(1.0).last_layer
    if plain is not None:
        told = factor_by_records(plain)
        factors = factors if told is None else [told]
    for factor in factors:
        if (layer := client.with_factor(factor).last_layer) is None:
            continue
        # Labels that are not trusted were searched for by records, in vain.
        records = not client.loss.exact or client.labels.trusted
        if (found := search_labels(layer, records=records)) is not None:
            return Unmixed(factor, found.labels)
    return None

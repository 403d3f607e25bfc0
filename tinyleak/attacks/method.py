"""Which method suits a client, as its gradient shows."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from tinyleak.analytic.certificate import why_not
from tinyleak.analytic.label_search import explanation, factor_by_records, search_labels
from tinyleak.analytic.layer_gradient import LastLayerGradient, LayerGradient
from tinyleak.attacks.attacker import Attacker, Labels, Method
from tinyleak.attacks.first_layer import first_layer, records_of
from tinyleak.attacks.least_squares.features import WORTH, read_span
from tinyleak.backend import Array
from tinyleak.client import Client, Fact
from tinyleak.nn.split import Split

MOST_PIXELS = 3200
"""Of four digits: least squares takes 5 seconds a step for them, and 0.5 GB."""

SOON = 5.0
"""Seconds within which one record of a loss other than cross-entropy is to be found."""


def chosen(client: Client, attacker: Attacker) -> tuple[Client, Attacker]:
    """Return an attacker with the method that suits a client, in place of "auto".

    "records" where the first linear layer tells them apart; "levenberg-marquardt", with the labels
    that can be trusted, where the last layer shows the features of a batch, or of some of it, and
    after L-BFGS where only rounding hides these from a few images; else "lbfgs", as for mixed
    labels. A loss that was read off roughly is known exactly once features are found that make the
    last layer's gradient.
    """
    plain = replace(attacker, method="lbfgs")
    unsuited = attacker.defenses or attacker.precision or attacker.device != "cpu"
    settings = attacker.settings
    beyond = settings.direction or settings.smoothness or client.local
    alone = client.batch == 1 or attacker.restarts > 1 or not isinstance(attacker.start, str)
    if alone or unsuited or beyond or attacker.start not in ("noise", "auto"):
        return client, plain
    first = first_layer(client)
    # More records than were said are no reason to stop: whoever looks on is told of them.
    exact = client.loss.exact
    if first is not None and (why := why_not(*first, factor_known=exact)) is not None:
        client = _told(client, "lbfgs", f"the first linear layer does not tell images apart: {why}")
    elif first is not None and first[0].shown <= client.batch and _come_apart(client, *first):
        why = "the first linear layer shows each image"
        return _told(client, "records", why), replace(attacker, method="records", labels=None)
    if client.loss.kind != "cross-entropy":
        return client, plain
    # A last layer that was not sent, or is not linear, tells none.
    labels, told = attacker.labels, client.last_layer is not None and client.labels.trusted
    if not client.loss.exact or (labels is None and not told):
        client, found = _unmixed(client)
        labels = labels if found is None else [int(label) for label in found]
    if labels is None and told:
        labels = client.labels.labels
    layer, pixels = client.last_layer, prod(client.model.image_shape)
    # What has many more pixels than features takes least squares long.
    if not client.loss.exact or layer is None or pixels > WORTH * layer.weight.shape[1]:
        return client, plain
    told_by = _by_last_layer(client, layer, labels)
    if told_by is None:
        return client, plain
    method, why = told_by
    squares = replace(attacker, method=method, labels="trusted" if labels is None else labels)
    return _told(client, method, why), plain if method == "lbfgs" else squares


def _come_apart(client: Client, layer: LayerGradient, cut: Split) -> bool:
    """Return whether records are to be had: of other losses targets may be any numbers.

    Then none has one label, and L-BFGS finds them with the images.
    """
    if client.loss.kind == "cross-entropy":
        return True
    found = records_of(client, layer, cut, np.random.default_rng(0), SOON)
    return len(found.inputs) > 0


def _by_last_layer(
    client: Client, layer: LastLayerGradient, labels: Labels
) -> tuple[Method, str] | None:
    """Return the method for what the last layer shows of a batch, and why; None if nothing."""
    if read_span(layer) is not None:
        if labels is not None:
            return "levenberg-marquardt", "the last layer shows the features of the batch"
        # Least squares with labels that are free, and mixed, does not end.
        why = "no images with one label each were found for it: labels may be mixed"
        return "lbfgs", why
    if not layer.is_only_rounded:
        return None
    known = None if labels is None or isinstance(labels, str) else explanation(layer, labels)
    if known is not None and np.isfinite(known.errors).any():
        why = "the last layer shows the features of images whose label no other has"
        return "levenberg-marquardt", why
    if client.batch * prod(client.model.image_shape) > MOST_PIXELS:
        return None
    return "lbfgs+levenberg-marquardt", "rounding hides the features of the batch"


def _told(client: Client, method: str, why: str) -> Client:
    """Return a client that says what method was chosen."""
    return replace(client, facts={**client.facts, "method": Fact(method, "read off", why)})


def _unmixed(client: Client) -> tuple[Client, Array | None]:
    """Return a client whose loss is known exactly, and its labels, if features are found for them.

    A wrong factor leaves a misfit as wrong labels do.
    """
    factors = [client.loss.factor] if client.loss.exact else [1.0, float(client.batch)]
    plain = None if client.loss.exact else _with_factor(client, 1.0).last_layer
    if plain is not None:
        told = factor_by_records(plain)
        factors = factors if told is None else [told]
    for guess in [_with_factor(client, factor) for factor in factors]:
        if (layer := guess.last_layer) is None:
            continue
        # Labels that are not trusted were searched for by records, in vain.
        records = not client.loss.exact or client.labels.trusted
        if (found := search_labels(layer, records=records)) is not None:
            return guess, found.labels
    return client, None


def _with_factor(client: Client, factor: float) -> Client:
    if client.loss.exact:
        return client
    scaled = {n: g * (client.loss.factor / factor) for n, g in client.gradients.items()}
    return replace(client, gradients=scaled, loss=client.loss.exactly(factor, client.batch))


def one_label_each(client: Client) -> bool | None:
    """Return whether some images with one label each make the last layer's gradient.

    By the cross-entropy, a mean or a sum. If not, its labels are soft, its loss or its factor is
    another, or there are no such images with these weights.

    Returns:
        None where the last layer does not tell: of one image or step, or of as many as classes; or
        if none were found and rounding or noise hides what tells images apart.
    """
    layer = client.last_layer
    if layer is None or layer.bias_gradient is None or client.loss.kind != "cross-entropy":
        return None
    if not 1 < client.batch < min(layer.weight.shape) or client.local is not None:
        return None
    found = _unmixed(client)[1] is not None
    return found if found or read_span(layer) is not None else None

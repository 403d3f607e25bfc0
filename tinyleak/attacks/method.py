"""Which method suits a client, as its gradient shows."""

from dataclasses import replace
from math import prod

import numpy as np

from tinyleak.analytic.certificate import why_not
from tinyleak.analytic.known import Records
from tinyleak.analytic.label_search import explanation
from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.attacks.attacker import Attacker, Labels, Method
from tinyleak.attacks.first_layer import first_layer, records_of
from tinyleak.attacks.least_squares.features import WORTH, read_span
from tinyleak.client import Client, Fact
from tinyleak.defenses import Prune

MOST_PIXELS = 3200  # of four digits: least squares takes 5 seconds a step for them, and 0.5 GB
SOON = 5.0  # seconds within which one record of a loss other than cross-entropy is to be found


def chosen(client: Client, attacker: Attacker) -> tuple[Client, Attacker, Records | None]:
    """Return an attacker with the method that suits a client, in place of "auto".

    Beside it are the client, with what was found out on the way, and its records, if all were.

    "records" where the first linear layer tells them apart; "levenberg-marquardt", with the labels
    that can be trusted, where the last layer shows the features of a batch, or of some of it, and
    after L-BFGS where only rounding hides these from a few images; else "lbfgs", as for mixed
    labels. A loss that was read off roughly is known exactly once features are found that make the
    last layer's gradient.
    """
    plain = replace(attacker, method="lbfgs")
    only_pruned = all(isinstance(one, Prune) for one in attacker.defenses)
    unsuited = not only_pruned or attacker.precision or attacker.device != "cpu"
    settings = attacker.settings
    beyond = settings.direction or settings.smoothness or client.local
    alone = client.batch == 1 or attacker.restarts > 1 or not isinstance(attacker.start, str)
    if alone or unsuited or beyond or attacker.start not in ("noise", "auto"):
        return client, plain, None
    first = first_layer(client, attacker.defenses)
    # More records than were said are no reason to stop: whoever looks on is told of them.
    exact = client.loss.exact
    if first is not None and (why := why_not(*first, factor_known=exact)) is not None:
        client = _told(client, "lbfgs", f"the first linear layer does not tell images apart: {why}")
    elif first is not None and first[0].shown <= client.batch:
        records = None
        if client.loss.kind != "cross-entropy":
            # Of other losses targets may be any numbers: without labels there are no records.
            records = records_of(client, *first, np.random.default_rng(attacker.seed), SOON)
        if records is None or len(records.inputs):
            client = _told(client, "records", "the first linear layer shows each image")
            known = None if records is None or records.missing else records
            given = None if isinstance(attacker.labels, str) else attacker.labels
            return client, replace(attacker, method="records", labels=given), known
    if client.loss.kind != "cross-entropy" or attacker.defenses:
        return client, plain, None
    # A last layer that was not sent, or is not linear, tells none.
    labels: Labels = attacker.labels
    told = client.last_layer is not None and client.labels.trusted
    if isinstance(labels, str) and (told or labels == "trusted"):
        labels = None
    wanted = not client.loss.exact or (labels is None and not told)
    if wanted and (found := client.unmixed) is not None:
        client, labels = client.with_factor(found.factor), found.labels.tolist()
    counted = labels is None and told
    if counted:
        labels = client.labels.labels
    layer, pixels = client.last_layer, prod(client.model.image_shape)
    # What has many more pixels than features takes least squares long.
    if not client.loss.exact or layer is None or pixels > WORTH * layer.weight.shape[1]:
        return client, plain, None
    told_by = _by_last_layer(client, layer, labels)
    if told_by is None:
        return client, plain, None
    method, why = told_by
    settled: Labels = "trusted" if labels is None or counted else labels
    squares = replace(attacker, method=method, labels=settled)
    return _told(client, method, why), plain if method == "lbfgs" else squares, None


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
    return client.with_fact("method", Fact(method, "read off", why))


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
    found = client.unmixed is not None
    return found if found or read_span(layer) is not None else None

"""A client as its gradient tells: without the factor of its loss, and without weight decay."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.last_layer import layer_names
from tinyleak.analytic.loss_kind import any_loss as any_loss_of
from tinyleak.analytic.loss_kind import free_targets
from tinyleak.analytic.premises import Premises, read_premises
from tinyleak.analytic.residuals import TWICE
from tinyleak.analytic.shared import Shared
from tinyleak.analytic.sums import heads_of_one, loss_of_steps
from tinyleak.backend import Array
from tinyleak.client.facts import Fact, facts_of
from tinyleak.client.loss import any_loss, read_loss, said_loss
from tinyleak.nn.criteria import LOSSES
from tinyleak.nn.model import Model
from tinyleak.nn.models.as_trained import as_trained, heads_of
from tinyleak.nn.models.exported import (
    Exported,
    ending,
    ends_in,
    in_loss,
    last_layers,
    with_outputs_for,
    without_ending,
)

LOSS_WITH_ENDING = {
    "sigmoid": "bce",
    "log_softmax": "cross-entropy",
    "softmax": "cross-entropy",
}
"""The loss that a network's ending may belong to: then it is one of what the last layer returns."""

LOSSES_OF_ENDING = {
    "softmax": ("cross-entropy", TWICE, "mean squared error of probabilities"),
    "sigmoid": ("bce", "mean squared error of sigmoids"),
}
"""Which losses of the last layer a network's ending makes likely."""


def premises_of(
    client: Any,
    model: Any,
    loss: str | None,
    *,
    update: bool = False,
    activation: str | None = None,
) -> Premises:
    """Return what the gradient of a `tinyleak.Client` says of all that is taken for granted of it.

    `model` is its network, without its loss and normalisation; for the others see `read_premises`.
    """
    return read_premises(
        model,
        client.params,
        client.sent,
        client.batch,
        loss=loss,
        steps=client.multiple,
        update=update,
        dtype=client.dtype,
        rounding=client.rounding,
        activation=activation,
    )


def as_it_tells(
    client: Any,
    *,
    reduction: str | None,
    loss: str | None,
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None,
    update: bool,
) -> Any:
    """Return a client whose gradient is that of the mean loss; for the arguments see `Client.of`.

    The loss's factor is divided out of all that it shared, and weight decay is taken off. The
    network becomes one with that loss, for pixels in [0, 1], where the gradient says so.
    """
    if not any(bool(g.any()) for g in client.gradients.values()):
        raise ValueError(
            "every shared gradient is zero, so nothing can be read from it; check that the "
            "client's backward pass was run"
        )
    model, read = _network_and_reading(client, loss, update=update)
    heads, every = len(heads_of(model)), len(heads_of(client.model))
    facts = {**client.facts, **facts_of(read, normalize)}
    if heads < every:
        why = "the layers of the others sent no gradient"
        facts["heads"] = Fact(f"{heads} of {every} in the loss", "assumed", why)
    if read.loss is None and read.targets is not None:
        how = any_loss(read.factor or 1.0, heads)
    elif reduction is not None:
        kind = read.loss or "cross-entropy"
        how = said_loss(reduction, client.batch, "", kind, model.classes, read.loss_source)
    else:
        how = read_loss(read, client.batch, model.classes, client.steps)
    how = how if read.loss is None else how.of_heads(heads)
    plain: Mapping[str, Array] = client.gradients
    if client.steps == 1:
        plain = read.without_decay(client.params, plain)
    local, rounding = client.local, client.rounding
    if local is not None:
        local = local.of_loss(how.factor)
    if rounding is not None:
        rounding = {name: variance / how.factor**2 for name, variance in rounding.items()}
    return replace(
        client,
        model=as_trained(model, how.kind, normalize or read.normalisation),
        gradients={name: gradient / how.factor for name, gradient in plain.items()},
        loss=how,
        local=local,
        rounding=rounding,
        facts=facts,
        read=read,
    )


def _network_and_reading(client: Any, loss: str | None, *, update: bool) -> tuple[Any, Premises]:
    """Return the network whose outputs the client's loss takes, and what its gradient says.

    Of a batch each image's targets may be any numbers, and so may its δ: where no usual loss
    explains the gradient, a squared error with free targets is assumed.
    """
    network = client.model
    if isinstance(network, Exported):
        return _cut_and_read(client, in_loss(network, client.sent), loss, update=update)
    read = client.read or premises_of(client, network, loss, update=update)
    untold = read.loss is None and loss is None and client.batch > 1
    return network, _of_numbers(read) if untold else read


def _cut_and_read(
    client: Any, network: Exported, loss: str | None, *, update: bool
) -> tuple[Exported, Premises]:
    """Return the same of an exported network, which is read as what its last layers return.

    What follows these belongs to the loss where the gradient says so: the binary cross-entropy of a
    sigmoid is one of logits, the logarithm of a softmax a cross-entropy of them, and of one image
    any loss is a squared error whose targets may be any numbers. Else it is the network's own.
    """
    end, bare, alone = ending(network), without_ending(network), client.batch == 1
    if client.read is None and len(network.heads) > 1 and loss in (None, "mse"):
        return _of_heads(client, network, bare, loss, update=update)
    if client.read is None and client.local is not None and alone and loss is None:
        return _of_steps(client, network, bare, end, update=update)
    single, belongs = network.heads == (1,), LOSS_WITH_ENDING.get(end)
    as_number = single and loss in (None, "mse")
    logit = single and end == "sigmoid" and loss != "mse"
    cut = bare if logit or loss in (None, belongs) else network
    cut = with_outputs_for(cut, "mse") if as_number else cut
    read = client.read or premises_of(client, cut, loss, update=update)
    if as_number and loss is None and (read.loss in ("bce", "cross-entropy") or not alone):
        read = _of_logit(read, alone=alone)
    if loss is None and alone and not logit and _lacks_bias(client, cut, read):
        return bare, replace(read, loss="mse", loss_source="assumed")
    inside = logit or (read.loss is not None and read.loss == belongs)
    if inside and end == "softmax":
        # Of probabilities that are taken for logits the gradient is smaller than the mean's.
        inside = read.factor is not None and read_loss(read, client.batch, network.classes).exact
        if not (inside or alone or client.read):
            read = premises_of(client, network, loss, update=update)
    other = read.loss is None or (end and not inside and read.loss != "cross-entropy")
    if other and loss is None and not alone:
        return bare, _of_numbers(read)
    if read.loss is None and not ends_in(network, layer_names(network)[-1][0]):
        read = replace(read, targets=None)
    if end and (inside or (loss is None and read.targets is not None)):
        return bare, read
    return network, replace(read, targets=None) if end else read


def _of_numbers(read: Premises) -> Premises:
    """Return what was read of a batch's gradient, with a squared error that has it."""
    return replace(read, loss="mse", loss_source="assumed", factor=None, targets=None)


def _of_logit(read: Premises, *, alone: bool) -> Premises:
    """Return what was read of a number, where it is the logit of a yes or no."""
    yes = read.targets
    both = None if yes is None else np.concatenate([1.0 - yes, yes], axis=1)
    # What speaks for the binary cross-entropy does not speak against this one.
    causes = tuple([cause for cause in read.causes if cause.name != "loss"])
    if not alone:
        text = "its one output was taken for the logit of a yes or no, and may be a number"
        causes = (*causes, Cause("loss", text, "--loss mse"))
    return replace(read, loss="cross-entropy", targets=both, causes=causes)


def _lacks_bias(client: Any, network: Any, read: Premises) -> bool:
    """Return whether only a bias that is not there would tell the loss of one image.

    A squared error with targets that are found with the image has the gradient of any.
    """
    if not layer_names(network):
        return False
    weight, bias = layer_names(network)[-1]
    told = read.factor is not None or read.targets is not None or client.local is not None
    untold = network.classes == 1 or any(cause.name == "loss" for cause in read.causes)
    return bias is None and not told and untold and ends_in(network, weight)


def _of_steps(
    client: Any, network: Exported, bare: Exported, end: str, *, update: bool
) -> tuple[Exported, Premises]:
    """Return the same of several steps on one image, which tell the loss by what they add up to."""
    told = loss_of_steps(
        _shared(client, with_outputs_for(bare, "mse")),
        LOSSES_OF_ENDING.get(end, ("cross-entropy", "bce")),
        count=client.local.count,
        rate=client.local.learning_rate,
        momentum=client.local.momentum,
    )
    inside = (end, told) in (("sigmoid", "bce"), ("softmax", "cross-entropy"))
    network = bare if inside or end == "log_softmax" else network
    kind = told if told in LOSSES else "mse"
    # One logit's cross-entropy is the binary one.
    if told in (None, TWICE) or (network.heads == (1,) and told == "bce"):
        kind = "cross-entropy"
    read = premises_of(client, network, kind, update=update)
    return network, replace(read, loss_source="read off" if told else "assumed")


def _of_heads(
    client: Any, network: Exported, bare: Exported, loss: str | None, *, update: bool
) -> tuple[Exported, Premises]:
    """Return the same of several heads, which of one image may have any loss each."""
    layers, shown = last_layers(network), None
    bare = with_outputs_for(bare, "mse")
    if layers and client.batch == 1 and client.local is None:
        shown = heads_of_one(_shared(client, bare), layers)
    read = premises_of(client, network, loss, update=update)
    if shown is None:
        return network, read
    image, usual = shown
    if loss is not None:
        # The sum of the heads' losses is so many times a squared error of all that they return.
        own = replace(image, delta=image.delta / len(layers))
        return bare, replace(read, targets=free_targets(own, loss))
    if usual:
        return bare, replace(read, factor=1.0, factor_exact=True)
    told = any_loss_of(image)
    return bare, replace(read, loss=None, factor=told.factor, targets=told.targets)


def _shared(client: Any, network: Exported) -> Shared:
    """Return what a client of one image shared, of its network as it is cut here."""
    return Shared.of(network, client.params, client.sent, 1, client.dtype, None)


def as_sent(
    model: Model, gradients: Mapping[str, Any], known: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a gradient with zeros where nothing was sent, and what that tells of its client."""
    sent = [g for g in gradients.values() if g is not None]
    kinds = {str(getattr(g, "dtype", "")).rpartition(".")[2] for g in sent}
    frozen = {
        n: np.zeros(shape) for n, shape in model.shapes.items() if gradients.get(n, 0) is None
    }
    told = {"dtype": min(kinds)} if kinds and kinds <= {"float16", "float32"} else {}
    return {**gradients, **frozen}, told | {**known, "frozen": (*known.get("frozen", ()), *frozen)}

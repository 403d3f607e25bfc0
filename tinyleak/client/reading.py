"""A client as its gradient tells: without the factor of its loss, and without weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tinyleak.analytic.heads import reading_of_heads
from tinyleak.analytic.last_layer import layer_names
from tinyleak.analytic.premises import Premises, read_premises
from tinyleak.analytic.residuals import TWICE
from tinyleak.analytic.steps import loss_of_steps
from tinyleak.backend import Array
from tinyleak.client.facts import facts_of
from tinyleak.client.loss import any_loss, read_loss, said_loss
from tinyleak.nn.criteria import LOSSES
from tinyleak.nn.model import Model
from tinyleak.nn.models.as_trained import as_trained, heads_of
from tinyleak.nn.models.exported import (
    Exported,
    ending,
    ends_in,
    last_layers,
    with_outputs_for,
    without_ending,
)

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
    """Return what a client's gradient says of all that is taken for granted of it.

    Args:
        client: a `tinyleak.client.Client`.
        model: its network, without its loss and normalisation.
        loss: the loss's name, if it was said.
        update: whether the gradient is the change of the weights over the learning rate.
        activation: the network's, if it is beyond doubt.
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
    heads = len(heads_of(model))
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
        facts={**client.facts, **facts_of(read, normalize)},
        read=read,
    )


def _network_and_reading(client: Any, loss: str | None, *, update: bool) -> tuple[Any, Premises]:
    """Return the network whose outputs the client's loss takes, and what its gradient says.

    What follows the last layer may belong to the loss: the binary cross-entropy of a sigmoid is one
    of logits, and so is the logarithm of a softmax. Of one image it does so whatever it is. In
    order:

    - of several heads each may have any loss, of one image;
    - several steps on one image tell the loss by what they add up to;
    - one output is the logit of a yes or no, unless a number explains the gradient;
    - without a bias that would tell the loss of one image, it is a squared error with free targets;
    - an ending that the loss turns out to contain is cut off;
    - so it is where no usual loss explains the gradient: then a squared error with free targets
      stands for it, which of a batch is assumed.
    """
    network, end = client.model, ending(client.model)
    if isinstance(network, Exported) and len(network.heads) > 1 and loss in (None, "mse"):
        return _heads_and_reading(client, network, loss, update=update)
    if isinstance(network, Exported) and client.local is not None and client.batch == 1:
        return _steps_and_reading(client, network, end, loss, update=update)
    single = isinstance(network, Exported) and network.heads == (1,)
    logit = single and end == "sigmoid" and loss != "mse"
    if logit:
        network, end = without_ending(network), ""
    # One logit is read as the number that it is, of which the loss is a yes or no's or another.
    as_number = single and (loss == "mse" or (loss is None and client.batch == 1))
    outputs = with_outputs_for(network, "mse") if as_number else network
    read = client.read or premises_of(client, outputs, loss, update=update)
    if as_number and read.loss not in (None, "mse"):
        yes = read.targets
        both = None if yes is None else np.concatenate([1.0 - yes, yes], axis=1)
        # What speaks for the binary cross-entropy does not speak against this one.
        causes = tuple([cause for cause in read.causes if cause.name != "loss"])
        read = replace(read, loss="cross-entropy", targets=both, causes=causes)
    untold = loss is None and client.batch == 1 and not logit
    if untold and _lacks_bias(client, outputs, read):
        return without_ending(network), replace(read, loss="mse", loss_source="assumed")
    inside = (end, read.loss) in (("sigmoid", "bce"), ("log_softmax", "cross-entropy"))
    if (end, read.loss) == ("softmax", "cross-entropy") and read.factor is not None:
        # Of probabilities that are taken for logits the gradient is smaller than the mean's.
        alone = premises_of(client, without_ending(network), loss, update=update)
        inside = alone.factor is not None and read_loss(alone, client.batch, network.classes).exact
        read = alone if inside else read
    if read.loss is None and loss is None and client.batch > 1:
        # Each image's targets may be any numbers, and so may its δ.
        bare = without_ending(network) if isinstance(network, Exported) else network
        return bare, replace(read, loss="mse", loss_source="assumed", targets=None)
    if read.loss is None and not ends_in(network, layer_names(network)[-1][0]):
        read = replace(read, targets=None)
    if end and (inside or (loss is None and read.targets is not None)):
        return without_ending(network), read
    return network, replace(read, targets=None) if end else read


def _lacks_bias(client: Any, network: Any, read: Premises) -> bool:
    """Return whether only a bias that is not there would tell the loss of one image.

    A squared error with targets that are found with the image has the gradient of any.
    """
    if not isinstance(network, Exported) or not layer_names(network):
        return False
    weight, bias = layer_names(network)[-1]
    told = read.factor is not None or read.targets is not None or client.local is not None
    untold = network.classes == 1 or any(cause.name == "loss" for cause in read.causes)
    return bias is None and not told and untold and ends_in(network, weight)


def _steps_and_reading(
    client: Any, network: Exported, end: str, loss: str | None, *, update: bool
) -> tuple[Any, Premises]:
    """Return the same of several steps on one image, whose mean tells about which loss it was."""
    if loss is not None:
        return network, premises_of(client, network, loss, update=update)
    bare = without_ending(network)
    told = loss_of_steps(
        with_outputs_for(bare, "mse"),
        client.params,
        client.sent,
        LOSSES_OF_ENDING.get(end, ("cross-entropy", "bce")),
        count=client.local.count,
        rate=client.local.learning_rate,
        momentum=client.local.momentum,
        dtype=client.dtype,
    )
    one = network.heads == (1,)
    # One logit's cross-entropy is the binary one.
    kind = "cross-entropy" if told is None or (one and told == "bce") else told
    kind = "cross-entropy" if kind == TWICE else kind if kind in LOSSES else "mse"
    inside = (end, told) in (("sigmoid", "bce"), ("softmax", "cross-entropy"))
    inside = inside or end == "log_softmax"
    network = bare if inside else network
    read = premises_of(client, network, kind, update=update)
    return network, replace(read, loss_source="read off" if told else "assumed")


def _heads_and_reading(
    client: Any, network: Exported, loss: str | None, *, update: bool
) -> tuple[Any, Premises]:
    """Return the same of a network with several heads; of one image each may have any loss."""
    bare = with_outputs_for(without_ending(network), "mse")
    layers, any_, usual = last_layers(network), None, False
    if layers and client.batch == 1 and client.local is None:
        any_, usual = reading_of_heads(bare, client.params, client.sent, layers, client.dtype)
    read = premises_of(client, network, loss, update=update)
    if any_ is None:
        return network, read
    if usual and loss is None:
        return without_ending(network), replace(read, factor=1.0, factor_exact=True)
    return bare, replace(read, loss=None, factor=any_.factor, targets=any_.targets)


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

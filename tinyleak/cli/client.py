"""The client whose files `tinyleak attack` was given: its network, its gradient, what is known."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.analytic import LayerGradient, infer_activation
from tinyleak.backend import Array
from tinyleak.cli.files import (
    Notes,
    add_rename_option,
    gather_notes,
    learning_rate,
    read_matching,
    read_network,
)
from tinyleak.cli.loss import Loss, read_loss
from tinyleak.cli.options import REDUCTIONS, flag, whole_number
from tinyleak.client.local import LocalSteps
from tinyleak.nn import MLP, LeNet
from tinyleak.nn.models.shapes import kind_of

ONLY_SIMULATED = ("data", "image", "data_dir", "index", "label", "init")
"""Options of `attack` that describe a client which is simulated."""

ONLY_FILES = (
    *("gradients", "rename", "reduction"),
    *("weights_after", "learning_rate", "local_steps"),
)
"""Options of `attack` that need --weights."""

MOST_STEPS = 5
"""Each local step makes the attack's graph longer."""


@dataclass(frozen=True)
class Client:
    """A client known by its files.

    Attributes:
        model: its network.
        params: the weights, by name.
        shared: its gradient, by name, or the sum over its local steps; divided by the loss's
            factor.
        batch: N, how many images it is of.
        loss: what it is of the gradient of the mean loss, as far as that is known.
        dtype: the coarsest in which what it shared is written down.
        notes: what was said about the files.
        activation: the sentence that says how the network's activation is known; None if it was
            told.
        local: the steps of SGD that it took, if it shared the weights after more than one.
        rounding: the variance, by name, that rounding the weights after them leaves on what they
            changed; None where a gradient was shared.
    """

    model: LeNet | MLP
    params: dict[str, Array]
    shared: dict[str, Array]
    batch: int
    loss: Loss
    dtype: str
    notes: Notes
    activation: str | None = None
    local: LocalSteps | None = None
    rounding: dict[str, Array] | None = None


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """Which files a client is known by, if none is simulated."""
    group = parser.add_argument_group(
        "a client's files, instead of a simulated client",
        "--shape, --classes, --batch, --model and --activation then describe it; what they leave "
        "out is taken from the notes about the files, or as by default",
    )
    group.add_argument(
        "--weights",
        metavar="W",
        type=Path,
        help="its weights, .safetensors or .npz by parameter name, as a state_dict is saved",
    )
    group.add_argument(
        "--gradients", metavar="G", type=Path, help="the gradient that it shared, likewise"
    )
    add_rename_option(group)
    group.add_argument(
        "--weights-after",
        metavar="W2",
        type=Path,
        help="instead of a gradient: its weights after it has trained with --learning-rate",
    )
    group.add_argument(
        "--learning-rate", metavar="LR", type=learning_rate, help="of its steps of plain SGD"
    )
    group.add_argument(
        "--local-steps",
        metavar="K",
        type=whole_number(1),
        help=f"how many they were, {MOST_STEPS} at most, each with the same whole batch "
        "(default: as the notes say, else 1)",
    )
    group.add_argument(
        "--reduction",
        choices=REDUCTIONS,
        help="how the client's loss goes over the batch (default: as the notes say, else told by "
        "the gradient, which also tells a constant factor)",
    )


def has_files(args: argparse.Namespace) -> bool:
    """Whether the client is one known by its files.

    Raises:
        ValueError: options of the one kind of client with the other.
    """
    if args.weights is None:
        for name in ONLY_FILES:
            if getattr(args, name):
                raise ValueError(
                    f"{flag(name)} speaks of a client's files, but without --weights the client "
                    "is simulated; give the weights too"
                )
        return False
    for name in ONLY_SIMULATED:
        if getattr(args, name) is not None:
            raise ValueError(
                f"{flag(name)} describes a simulated client, but --weights are a real one's; "
                "leave one of the two out"
            )
    if args.labels == "known":
        raise ValueError(
            "--labels known needs a client whose labels are known, but files hold none; choose "
            "infer or optimise"
        )
    if args.defense and not args.aware:
        raise ValueError(
            "--defense cannot be applied to a gradient that has been shared already; add --aware "
            "if the client applied it and the attacker knows, or leave it out"
        )
    return True


def read_client(args: argparse.Namespace) -> Client:
    """Read the client's files, and tell what they leave open.

    Raises:
        ValueError: files that cannot be used, or that do not fit each other or the request.
        OSError: files that are not there.
    """
    if (args.gradients is None) == (args.weights_after is None):
        raise ValueError(
            "--weights need what the client made of them; give either its gradient with "
            "--gradients, or its weights after its steps with --weights-after"
        )
    notes = gather_notes(args.weights, args.gradients, args.weights_after)
    batch = args.batch or notes.batch or 1
    local = _local_steps(args, notes)
    model, params = read_network(args, notes, batch * (1 if local is None else local.count))
    path = args.gradients or args.weights_after
    given = read_matching(args, model, path, "gradients" if local is None else "weights after")
    held = [*given.values(), *(() if local is None else params.values())]
    params = {name: array.astype(float) for name, array in params.items()}
    shared = {name: array.astype(float) for name, array in given.items()}
    if local is not None:
        rate = local.learning_rate
        shared = {name: (params[name] - after) / rate for name, after in shared.items()}
        if not any(array.any() for array in shared.values()):
            raise ValueError(
                f"the weights in {str(path)!r} are those from before, so nothing can be read from "
                "them; check that the client has trained before they were saved"
            )
    activation = None
    if args.activation is None and notes.activation is None:
        told = infer_activation(LayerGradient.last(model, params, shared, batch))
        model = model if told is None else replace(model, activation=told)
        how = "assumed" if told is None else "as the features that the last layer shows tell"
        activation = f"{model.activation}, {how}"
    steps = 1 if local is None else local.count
    loss = read_loss(args.reduction or notes.reduction, model, params, shared, batch, steps)
    rounding = None
    if local is not None:
        # A step rounds each weight to a multiple of its spacing s, which errs by s² / 12.
        variance = local.count / (12.0 * (local.learning_rate * loss.factor) ** 2)
        rounding = {name: variance * _spacing(after) ** 2 for name, after in given.items()}
        # Each step with c times the loss is one with c times the rate.
        local = None if local.count == 1 else LocalSteps(local.count, rate * loss.factor)
    return Client(
        model=model,
        params=params,
        shared={name: array / loss.factor for name, array in shared.items()},
        batch=batch,
        loss=loss,
        dtype=min((array.dtype for array in held), key=lambda kind: kind.itemsize).name,
        notes=notes,
        activation=activation,
        local=local,
        rounding=rounding,
    )


def _spacing(array: Array) -> Array:
    """Return how far each number is from the next that its dtype can hold."""
    return np.abs(np.spacing(array)).astype(float)


def _local_steps(args: argparse.Namespace, notes: Notes) -> LocalSteps | None:
    """Return the steps of SGD that lie between the weights before and after, if those are given."""
    if args.weights_after is None:
        for name in ("learning_rate", "local_steps"):
            if getattr(args, name) is not None:
                raise ValueError(
                    f"{flag(name)} speaks of steps between weights, but --gradients are one "
                    "step's; leave one of the two out"
                )
        return None
    rate = args.learning_rate or notes.learning_rate
    if rate is None:
        raise ValueError(
            "weights before and after tell a gradient only together with the learning rate; give "
            "it with --learning-rate"
        )
    count = args.local_steps or notes.local_steps or 1
    if count > MOST_STEPS:
        raise ValueError(
            f"{count} local steps were given, and {MOST_STEPS} at most can be unrolled; attack a "
            "client that takes fewer"
        )
    return LocalSteps(count, rate)


def settings_of(args: argparse.Namespace, client: Client) -> dict[str, Any]:
    """Return what result.json says about the client; what only a simulated one has is null."""
    model = client.model
    return {
        **dict.fromkeys(ONLY_SIMULATED),
        "batch": client.batch,
        "model": kind_of(model),
        "image_shape": model.image_shape,
        "classes": model.classes,
        "activation": model.activation,
        "rename": ["=".join(pair) for pair in args.rename],
        "reduction": args.reduction or client.notes.reduction,
        "local_steps": args.local_steps or client.notes.local_steps,
        "learning_rate": args.learning_rate or client.notes.learning_rate,
        "notes": client.notes.said() or None,
    }

"""The client that a command makes up: of built-in data or an image, and a network of its own."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyleak import data
from tinyleak.cli.options import MODELS, SCHEMES, given, refuse
from tinyleak.client import Client, LocalSteps, Notes, Truth, simulate
from tinyleak.client.file_network import exported_network, read_network
from tinyleak.data import Dataset
from tinyleak.data.networks import SUFFIX
from tinyleak.defenses import Defense
from tinyleak.nn.models import Network
from tinyleak.nn.models.exported import Exported


def network(
    name: str | None,
    shape: tuple[int, int, int],
    classes: int,
    activation: str | None = None,
    weights: Path | None = None,
) -> Network | Exported:
    """Return the network of that name, or in that file, with the weights in another if it is given.

    A ValueError if it does not fit images of this shape, or a built-in one is given weights.
    """
    if name is None or name in MODELS:
        if weights is not None:
            raise ValueError(
                f"--weights are of a network of your own, but {name or 'lenet'} was chosen; give "
                f"--model net{SUFFIX}, or leave them out"
            )
        return MODELS[name or "lenet"](shape, classes, activation or "sigmoid")
    said = Notes(model=name, activation=activation)
    if weights is None:
        model = exported_network(name, said)
    else:
        read, own = read_network(weights, said, {}, images=1)
        assert isinstance(read, Exported), "the file was named"
        model = replace(read, weights=own)
    if model.image_shape != shape or model.classes < classes:
        raise ValueError(
            f"{name!r} takes inputs {model.image_shape} of {model.classes} classes, but the data "
            f"are {shape} of {classes}; choose other --data, or --image with --shape and --classes"
        )
    return model


def simulated_client(
    args: argparse.Namespace,
    *,
    dtype: str,
    defenses: Sequence[Defense],
    local: LocalSteps | None = None,
) -> tuple[Client, Truth]:
    """Return the client that was asked for, made up of data and a fresh network, and its truth."""
    if str(args.model).endswith(SUFFIX):
        why = f"but those of {args.model!r} were saved with it; leave it out"
        refuse(args, ["init"], "{} says how weights are drawn, " + why)
    dataset = data.choose(args.data, **given(data.choose, args))
    images, labels = dataset.consecutive(**given(Dataset.consecutive, args))
    about = images.shape[1:], dataset.classes, args.activation
    model = network(args.model, *about, args.weights)
    seed, init = args.seed or 0, SCHEMES[args.init or "U"]
    more: dict[str, Any] = {"seed": seed, "init": init, "dtype": dtype, "local": local}
    return simulate(model, images, labels, defenses=defenses, **more)

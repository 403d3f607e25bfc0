"""Networks and gradients from files: what `attack` and `audit` read, and what is said about it.

A client's files are its weights and its gradient, named tensors as PyTorch saves a `state_dict()`
and `{name: p.grad}`. Notes about them, in a JSON object beside a file or in safetensors' metadata,
may say what the numbers do not; what the command line says goes before them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tinyleak.analytic.probes import AT_ONCE
from tinyleak.backend import Array
from tinyleak.cli.options import IMAGE_SHAPE, REDUCTIONS, image_shape, whole_number
from tinyleak.data.tensors import read_notes, read_tensors
from tinyleak.nn import ACTIVATIONS, MLP, LeNet
from tinyleak.nn.model import Model
from tinyleak.nn.models import match_names, model_from_shapes
from tinyleak.nn.models.shapes import MODELS

ACTIVATION = "sigmoid"

MOST_NUMBERS = 2**25
"""How many numbers weights and activations may be: an attack holds some dozens of copies."""

MOST_UNKNOWNS = 2**20
"""How many pixels may be searched for: L-BFGS remembers them some two hundred times."""

LONGEST_NOTE = 200
"""No note that means anything has more letters."""


@dataclass(frozen=True)
class Notes:
    """What is said about a client's files: each is None where nothing is.

    Attributes:
        model: "lenet" or "mlp".
        shape: (C, H, W) of an image.
        classes: how many there are.
        activation: the network's.
        strides: of a LeNet's convolutions.
        batch: N, how many images the gradient was computed from.
        reduction: "mean" or "sum", of the losses of a batch.
        learning_rate: of the client's steps, where weights after them are given.
        local_steps: how many they were.
    """

    model: str | None = None
    shape: tuple[int, int, int] | None = None
    classes: int | None = None
    activation: str | None = None
    strides: tuple[int, ...] | None = None
    batch: int | None = None
    reduction: str | None = None
    learning_rate: float | None = None
    local_steps: int | None = None

    def said(self) -> str:
        """Return what is there as text: "model mlp, batch 4"."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(
            f"{name.replace('_', ' ')} {_text(value)}"
            for name, value in told.items()
            if value is not None
        )


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def add_rename_option(group: Any) -> None:
    """Declare --rename."""
    group.add_argument(
        "--rename",
        metavar="FROM=TO",
        type=_renaming,
        action="append",
        default=[],
        help="what a tensor, or a layer, of the files is called in the model, where names and "
        "shapes leave that open; may be repeated",
    )


def gather_notes(*paths: Path | None) -> Notes:
    """Return what is said about these files, a later one's notes over an earlier's.

    Keys that tinyleak does not know are somebody else's, and are left alone.

    Raises:
        ValueError: notes that cannot be read, or that say what cannot be.
        OSError: a file is not there.
    """
    notes = Notes()
    for path in paths:
        if path is None:
            continue
        said = read_notes(path)
        for key, parse in PARSERS.items():
            if key in said:
                try:
                    if len(said[key]) > LONGEST_NOTE:
                        raise ValueError(f"{LONGEST_NOTE} letters are read at most")
                    notes = replace(notes, **{key: parse(said[key])})
                except (ValueError, argparse.ArgumentTypeError) as error:
                    raise ValueError(
                        f"the notes about {str(path)!r} say {key} {said[key][:80]!r}: {error}; "
                        "put them right"
                    ) from error
    return notes


def read_network(
    args: argparse.Namespace, notes: Notes, batch: int
) -> tuple[LeNet | MLP, dict[str, Array]]:
    """Return the network whose weights are in the file --weights, and them by its names.

    Raises:
        ValueError: they are no such network's, or cannot be used, or a batch of so many images
            would take more memory than is reasonable.
        OSError: the file is not there.
    """
    tensors = read_tensors(args.weights)
    model = model_from_shapes(
        args.model or notes.model or "lenet",
        {name: array.shape for name, array in tensors.items()},
        args.shape or notes.shape or IMAGE_SHAPE,
        args.classes or notes.classes,
        args.activation or notes.activation or ACTIVATION,
        notes.strides,
    )
    _require_room(model, batch)
    return model, matched(model, tensors, args.rename, "weights")


def _require_room(model: LeNet | MLP, batch: int) -> None:
    """Refuse what shapes of little size in a file, or of none, multiply to."""
    unknown = batch * math.prod(model.image_shape)
    if unknown > MOST_UNKNOWNS:
        raise ValueError(
            f"{batch} images of {model.image_shape} are {unknown:,} unknown pixels, and "
            f"{MOST_UNKNOWNS:,} are searched for at most; check the shape and the batch"
        )
    # Stand-ins for a batch go through the network together, however small it is.
    together = batch if batch == 1 else max(batch, AT_ONCE)
    parameters = sum(math.prod(shape) for shape in model.shapes.values())
    needed = parameters + together * _numbers_of_an_image(model)
    if needed > MOST_NUMBERS:
        raise ValueError(
            f"{together} images of {model.image_shape} make {needed:,} numbers in this network, "
            f"and {MOST_NUMBERS:,} are worked with at most; check the shape and the batch"
        )


def _numbers_of_an_image(model: LeNet | MLP) -> int:
    """Return how many numbers one image becomes on its way through the network."""
    channels, *size = model.image_shape
    total = channels * math.prod(size) + model.classes
    if isinstance(model, MLP):
        return total + sum(model.widths)
    for out_channels, stride in zip(model.channels, model.strides, strict=True):
        size = [-(-length // stride) for length in size]
        # The windows that a convolution multiplies, and what comes out.
        total += (model.kernel**2 * channels + out_channels) * math.prod(size)
        channels = out_channels
    return total


def read_matching(
    args: argparse.Namespace, model: Model, path: Path, what: str
) -> dict[str, Array]:
    """Return the tensors of a file by the names that the model has for them.

    Raises:
        ValueError: they are not the model's, or cannot be used, or all numbers in them are zero.
        OSError: the file is not there.
    """
    tensors = matched(model, read_tensors(path), args.rename, what)
    if not any(array.any() for array in tensors.values()):
        raise ValueError(
            f"every number in {str(path)!r} is zero, so nothing can be read from it; check that "
            f"the client's backward pass was run before its {what} were saved"
        )
    return tensors


def matched(
    model: Model, tensors: Mapping[str, Array], rename: list[tuple[str, str]], what: str
) -> dict[str, Array]:
    """Return tensors by the names that the model has for them.

    Raises:
        ValueError: names and shapes do not tell.
    """
    shapes = {name: array.shape for name, array in tensors.items()}
    names = match_names(model.shapes, shapes, dict(rename), what)
    return {name: tensors[old] for name, old in names.items()}


def _renaming(text: str) -> tuple[str, str]:
    """Parse a renaming."""
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise argparse.ArgumentTypeError(f"{text!r} is no renaming FROM=TO")
    return old, new


def learning_rate(text: str) -> float:
    """Parse a learning rate."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no learning rate above 0")
    return number


def _one_of(choices: Any) -> Any:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"choose from {', '.join(choices)}")
        return text

    return parse


def _strides(text: str) -> tuple[int, ...]:
    return tuple(whole_number(1)(part) for part in text.split(","))


PARSERS = {
    "model": _one_of(MODELS),
    "shape": image_shape,
    "classes": whole_number(1),
    "activation": _one_of(ACTIVATIONS),
    "strides": _strides,
    "batch": whole_number(1),
    "reduction": _one_of(REDUCTIONS),
    "learning_rate": learning_rate,
    "local_steps": whole_number(1),
}
"""What notes may say, and how it is read."""

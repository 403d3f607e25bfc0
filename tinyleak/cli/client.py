"""The client whose files `tinyleak attack` was given: its network, its gradient, what is known."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyleak.attack import infer_loss_scale
from tinyleak.backend import Array
from tinyleak.cli.files import (
    Notes,
    add_rename_option,
    gather_notes,
    read_matching,
    read_network,
)
from tinyleak.cli.options import REDUCTIONS
from tinyleak.nn import MLP, LeNet

ONLY_SIMULATED = ("data", "image", "data_dir", "index", "label", "init")
"""Options of `attack` that describe a client which is simulated."""

ONLY_FILES = ("gradients", "rename", "reduction")
"""Options of `attack` that need --weights."""

EXACTLY_ONE = 1e-5
"""A factor so near 1 is 1, and the rest is float32's rounding."""


@dataclass(frozen=True)
class Client:
    """A client known by its files.

    Attributes:
        model: its network.
        params: the weights, by name.
        shared: its gradient, by name, divided by `factor`.
        batch: N, how many images it is of.
        factor: what it is of the gradient of the mean loss, as far as that is known.
        exact: whether it is; otherwise only the gradient's direction is to be matched.
        scale: the sentence that says where the factor is from.
        dtype: the coarsest in which the gradient is written down.
        notes: what was said about the files.
    """

    model: LeNet | MLP
    params: dict[str, Array]
    shared: dict[str, Array]
    batch: int
    factor: float
    exact: bool
    scale: str
    dtype: str
    notes: Notes


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
                    f"{_flag(name)} speaks of a client's files, but without --weights the client "
                    "is simulated; give the weights too"
                )
        return False
    for name in ONLY_SIMULATED:
        if getattr(args, name) is not None:
            raise ValueError(
                f"{_flag(name)} describes a simulated client, but --weights are a real one's; "
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


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def read_client(args: argparse.Namespace) -> Client:
    """Read the client's files, and tell what they leave open.

    Raises:
        ValueError: files that cannot be used, or that do not fit each other or the request.
        OSError: files that are not there.
    """
    if args.gradients is None:
        raise ValueError("--weights were given without a gradient; give it with --gradients")
    notes = gather_notes(args.weights, args.gradients)
    batch = args.batch or notes.batch or 1
    model, params = read_network(args, notes, batch)
    shared = read_matching(args, model, args.gradients, "gradients")
    if not any(array.any() for array in shared.values()):
        raise ValueError(
            f"every number in {str(args.gradients)!r} is zero, so nothing can be read from it; "
            "check that the client's backward pass was run before its gradient was saved"
        )
    dtype = min((array.dtype for array in shared.values()), key=lambda kind: kind.itemsize)
    factor, exact, scale = _scale(args, notes, model, params, shared, batch)
    return Client(
        model=model,
        params={name: array.astype(float) for name, array in params.items()},
        shared={name: array.astype(float) / factor for name, array in shared.items()},
        batch=batch,
        factor=factor,
        exact=exact,
        scale=scale,
        dtype=dtype.name,
        notes=notes,
    )


def _scale(
    args: argparse.Namespace,
    notes: Notes,
    model: LeNet | MLP,
    params: dict[str, Array],
    shared: dict[str, Array],
    batch: int,
) -> tuple[float, bool, str]:
    """Return the factor on the client's loss, whether it is certain, and how it is known."""
    reduction = args.reduction or notes.reduction
    if reduction is not None:
        factor = float(batch) if reduction == "sum" else 1.0
        return factor, True, f"the loss is a {reduction} over the batch, as was said"
    found = infer_loss_scale(model, params, shared, batch)
    if found is None or not math.isfinite(found.factor) or found.factor == 0.0:
        return 1.0, True, "a mean over the batch is assumed; the last layer does not tell"
    if abs(found.factor - 1.0) <= EXACTLY_ONE:
        mean = "the loss itself" if batch == 1 else "the mean loss of the batch"
        return 1.0, True, f"the gradient is that of {mean}, as the last layer tells"
    if found.exact and found.factor == batch:
        return found.factor, True, "the loss is a sum over the batch, as the last layer tells"
    if found.exact:
        return found.factor, True, f"the loss was {found.factor:.6g} times as large: read off"
    return (
        found.factor,
        False,
        f"the loss was about {found.factor:.3g} times the mean; only the gradient's direction is "
        "matched",
    )


def settings_of(args: argparse.Namespace, client: Client) -> dict[str, Any]:
    """Return what result.json says about the client; what only a simulated one has is null."""
    model = client.model
    return {
        **dict.fromkeys(ONLY_SIMULATED),
        "batch": client.batch,
        "model": "mlp" if isinstance(model, MLP) else "lenet",
        "image_shape": model.image_shape,
        "classes": model.classes,
        "activation": model.activation,
        "rename": ["=".join(pair) for pair in args.rename],
        "reduction": args.reduction or client.notes.reduction,
        "notes": client.notes.said() or None,
    }

"""`tinyleak victim`: a client made up for teaching, written as the files that `attack` reads."""

from __future__ import annotations

import argparse
from typing import Any

from tinyleak.cli.options import (
    add_client_options,
    add_defense_option,
    add_options,
    flag,
    simulated_client,
)
from tinyleak.cli.output import add_output_options, output_directory
from tinyleak.client import LocalSteps, Notes, simulate
from tinyleak.client.local import MOST_STEPS
from tinyleak.data.tensors import FORMATS, write_tensors
from tinyleak.defenses import parse
from tinyleak.nn.models.shapes import MODELS
from tinyleak.report import write_arrays, write_json

NAME = "victim"
SUMMARY = "write the files of a client, its weights and the gradient that it shares, from data"

RATE = 0.1
"""The learning rate of local steps where none is given, as in PyTorch's tutorials."""

SIMULATED = {
    "seed": "decides the weights, and the noise of its defences (default: 0)",
    "dtype": "in which it computes, and saves (default: float32, as PyTorch)",
}

STEPS = {
    "reduction": "how its loss goes over the batch (default: mean)",
    "local_steps": "take so many steps of SGD, and share the weights after them instead of a "
    "gradient",
    "learning_rate": f"of its steps (default: {RATE})",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_client_options(parser)
    group = parser.add_argument_group("what the client does")
    add_options(group, simulate, SIMULATED)
    add_options(group, Notes, STEPS)
    add_defense_option(group)
    group = add_output_options(
        parser,
        "weights, gradients (or weights_after), notes about them, and truth.npz, which a client "
        "would keep to itself",
        required=True,
        quiet="print nothing",
    )
    group.add_argument(
        "--format",
        choices=[ending.removeprefix(".") for ending in FORMATS],
        default="safetensors",
        help="(default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Compute and write: 0 if that could be done.

    Raises:
        ValueError: a request that cannot be met.
        OSError: files that cannot be read or written.
    """
    _refuse_mixtures(args)
    dtype, reduction = args.dtype or "float32", args.reduction or "mean"
    # N times the loss moves the weights as N times the rate does.
    factor = float(args.batch or 1) if reduction == "sum" else 1.0
    steps, rate = args.local_steps, args.learning_rate or RATE
    with output_directory(args.out, force=args.force) as directory:
        assert directory is not None, "--out is required"
        client, truth = simulated_client(
            args,
            dtype=dtype,
            defenses=[parse(text) for text in args.defense],
            local=None if steps is None else LocalSteps(steps, rate * factor),
        )
        model: Any = client.model
        network = {
            "model": args.model or "lenet",
            "shape": model.image_shape,
            "classes": model.classes,
            "activation": model.activation,
        }
        notes: dict[str, Any] = {"batch": client.batch, "reduction": reduction}
        shared = {name: array * factor for name, array in client.gradients.items()}
        what = "gradients"
        if steps is not None:
            what = "weights_after"
            notes |= {"learning_rate": rate, "local_steps": steps}
            shared = {name: client.params[name] - rate * shared[name] for name in shared}
        shared = {name: array.astype(dtype) for name, array in shared.items()}
        for name, tensors, said in (("weights", client.params, network), (what, shared, notes)):
            write_tensors(directory / f"{name}.{args.format}", tensors)
            write_json(directory / f"{name}.json", said)
        write_arrays(directory / "truth.npz", images=truth.images, labels=truth.labels)
    if not args.quiet:
        files = [f"{flag(name)} {directory / name}.{args.format}" for name in ("weights", what)]
        print(f"attack it: tinyleak attack {' '.join(files)}")
        print(f"its images and labels, which it keeps to itself: {directory / 'truth.npz'}")
    return 0


def _refuse_mixtures(args: argparse.Namespace) -> None:
    """Refuse what files could not tell, or what does not go together.

    Raises:
        ValueError: there is such.
    """
    if args.model not in (None, *MODELS):
        raise ValueError(
            f"--model {args.model} cannot be told from files, so its client's could not be "
            f"attacked; choose from {', '.join(MODELS)}"
        )
    if args.defense and args.reduction == "sum":
        raise ValueError(
            "--defense protects a mean over the batch, but --reduction sum was given; leave one of "
            "the two out"
        )
    if args.local_steps is None and args.learning_rate is not None:
        raise ValueError(
            "--learning-rate is of --local-steps, but a gradient is to be shared; give how many "
            "steps, or leave it out"
        )
    if args.local_steps is not None and args.local_steps > MOST_STEPS:
        raise ValueError(
            f"{args.local_steps} local steps were asked for, and {MOST_STEPS} at most can be "
            "attacked; ask for fewer"
        )

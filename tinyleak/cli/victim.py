"""`tinyleak victim`: a client made up for teaching, written as the files that `attack` reads."""

from __future__ import annotations

import argparse
from typing import Any

from tinyleak.cli.attacker import add_defense_option
from tinyleak.cli.client import MOST_STEPS
from tinyleak.cli.files import learning_rate
from tinyleak.cli.options import REDUCTIONS, flag, whole_number
from tinyleak.cli.output import add_output_options, output_directory
from tinyleak.cli.simulated import (
    add_data_options,
    add_network_options,
    fill_simulated,
    simulated_client,
)
from tinyleak.client.local import LocalSteps
from tinyleak.data.tensors import FORMATS, write_tensors
from tinyleak.defenses import parse
from tinyleak.nn.models.shapes import MODELS
from tinyleak.report import write_arrays, write_json

NAME = "victim"
SUMMARY = "write the files of a client, its weights and the gradient that it shares, from data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_options(parser)
    add_network_options(parser)
    group = parser.add_argument_group("what the client does")
    group.add_argument(
        "--seed",
        metavar="S",
        type=whole_number(0),
        default=0,
        help="decides the weights, and the noise of its defences (default: %(default)s)",
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="in which it computes, and saves (default: %(default)s, as PyTorch)",
    )
    group.add_argument(
        "--reduction",
        choices=REDUCTIONS,
        default="mean",
        help="how its loss goes over the batch (default: %(default)s)",
    )
    group.add_argument(
        "--local-steps",
        metavar="K",
        type=whole_number(1),
        help="take K steps of SGD, and share the weights after them instead of a gradient",
    )
    group.add_argument(
        "--learning-rate", metavar="LR", type=learning_rate, help="of its steps (default: 0.1)"
    )
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
    fill_simulated(args)
    if args.model not in MODELS:
        raise ValueError(
            f"--model {args.model} cannot be told from files, so its client's could not be "
            f"attacked; choose from {', '.join(MODELS)}"
        )
    if args.defense and args.reduction == "sum":
        raise ValueError(
            "--defense protects a mean over the batch, but --reduction sum was given; leave one of "
            "the two out"
        )
    local = _local_steps(args)
    with output_directory(args.out, force=args.force) as directory:
        assert directory is not None, "--out is required"
        model, victim = simulated_client(
            args,
            dtype=args.dtype,
            defenses=[parse(text) for text in args.defense],
            # N times the loss moves the weights as N times the rate does.
            local=None
            if local is None
            else LocalSteps(local.count, local.learning_rate * _sum(args)),
        )
        network = {
            "model": args.model,
            "shape": model.image_shape,
            "classes": model.classes,
            "activation": args.activation,
        }
        batch: dict[str, Any] = {"batch": args.batch, "reduction": args.reduction}
        shared = {name: array * _sum(args) for name, array in victim.gradients.items()}
        what = "gradients"
        if local is not None:
            what = "weights_after"
            rate = local.learning_rate
            batch |= {"learning_rate": rate, "local_steps": local.count}
            shared = {name: victim.params[name] - rate * shared[name] for name in shared}
        shared = {name: array.astype(args.dtype) for name, array in shared.items()}
        for name, tensors, notes in (("weights", victim.params, network), (what, shared, batch)):
            write_tensors(directory / f"{name}.{args.format}", tensors)
            write_json(directory / f"{name}.json", notes)
        write_arrays(directory / "truth.npz", images=victim.images, labels=victim.labels)
    if not args.quiet:
        files = [f"{flag(name)} {directory / name}.{args.format}" for name in ("weights", what)]
        print(f"attack it: tinyleak attack {' '.join(files)}")
        print(f"its images and labels, which it keeps to itself: {directory / 'truth.npz'}")
    return 0


def _sum(args: argparse.Namespace) -> float:
    """Return how many times as large as the mean the loss is."""
    return float(args.batch) if args.reduction == "sum" else 1.0


def _local_steps(args: argparse.Namespace) -> LocalSteps | None:
    if args.local_steps is None:
        if args.learning_rate is not None:
            raise ValueError(
                "--learning-rate is of --local-steps, but a gradient is to be shared; give how "
                "many steps, or leave it out"
            )
        return None
    if args.local_steps > MOST_STEPS:
        raise ValueError(
            f"{args.local_steps} local steps were asked for, and {MOST_STEPS} at most can be "
            "attacked; ask for fewer"
        )
    return LocalSteps(args.local_steps, args.learning_rate or 0.1)

"""`tinyleak victim`: a client made up for teaching, written as the files that `attack` reads."""

import argparse

from tinyleak.cli import options
from tinyleak.cli.interrupts import undisturbed
from tinyleak.cli.output import add_output_options, output_directory, say
from tinyleak.cli.simulated import simulated_client
from tinyleak.client import LocalSteps, Notes, simulate, write_client
from tinyleak.client.local import STEPS
from tinyleak.client.loss import said_loss
from tinyleak.data.networks import SUFFIX
from tinyleak.data.tensors import FORMATS
from tinyleak.defenses import parse
from tinyleak.nn.models.shapes import MODELS

NAME = "victim"
SUMMARY = "write the files of a client, its weights and the gradient that it shares, from data"

RATE = 0.1  # the learning rate of local steps where none is given, as in PyTorch's tutorials

SIMULATED = {
    "seed": "decides the weights, and the noise of its defences (default: 0)",
    "dtype": "in which it computes, and saves (default: float32, as PyTorch)",
}

TRAINING = {
    "reduction": "how its loss goes over the batch (default: mean)",
    "local_steps": "take so many steps of SGD, and share the weights after them instead of a "
    "gradient",
    "epochs": "the same, said as how often they go through the batch",
    "local_batch": "images of the mini-batch of each, one after the other (default: all)",
    "momentum": "of its steps (default: 0)",
    "learning_rate": f"of its steps (default: {RATE})",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options.add_client_options(parser)
    options.add_weights_option(parser)
    group = parser.add_argument_group("what the client does")
    options.add_options(group, simulate, SIMULATED)
    options.add_options(group, Notes, TRAINING)
    options.add_defense_option(group)
    group = add_output_options(
        parser,
        "weights, gradients (or weights_after), notes about them, and truth.npz, which a client "
        "would keep to itself",
        required=True,
        quiet="print nothing",
    )
    endings = [ending.removeprefix(".") for ending in FORMATS]
    text = "(default: %(default)s)"
    group.add_argument("--format", choices=endings, default="safetensors", help=text)


def run(args: argparse.Namespace) -> int:
    """Compute and write: 0 if that could be done."""
    _refuse_mixtures(args)
    reduction, local = args.reduction or "mean", None
    steps = None
    if args.local_steps is not None or args.epochs is not None:
        told = {name: getattr(args, name) for name in STEPS}
        steps = LocalSteps.of(args.batch or 1, args.learning_rate or RATE, **told)
        local = steps.of_loss(said_loss(reduction, args.batch or 1).factor)
    names = ("weights", "gradients", "weights_after")
    files = [f"{name}.{ending}" for name in names for ending in (args.format, "json")]
    with output_directory(args, [*files, "truth.npz"]) as directory:
        assert directory is not None, "--out is required"
        defenses = [parse(text) for text in args.defense]
        dtype = args.dtype or "float32"
        client, truth = simulated_client(args, dtype=dtype, defenses=defenses, local=local)
        written = {"ending": args.format, "reduction": reduction, "steps": steps}
        with undisturbed():
            paths = write_client(directory, client, truth, **written)
    if not args.quiet:
        asked = " ".join(f"{options.flag(path.stem)} {path}" for path in paths)
        if args.model is not None and args.model.endswith(SUFFIX):
            asked = f"--model {args.model} {asked}"
        say(f"attack it: tinyleak attack {asked}")
        say(f"its images and labels, which it keeps to itself: {directory / 'truth.npz'}")
    return 0


def _refuse_mixtures(args: argparse.Namespace) -> None:
    """Refuse, with ValueError, what files could not tell, or what does not go together."""
    if args.model not in (None, *MODELS) and not args.model.endswith(SUFFIX):
        raise ValueError(
            f"--model {args.model} cannot be told from files, so its client's could not be "
            f"attacked; choose from {', '.join(MODELS)}"
        )
    if args.defense and args.reduction == "sum":
        raise ValueError(
            "--defense protects a mean over the batch, but --reduction sum was given; leave one of "
            "the two out"
        )
    for name in ("learning_rate", "local_batch", "momentum"):
        if args.local_steps is args.epochs is None and getattr(args, name) is not None:
            raise ValueError(
                f"{options.flag(name)} is of --local-steps, but a gradient is to be shared; give "
                "how many steps, or leave it out"
            )

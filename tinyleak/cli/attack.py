"""`tinyleak attack`: a client shares its gradient, and the attack recovers its images.

The client is simulated, so that the truth can judge; or a real one's files are given, and then
what was found is judged by whether it explains the gradient.
"""

import argparse
from pathlib import Path
from typing import Any

from tinyleak.attacks import Attacker, Problem, Settings, attack, problem_of
from tinyleak.cli import options
from tinyleak.cli.attack_result import FILES, Result
from tinyleak.cli.interrupts import undisturbed
from tinyleak.cli.output import add_output_options, end, output_directory, say
from tinyleak.cli.progress import bar_on_terminal, progress_bar
from tinyleak.cli.simulated import simulated_client
from tinyleak.client import Client, Notes, Truth
from tinyleak.client.local import MOST_STEPS, STEPS
from tinyleak.data.networks import SUFFIX
from tinyleak.defenses import parse

NAME = "attack"
SUMMARY = "recover a client's images from the gradient that it shares"

ONLY_SIMULATED = ("data", "image", "data_dir", "index", "label", "init")
ONLY_FILES = (
    *("gradients", "rename", "reduction", "loss", "normalize"),
    *("weights_after", "learning_rate", *STEPS),
)
"""Options that describe the one kind of client, or the other."""

WEIGHTS = {
    "weights": "its weights, .safetensors or .npz by parameter name, as a state_dict is saved",
    "gradients": "the gradient that it shared, likewise",
    "weights_after": "instead of a gradient: its weights after it has trained with --learning-rate",
}
NOTES = {
    "learning_rate": "of its steps of SGD",
    "local_steps": f"how many they were, {MOST_STEPS} at most (default: as the notes say, else 1)",
    "epochs": "instead: how often they went through the batch",
    "local_batch": "images of the mini-batch of each, in the same order in each epoch (default: as "
    "the notes say, else all)",
    "momentum": "of the steps (default: as the notes say, else 0)",
    "reduction": "how the client's loss goes over the batch (default: as the notes say, else told "
    "by the gradient, which also tells a constant factor)",
    **options.TRAINING,
}
START = {
    "start": "what the first start is: noise as in the paper; features, for one image, what has "
    "the features that a linear layer shows; or recursion, what can be read off the gradient of a "
    "LeNet or MLP layer by layer, which needs --labels infer or known and few images: two of the "
    "default LeNet (default: features where a layer shows as many as there are pixels, or the "
    "network of an image has kinks, else noise)"
}
SMOOTHNESS = {
    "smoothness": "prefer images of little total variation; 3 helps against noise (default: 0, not)"
}
RUN = {
    "seed": "decides the weights and the noise that the attack starts from (default: 0)",
    "method": "what minimises the distance: L-BFGS as in the paper; Levenberg-Marquardt, which "
    "takes batches to the rounding error, with labels inferred where that can be trusted; the one "
    "to finish after the other; records, which takes a batch apart at the network's first linear "
    "layer; or auto, what suits the client (default: auto for a batch, else lbfgs)",
    "restarts": "starts that are run side by side; the nearest counts (default: 1)",
    "device": "(default: cpu)",
}
READING = "reading what the gradient shows; past kinks for minutes, and Ctrl-C keeps the best"
"""What is said before there are iterations to count."""

AWARE = (
    "the attacker knows the defences: it matches only what survived pruning, weighs the rest by "
    "how exactly it is known, and matches the direction alone after clipping"
)
LABELS = (
    "find the labels with the images, read them off the last layer's gradient first, or be told "
    "them (default: optimise; with files infer, where that can be trusted)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options.add_client_options(parser)
    group = parser.add_argument_group(
        "a client's files, instead of a simulated client",
        "--shape, --classes, --batch, --model and --activation then describe it; what they leave "
        "out is taken from the notes about the files, or as by default",
    )
    options.add_options(group, Client.from_files, WEIGHTS)
    options.add_rename_option(group)
    options.add_options(group, Notes, NOTES)
    options.add_recipe_options(parser)
    group = parser.add_argument_group("what the client does about it, and what the attacker knows")
    options.add_defense_option(group)
    group.add_argument("--aware", action="store_true", help=AWARE)
    group.add_argument("--labels", choices=("optimise", "infer", "known"), help=LABELS)
    options.add_options(group, Settings, SMOOTHNESS)
    options.add_options(group, Attacker, START)
    options.add_options(parser.add_argument_group("how it is run"), Attacker, RUN)
    add_output_options(parser, ", ".join(FILES))


def run(args: argparse.Namespace) -> int:
    """Attack, judge, write, summarise: 0 if it succeeded, else 1.

    A simulated client is judged by the truth; one known by its files by the shared gradient, and
    then success is to explain it so well that the images are expected to be right.
    """
    shared = args.gradients or args.weights_after
    if args.weights is None and shared and str(args.model).endswith(SUFFIX):
        args.weights = Path(args.model)  # a network is saved with its weights
    refuse_mixtures(args)
    with output_directory(args, FILES) as directory:
        with bar_on_terminal(quiet=args.quiet, bar_format="{desc}", desc=READING, leave=False):
            truth, problem = meet(args)
        inference, settings = problem.inference, problem.settings
        if args.labels == "infer" and inference is not None and inference.warning is not None:
            say(f"tinyleak: {inference.warning}", error=True)
        images = None if truth is None else truth.images
        with progress_bar(images, settings, quiet=args.quiet) as on_progress:
            found = attack(problem, on_progress=on_progress)
            # Still under the bar, since judging and drawing take seconds.
            with undisturbed():
                precision, dtype = problem.matching.precision, settings.dtype
                explained = problem.client.explain(found, precision=precision, dtype=dtype)
                outcome = explained if truth is None else truth.judge(found)
                result = Result(args, problem, found, outcome, explained)
                if directory is not None:
                    result.write(directory)
    interrupted = found.reason == "interrupted"
    return end(args, result.summary, succeeded=outcome.succeeded, interrupted=interrupted)


def meet(args: argparse.Namespace) -> tuple[Truth | None, Problem]:
    """Return what is to be solved, and the truth, which only a simulated client has."""
    settings, defenses = options.build_settings(args), [parse(text) for text in args.defense]
    truth = None
    if args.weights is None:
        client, truth = simulated_client(args, dtype=settings.dtype, defenses=defenses)
    else:
        files = options.given(Client.from_files, args) | {"rename": dict(args.rename)}
        client = Client.from_files(**files, **options.given(Notes, args))
    labels: dict[str | None, Any] = {"optimise": None, "infer": "infer"}
    labels |= {None: "trusted"} if truth is None else {None: None, "known": truth.labels}
    brought = {**options.given(Attacker, args), "labels": labels[args.labels], "settings": settings}
    if args.aware:
        brought["defenses"] = defenses
    if client.batch > 1 and args.recipe == "default" and args.labels != "optimise":
        brought.setdefault("method", "auto")
    return truth, problem_of(client, Attacker(**brought))


def refuse_mixtures(args: argparse.Namespace) -> None:
    """Refuse options of the one kind of client with the other."""
    if args.aware and not args.defense:
        raise ValueError(
            "--aware is an attacker who knows the client's defences, but there are none; "
            "give them with --defense, or leave it out"
        )
    if args.weights is None:
        why = "the client is simulated; give the weights too"
        options.refuse(
            args, ONLY_FILES, "{} speaks of a client's files, but without --weights " + why
        )
        return
    why = "but --weights are a real one's; leave one of the two out"
    options.refuse(args, ONLY_SIMULATED, "{} describes a simulated client, " + why)
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

"""`tinyleak audit`: what a network's gradient gives away, said before anybody attacks it."""

import argparse
import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak import data
from tinyleak.audit import VARIANCES, audit
from tinyleak.audit.page import as_dict
from tinyleak.audit.words import describe, lines, meaning, table
from tinyleak.cli import options
from tinyleak.cli.audit_text import run_text, write_audit
from tinyleak.cli.output import (
    WIDTH,
    add_output_options,
    output_directory,
    paragraphs,
    readable,
    say,
    written,
)
from tinyleak.client import Client, Fact, Notes, simulate
from tinyleak.client.facts import as_data, in_one_line, knows
from tinyleak.client.file_network import ACTIVATION, MODEL, exported_network, read_network
from tinyleak.client.files import read_like
from tinyleak.client.notes import gather_notes, parse_number
from tinyleak.data import IMAGE_CLASSES, IMAGE_SHAPE, Dataset
from tinyleak.data.networks import SUFFIX
from tinyleak.nn import MLP, LeNet
from tinyleak.nn.init import draw
from tinyleak.nn.models.as_trained import as_trained, network_of
from tinyleak.nn.models.exported import Exported
from tinyleak.nn.models.shapes import MODELS, kind_of
from tinyleak.text import TextClient

NAME = "audit"
SUMMARY = "say what to expect of a network's gradient, without attacking it"

FILES = ("audit.json", "audit.html")
TEXT = "text"

WEIGHTS = {
    "weights": "its weights, .safetensors or .npz by parameter name, as a state_dict is saved "
    "(default: freshly initialised)"
}
VARIANCE = parse_number(
    float, lambda v: 0 <= v < math.inf, "the variance of noise is a number of 0 or more"
)
NETWORK = {
    "shape": f"of an image (default: as the notes say, else {','.join(map(str, IMAGE_SHAPE))})",
    "classes": f"how many there are (default: as the weights say; without any, {IMAGE_CLASSES})",
    "activation": "the weights do not tell (default: as the notes beside them say, or the gradient "
    f"shows, else {ACTIVATION})",
    **options.TRAINING,
}
INIT = {
    "init": "without --weights: from U(-0.5, 0.5), or as PyTorch does by default (default: U)",
    "seed": "without --weights: decides them (default: 0)",
}
WORDS = {
    "vocabulary": "with --model text: its tokens, one a line, so that words are told and not "
    "numbers"
}
BATCH = {
    "batch": "of how many images the client shares the mean gradient (default: as the notes beside "
    "the files say, else 1)"
}
GRADIENTS = {
    "gradients": "a shared gradient, .safetensors or .npz by parameter name: how exact it is, "
    "whose labels it has, and what to expect of it"
}
EXAMPLES = {
    "examples": "typical batches to measure at, at most (default: 5)",
    "rehearsals": "simulated clients, with a typical batch each, on which to try the attack: kinks "
    "that stop it are in no forecast (default: none)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group: Any = parser.add_argument_group("the network")
    options.add_options(group, Client.from_files, WEIGHTS)
    group.add_argument(
        "--model",
        type=_model,
        choices=options.NetworkNames((*MODELS, TEXT)),
        help="net.pt2: your own, as torch.export.save writes it; text: any language model; tells "
        "the words that its gradient names, and the "
        "sentence of a BERT or GPT-2 "
        f"(default: as the notes beside the weights say, else {MODEL})",
    )
    options.add_options(group, Notes, NETWORK)
    options.add_rename_option(group)
    options.add_options(group, simulate, INIT)
    group = parser.add_argument_group("typical images, none of them the client's")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--data",
        choices=data.NAMES,
        default="glyphs",
        help="resized to --shape where need be (default: %(default)s, built-in digits)",
    )
    source.add_argument("--image", metavar="FILE", nargs="+", type=Path, help="image files instead")
    group.add_argument("--data-dir", metavar="DIR", type=Path, help="where the data's files are")
    options.add_options(parser.add_argument_group("words"), TextClient.from_files, WORDS)
    group = parser.add_argument_group("what is asked")
    options.add_options(group, Notes, BATCH)
    options.add_options(group, Client.from_files, GRADIENTS)
    group.add_argument(
        "--noise",
        metavar="V",
        nargs="+",
        type=options.checked(VARIANCE),
        default=list(VARIANCES),
        help="forecast for noise of these variances on the gradient "
        f"(default: {VARIANCES[0]:g} to {VARIANCES[-1]:g})",
    )
    options.add_options(group, audit, EXAMPLES)
    add_output_options(parser, " and ".join(FILES), quiet="print nothing")


def run(args: argparse.Namespace) -> int:
    """Measure, say, write: 0 if that could be done."""
    with output_directory(args, FILES) as directory:
        run = run_text if args.model == TEXT else run_images
        said, interrupted = run(args, directory)
    if not args.quiet:
        say(said)
        say(f"\nfiles: {written(directory, FILES, ' and '.join(FILES))}")
    if interrupted:
        say("tinyleak: interrupted; the audit is of what was measured by then", error=True)
    return 1 if interrupted else 0


def run_images(args: argparse.Namespace, directory: Path | None) -> tuple[str, bool]:
    """Audit a network that looks at images, write the files, and return what there is to say.

    Beside it, whether Ctrl-C came before all was measured.
    """
    why = "{} names words, which only --model text has; give that, or leave it out"
    options.refuse(args, ["vocabulary"], why)
    audited = _audited(args)
    client = audited["client"] if isinstance(audited["client"], Client) else None
    model: Any = audited["client"] if client is None else client.model
    images = _typical(args, model.image_shape)
    many: dict[str, Any] = {"examples": args.examples or 5, "rehearsals": args.rehearsals or 0}
    found = audit(**audited, images=images, variances=args.noise, **many)
    init, seed = (args.init or "U", args.seed or 0) if _drawn(args, model) else (None, None)
    origin = "its own weights" if args.weights is None else f"weights {args.weights}"
    origin = origin if init is None else f"init {init}, seed {seed}"
    subject = describe(found, origin)
    said = {"audited": subject, **lines(found)}
    known = None
    if client is not None:
        told = found.shared is not None and found.shared.labels is not None
        labels = Fact("those of the last layer", "read off")
        known = knows(client, labels if told else Fact("those of typical images", "assumed"))
        facts = {topic: str(fact) for topic, fact in client.facts.items()}
        own = [facts.pop(topic) for topic in ("network", "activation") if topic in facts]
        said |= {"loss": str(client.loss.fact), **facts}
        said |= {"network": "; ".join(own)} if own else {}
        said["knows"] = in_one_line(known)
    if directory is not None:
        loss = None if client is None else client.loss
        settings = {
            "weights": readable(args.weights),
            "gradients": readable(args.gradients),
            "model": kind_of(network_of(model)),
            "image_shape": model.image_shape,
            "classes": model.classes,
            "activation": model.activation,
            "init": init,
            "seed": seed,
            "data": args.data if args.image is None else None,
            "data_dir": readable(args.data_dir),
            "image": None if args.image is None else [readable(path) for path in args.image],
            "batch": found.counting.batch,
            "loss": None if loss is None else {"factor": loss.factor, "known": str(loss.fact)},
            "noise": args.noise,
            **many,
        }
        more = {} if known is None else {"knows": as_data(known)}
        write_audit(directory, found, as_dict(found), subject, settings, **more)
    text = f"{paragraphs(said)}\n\n{table(found)}\n{textwrap.fill(meaning(found), WIDTH)}"
    return text, found.interrupted


def _audited(args: argparse.Namespace) -> dict[str, Any]:
    """Return the client, or the network, its weights and the batch, as `audit` takes them."""
    said, rename = Notes(**options.given(Notes, args)), dict(args.rename)
    if args.weights is not None:
        why = "but they come from --weights; leave one of the two out"
        options.refuse(args, ["init", "seed"], "{} says how weights are drawn, " + why)
        if args.gradients is not None:
            files = {"weights": args.weights, "gradients": args.gradients, "rename": rename}
            return {"client": Client.from_files(**files, **options.given(Notes, args))}
        known = gather_notes(args.weights).under(said)
        model, params = read_network(args.weights, known, rename, known.batch or 1)
    else:
        known = gather_notes(args.gradients).under(said)
        model = _named_network(args)
        if isinstance(model, Exported) and not _drawn(args, model):
            params = model.weights
        else:
            rng = np.random.default_rng([args.seed or 0, 0])
            params = draw(model.shapes, rng, options.SCHEMES[args.init or "U"])
        if args.gradients is not None:
            facts = {} if known.batch else {"batch": Fact("1 image", "assumed")}
            if args.activation is None and isinstance(model, LeNet | MLP):
                facts["activation"] = Fact(model.activation, "assumed")
            told = {name: getattr(known, name) for name in ("reduction", "loss", "normalize")}
            shared = read_like(model, args.gradients, rename, "gradients")
            batch = known.batch or 1
            return {"client": Client.of(model, params, shared, batch=batch, facts=facts, **told)}
    trained = as_trained(model, known.loss or "cross-entropy", known.normalize)
    return {"client": trained, "params": params, "batch": known.batch}


def _drawn(args: argparse.Namespace, model: Any) -> bool:
    """Return whether the weights are drawn: they are not in a file, or others were asked for."""
    asked = args.init is not None or args.seed is not None
    return args.weights is None and (asked or not isinstance(network_of(model), Exported))


def _named_network(args: argparse.Namespace) -> LeNet | MLP | Exported:
    """Return the network of a name, or in a file, whose weights are not given."""
    if args.model is not None and args.model.endswith(SUFFIX):
        return exported_network(args.model, Notes(**options.given(Notes, args)))
    kind, shape = MODELS[args.model or MODEL], args.shape or IMAGE_SHAPE
    return kind(shape, args.classes or IMAGE_CLASSES, args.activation or ACTIVATION)


def _typical(args: argparse.Namespace, shape: tuple[int, int, int]) -> Dataset:
    """Return where the typical images come from. Files have no labels."""
    if args.image is None:
        return data.load(args.data, data_dir=args.data_dir)
    images = data.choose(image=args.image, data_dir=args.data_dir, shape=shape).images
    names = ", ".join(path.name for path in args.image)
    return Dataset(names, images, np.zeros(len(images), np.int64), 1)


def _model(text: str) -> str:
    """Turn down the one network for images that cannot be audited, and say why."""
    if text == "resnet":
        raise argparse.ArgumentTypeError(
            "a ResNet is not audited: its Jacobian takes minutes an image, and files do not tell "
            f"its size; choose {', '.join(MODELS)} or {TEXT}, or attack one by tinyleak attack"
        )
    return text

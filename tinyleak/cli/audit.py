"""`tinyleak audit`: what a network's gradient gives away, said before anybody attacks it."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak import __version__, data
from tinyleak.audit import audit, typical, write_page
from tinyleak.audit.audit import VARIANCES
from tinyleak.audit.page import as_dict
from tinyleak.audit.words import lines, meaning, table
from tinyleak.backend import Array
from tinyleak.cli.audit_text import run_text
from tinyleak.cli.files import (
    ACTIVATION,
    Notes,
    add_rename_option,
    gather_notes,
    read_matching,
    read_network,
)
from tinyleak.cli.loss import Loss, read_loss
from tinyleak.cli.options import (
    IMAGE_CLASSES,
    IMAGE_SHAPE,
    SCHEMES,
    image_shape,
    whole_number,
)
from tinyleak.cli.output import output_directory
from tinyleak.cli.paragraphs import WIDTH, paragraphs
from tinyleak.cli.result import readable
from tinyleak.data import Dataset
from tinyleak.nn import ACTIVATIONS
from tinyleak.nn.init import draw
from tinyleak.nn.models import Network
from tinyleak.nn.models.shapes import MODELS
from tinyleak.report import write_json

NAME = "audit"
SUMMARY = "say what to expect of a network's gradient, without attacking it"

FILES = ("audit.json", "audit.html")
TEXT = "text"
MODEL = "lenet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    _network_options(parser)
    _image_options(parser)
    _text_options(parser)
    group = parser.add_argument_group("what is asked")
    group.add_argument(
        "--batch",
        metavar="N",
        type=whole_number(1),
        help="of how many images the client shares the mean gradient (default: as the notes beside "
        "the files say, else 1)",
    )
    group.add_argument(
        "--gradients",
        metavar="G",
        type=Path,
        help="a shared gradient, .safetensors or .npz by parameter name: how exact it is, whose "
        "labels it has, and what to expect of it",
    )
    group.add_argument(
        "--noise",
        metavar="V",
        nargs="+",
        type=_variance,
        default=list(VARIANCES),
        help="forecast for noise of these variances on the gradient "
        f"(default: {VARIANCES[0]:g} to {VARIANCES[-1]:g})",
    )
    group.add_argument(
        "--examples",
        metavar="M",
        type=whole_number(1),
        default=5,
        help="typical batches to measure at, at most (default: %(default)s)",
    )
    group = parser.add_argument_group("what comes out")
    group.add_argument(
        "--out", metavar="DIR", type=Path, help=f"a new directory for {' and '.join(FILES)}"
    )
    group.add_argument("--force", action="store_true", help="write into DIR even if it exists")
    group.add_argument("--quiet", action="store_true", help="print nothing")


def _network_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the network")
    group.add_argument(
        "--weights",
        metavar="W",
        type=Path,
        help="its weights, .safetensors or .npz by parameter name, as a state_dict is saved "
        "(default: freshly initialised)",
    )
    group.add_argument(
        "--model",
        choices=(*MODELS, TEXT),
        help="text: any language model, of which only the words that its gradient names are told "
        f"(default: as the notes beside the weights say, else {MODEL})",
    )
    group.add_argument(
        "--shape",
        metavar="C,H,W",
        type=image_shape,
        help=f"of an image (default: as the notes say, else {','.join(map(str, IMAGE_SHAPE))})",
    )
    group.add_argument(
        "--classes",
        metavar="K",
        type=whole_number(1),
        help=f"how many there are (default: as the weights say; without any, {IMAGE_CLASSES})",
    )
    group.add_argument(
        "--activation",
        choices=ACTIVATIONS,
        help=f"the weights do not tell (default: as the notes beside them say, else {ACTIVATION})",
    )
    add_rename_option(group)
    group.add_argument(
        "--init",
        choices=SCHEMES,
        help="without --weights: from U(-0.5, 0.5), or as PyTorch does by default (default: U)",
    )
    group.add_argument(
        "--seed",
        metavar="S",
        type=whole_number(0),
        help="without --weights: decides them (default: 0)",
    )


def _text_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("words")
    group.add_argument(
        "--vocabulary",
        metavar="FILE",
        type=Path,
        help="with --model text: its tokens, one a line, so that words are told and not numbers",
    )


def _image_options(parser: argparse.ArgumentParser) -> None:
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


def run(args: argparse.Namespace) -> int:
    """Measure, say, write: 0 if that could be done.

    Raises:
        ValueError: a request that cannot be met.
        OSError: files that cannot be read or written.
    """
    with output_directory(args.out, force=args.force) as directory:
        said = run_text(args, directory) if args.model == TEXT else _run_images(args, directory)
    if not args.quiet:
        print(said)
        if directory is None:
            print(f"\nfiles: none (--out DIR writes {' and '.join(FILES)})")
        else:
            print(f"\nfiles: {directory}: {', '.join(FILES)}")
    return 0


def _run_images(args: argparse.Namespace, directory: Path | None) -> str:
    """Audit a network that looks at images, write the files, and return what there is to say."""
    if args.vocabulary is not None:
        raise ValueError("--vocabulary names words, which only --model text has; leave it out")
    notes = gather_notes(args.weights, args.gradients)
    batch = args.batch or notes.batch or 1
    model, params = _network(args, notes, batch)
    gradients, loss = _gradients(args, notes, model, params, batch)
    source = _source(args, model)
    images = typical(model, params, source, labelled=args.image is None)
    found = audit(
        model,
        params,
        images.images,
        images.labels,
        batch=batch,
        gradients=gradients,
        examples=args.examples,
        variances=args.noise,
    )
    labelled = args.image is None and source.classes == model.classes
    subject = _subject(args, model, batch, labelled)
    if directory is not None:
        settings = _settings(args, model, batch, loss)
        result = {**as_dict(found), "settings": settings, "versions": {"tinyleak": __version__}}
        write_json(directory / "audit.json", result)
        write_page(directory / "audit.html", found, subject=subject)
    said = paragraphs({"audited": subject, **lines(found), **({"loss": loss.said} if loss else {})})
    return f"{said}\n\n{table(found)}\n{textwrap.fill(meaning(found), WIDTH)}"


def _network(
    args: argparse.Namespace, notes: Notes, batch: int
) -> tuple[Network, dict[str, Array]]:
    """Return the network and its weights: from a file, or as they are before any training."""
    if args.weights is None:
        model = MODELS[args.model or MODEL](
            args.shape or IMAGE_SHAPE, args.classes or IMAGE_CLASSES, args.activation or ACTIVATION
        )
        rng = np.random.default_rng([args.seed or 0, 0])
        return model, draw(model.shapes, rng, SCHEMES[args.init or "U"])
    if args.init is not None or args.seed is not None:
        raise ValueError(
            "--init and --seed say how weights are drawn, but they come from --weights; leave one "
            "of the two out"
        )
    return read_network(args, notes, batch)


def _gradients(
    args: argparse.Namespace,
    notes: Notes,
    model: Network,
    params: Mapping[str, Array],
    batch: int,
) -> tuple[dict[str, Array] | None, Loss | None]:
    """Return the shared gradient of the mean loss, if there is one, and how its loss is known."""
    if args.gradients is None:
        return None, None
    shared = read_matching(args, model, args.gradients, "gradients")
    loss = read_loss(notes.reduction, model, params, shared, batch, steps=1)
    return {name: array / loss.factor for name, array in shared.items()}, loss


def _source(args: argparse.Namespace, model: Network) -> Dataset:
    """Return where the typical images come from."""
    if args.image is None:
        return data.load(args.data, data_dir=args.data_dir)
    if args.data_dir is not None:
        raise ValueError(
            "--data-dir is where data like mnist has its files, but an --image was given; leave "
            "one of the two out"
        )
    images = np.stack([data.load_image(path, model.image_shape) for path in args.image])
    return Dataset("image", images, np.zeros(len(images), np.int64), 1)


def _subject(args: argparse.Namespace, model: Network, batch: int, labelled: bool) -> str:
    """Return the line that says what was audited."""
    init, seed = args.init or "U", args.seed or 0
    weights = f"weights {args.weights}" if args.weights else f"init {init}, seed {seed}"
    shape = "x".join(map(str, model.image_shape))
    many = "1 image" if batch == 1 else f"{batch} images"
    typical = args.data if args.image is None else ", ".join(path.name for path in args.image)
    return (
        f"{_name(model)} with {model.activation}, {weights}; gradients of {many} of {shape}, "
        f"{model.classes} classes; typical images: {typical}"
        + ("" if labelled else ", labelled by the network itself")
    )


def _name(model: Network) -> str:
    return next(name for name, kind in MODELS.items() if isinstance(model, kind))


def _settings(
    args: argparse.Namespace, model: Network, batch: int, loss: Loss | None
) -> dict[str, Any]:
    fresh = args.weights is None
    return {
        "weights": readable(args.weights),
        "gradients": readable(args.gradients),
        "model": _name(model),
        "image_shape": model.image_shape,
        "classes": model.classes,
        "activation": model.activation,
        "init": (args.init or "U") if fresh else None,
        "seed": (args.seed or 0) if fresh else None,
        "data": args.data if args.image is None else None,
        "data_dir": readable(args.data_dir),
        "image": None if args.image is None else [readable(path) for path in args.image],
        "batch": batch,
        "loss": None if loss is None else {"factor": loss.factor, "known": loss.said},
        "noise": args.noise,
        "examples": args.examples,
    }


def _variance(text: str) -> float:
    """Parse the variance of noise."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no variance of 0 or more")
    return number

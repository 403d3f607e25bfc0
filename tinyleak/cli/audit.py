"""`tinyleak audit`: what a network's gradient gives away, said before anybody attacks it."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from tinyleak import data
from tinyleak.audit.forecasting import VARIANCES
from tinyleak.cli.audit_images import MODEL, run_images
from tinyleak.cli.audit_text import run_text
from tinyleak.cli.options import SCHEMES, add_rename_option, image_shape, whole_number
from tinyleak.cli.output import add_output_options, output_directory, written
from tinyleak.client.files import ACTIVATION
from tinyleak.data import IMAGE_CLASSES, IMAGE_SHAPE
from tinyleak.nn import ACTIVATIONS
from tinyleak.nn.models.shapes import MODELS

NAME = "audit"
SUMMARY = "say what to expect of a network's gradient, without attacking it"

FILES = ("audit.json", "audit.html")
TEXT = "text"


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
    add_output_options(parser, " and ".join(FILES), quiet="print nothing")


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
        type=_model,
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
        said = run_text(args, directory) if args.model == TEXT else run_images(args, directory)
    if not args.quiet:
        print(said)
        print(f"\nfiles: {written(directory, FILES, ' and '.join(FILES))}")
    return 0


def _model(text: str) -> str:
    """Turn down the one network for images that cannot be audited, and say why."""
    if text == "resnet":
        raise argparse.ArgumentTypeError(
            "a ResNet is not audited: its Jacobian takes minutes an image, and files do not tell "
            f"its size; choose {', '.join(MODELS)} or {TEXT}, or attack one by tinyleak attack"
        )
    return text


def _variance(text: str) -> float:
    """Parse the variance of noise."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no variance of 0 or more")
    return number

"""`tinyleak page`: an HTML page in which a drawing is shared as a gradient, and comes back."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinyleak.cli.options import SCHEMES, whole_number
from tinyleak.nn import ACTIVATIONS
from tinyleak.nn.models.shapes import MODELS
from tinyleak.page import write_page
from tinyleak.page.build import BATCHES

NAME = "page"
SUMMARY = "write a page in which one draws a digit and watches it leak, live, in a browser"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("the client's network")
    text = "the paper's LeNet, or a perceptron (default: %(default)s)"
    group.add_argument("--model", choices=MODELS, default="lenet", help=text)
    text = "(default: %(default)s)"
    group.add_argument("--activation", choices=ACTIVATIONS, default="sigmoid", help=text)
    text = (
        "untrained weights from U(-0.5, 0.5), or as PyTorch does by default (default: %(default)s)"
    )
    group.add_argument("--init", choices=SCHEMES, default="U", help=text)
    text = "decides its weights (default: %(default)s)"
    group.add_argument("--seed", metavar="N", type=whole_number(0), default=0, help=text)
    text = "how many pictures a batch may have (default: %(default)s)"
    parser.add_argument("--batch", type=int, choices=BATCHES, default=2, help=text)
    group = parser.add_argument_group("what comes out")
    text = "the page, such as leak.html"
    group.add_argument("--out", metavar="FILE", type=Path, required=True, help=text)
    group.add_argument("--force", action="store_true", help="replace FILE if it exists")
    group.add_argument("--quiet", action="store_true", help="print nothing")


def run(args: argparse.Namespace) -> int:
    """Write the page, and say how to open it: 0 if that could be done.

    Raises:
        ValueError: a seed below 0.
        OSError: the file exists already, or cannot be written.
    """
    if args.out.exists() and not args.force:
        raise FileExistsError(
            f"{args.out} exists already; choose another --out, or replace it with --force"
        )
    if not args.quiet:
        print("training the network on digits, for some seconds …", flush=True)
    model = MODELS[args.model](activation=args.activation)
    write_page(args.out, model, init=SCHEMES[args.init], batch=args.batch, seed=args.seed)
    if not args.quiet:
        print(
            f"open it with a double click, or: python -m webbrowser {args.out.resolve().as_uri()}"
        )
        print("it needs nothing else, and no network: send it, or put it on any web page")
    return 0

"""`tinyleak page`: an HTML page in which a drawing is shared as a gradient, and comes back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tinyleak.cli.options import SCHEMES, whole_number
from tinyleak.data.networks import load_network
from tinyleak.nn import ACTIVATIONS
from tinyleak.nn.models.exported import Exported
from tinyleak.nn.models.shapes import MODELS
from tinyleak.page import write_page
from tinyleak.page.build import BATCHES

NAME = "page"
SUMMARY = "write a page in which one draws a digit and watches it leak, live, in a browser"

USUAL = "lenet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("the client's network")
    text = (
        "the paper's LeNet, a perceptron, or any network for digits that torch.export wrote, with "
        f"the weights in it (default: {USUAL})"
    )
    group.add_argument("--model", metavar="lenet|mlp|net.pt2", default=USUAL, help=text)
    text = "(default: sigmoid)"
    group.add_argument("--activation", choices=ACTIVATIONS, help=text)
    text = "untrained weights from U(-0.5, 0.5), or as PyTorch does by default (default: U)"
    group.add_argument("--init", choices=SCHEMES, help=text)
    text = "decides its weights (default: 0)"
    group.add_argument("--seed", metavar="N", type=whole_number(0), help=text)
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
        ValueError: a network that is unknown, or that does not read digits.
        OSError: the file exists already, or cannot be written.
    """
    if args.out.exists() and not args.force:
        raise FileExistsError(
            f"{args.out} exists already; choose another --out, or replace it with --force"
        )
    batch, model = args.batch, _network(args)
    if isinstance(model, Exported):
        write_page(args.out, model, params=model.weights, batch=batch)
    else:
        if not args.quiet:
            print("training the network on digits, for some seconds …", flush=True)
        init = SCHEMES[args.init or "U"]
        write_page(args.out, model, init=init, batch=batch, seed=args.seed or 0)
    if not args.quiet:
        print(
            f"open it with a double click, or: python -m webbrowser {args.out.resolve().as_uri()}"
        )
        print("it needs nothing else, and no network: send it, or put it on any web page")
    return 0


def _network(args: argparse.Namespace) -> Any:
    """Return the network that was asked for.

    Raises:
        ValueError: it is of no known kind; or a file, and options describe another.
        OSError: the file is not there.
    """
    if args.model in MODELS:
        return MODELS[args.model](activation=args.activation or "sigmoid")
    if not args.model.endswith(".pt2"):
        raise ValueError(
            f"--model {args.model} is unknown; choose {', '.join(MODELS)}, or give a file net.pt2"
        )
    for name in ("activation", "init", "seed"):
        if getattr(args, name) is not None:
            raise ValueError(
                f"--{name} describes a network of ours, but {args.model} has its own; leave one of "
                "the two out"
            )
    return load_network(args.model)

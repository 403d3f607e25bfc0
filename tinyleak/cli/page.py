"""`tinyleak page`: an HTML page in which a drawing is shared as a gradient, and comes back."""

import argparse
from pathlib import Path
from typing import Any

from tinyleak.cli import options
from tinyleak.cli.output import say
from tinyleak.client import Notes
from tinyleak.data.networks import SUFFIX, load_network
from tinyleak.nn.models.exported import Exported
from tinyleak.nn.models.shapes import MODELS
from tinyleak.page import write_page
from tinyleak.page.build import BATCHES

NAME = "page"
SUMMARY = "write a page in which one draws a digit and watches it leak, live, in a browser"

USUAL = "lenet"
MODEL = (
    "the paper's LeNet, a perceptron, or any network for digits that torch.export wrote, with the "
    f"weights in it (default: {USUAL})"
)
INIT = {
    "init": "untrained weights from U(-0.5, 0.5), or as PyTorch does by default (default: U)",
    "seed": "decides its weights (default: 0)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("the client's network")
    group.add_argument("--model", metavar="lenet|mlp|net.pt2", default=USUAL, help=MODEL)
    options.add_options(group, Notes, {"activation": "(default: sigmoid)"})
    options.add_options(group, write_page, INIT)
    text = "how many pictures a batch may have (default: %(default)s)"
    parser.add_argument("--batch", type=int, choices=BATCHES, default=2, help=text)
    group = parser.add_argument_group("what comes out")
    text = "the page, such as leak.html"
    group.add_argument("--out", metavar="FILE", type=Path, required=True, help=text)
    group.add_argument("--force", action="store_true", help="replace FILE if it exists")
    group.add_argument("--quiet", action="store_true", help="print nothing")


def run(args: argparse.Namespace) -> int:
    """Write the page, and say how to open it: 0 if that could be done."""
    if args.out.exists() and not args.force:
        raise FileExistsError(
            f"{args.out} exists already; choose another --out, or replace it with --force"
        )
    model = _network(args)
    asked = options.given(write_page, args) | {"path": args.out, "model": model}
    if isinstance(model, Exported):
        asked["params"] = model.weights
    else:
        asked["init"] = options.SCHEMES[args.init or "U"]
        if not args.quiet:
            say("training the network on digits, for some seconds …")
    write_page(**asked)
    if not args.quiet:
        say(f"open it with a double click, or: python -m webbrowser {args.out.resolve().as_uri()}")
        say("it needs nothing else, and no network: send it, or put it on any web page")
    return 0


def _network(args: argparse.Namespace) -> Any:
    """Return the network that was asked for."""
    if args.model in MODELS:
        return MODELS[args.model](activation=args.activation or "sigmoid")
    if not args.model.endswith(SUFFIX):
        raise ValueError(
            f"--model {args.model} is unknown; choose {', '.join(MODELS)}, or give a file net.pt2"
        )
    why = f"but {args.model} has its own; leave one of the two out"
    options.refuse(args, ["activation", "init", "seed"], "{} describes a network of ours, " + why)
    return load_network(args.model)

"""Options that more than one command has, and what they mean once they are parsed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

from tinyleak.attacks import Settings
from tinyleak.nn import MLP, LeNet, ResNet
from tinyleak.nn.models import Network

MODELS: dict[str, type[Network]] = {"lenet": LeNet, "mlp": MLP, "resnet": ResNet}
ACTIVATIONS = ("sigmoid", "tanh", "softplus")
SCHEMES = {"U": "uniform", "default": "default"}
RECIPES: dict[str, Callable[[], Settings]] = {"default": Settings, "paper": Settings.paper}
DEEP_GOAL = 1e-30
"""A deep network's gradient hardly depends on the image: a small distance says little there."""
IMAGE_SHAPE, IMAGE_CLASSES = (1, 28, 28), 10
REDUCTIONS = ("mean", "sum")


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """How the attack goes about it."""
    ours, papers = Settings(), Settings.paper()
    group = parser.add_argument_group("the attack")
    group.add_argument(
        "--recipe",
        choices=RECIPES,
        default="default",
        help="what the next five options are if not given; the default is what succeeds most, "
        "paper is the paper's: raw distance, float32, no line search (default: %(default)s)",
    )
    group.add_argument(
        "--iterations",
        metavar="K",
        type=whole_number(0),
        help=f"iterations at most (default: {ours.iterations}; paper: {papers.iterations} outer "
        "steps of 20)",
    )
    group.add_argument(
        "--goal",
        metavar="D",
        type=float,
        help=f"the distance between gradients at which it is satisfied (default: {ours.goal:g}, "
        f"resnet {DEEP_GOAL:g}; paper: none)",
    )
    group.add_argument(
        "--line-search",
        choices=("strong-wolfe", "none"),
        help=f"(default: {ours.line_search}; paper: {papers.line_search})",
    )
    group.add_argument(
        "--history",
        metavar="M",
        type=whole_number(1),
        help=f"steps that L-BFGS remembers (default: {ours.history}; paper: {papers.history})",
    )
    group.add_argument(
        "--dtype",
        choices=("float64", "float32"),
        help=f"of the client and the attack (default: {ours.dtype}; paper: {papers.dtype})",
    )


def build_settings(args: argparse.Namespace) -> Settings:
    """Return the recipe, with the options that were given in place of its own."""
    given = {
        name: getattr(args, name)
        for name in ("iterations", "goal", "line_search", "history", "dtype")
        if getattr(args, name) is not None
    }
    if args.recipe == "default" and args.model in ("resnet", ["resnet"]):
        given = {"goal": DEEP_GOAL} | given
    return replace(RECIPES[args.recipe](), **given)


def flag(name: str) -> str:
    """Return an option as it is typed, from the name that its value has."""
    return "--" + name.replace("_", "-")


def whole_number(least: int) -> Callable[[str], int]:
    """Return what parses a whole number of `least` or more."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
        return number

    return parse


def image_shape(text: str) -> tuple[int, int, int]:
    """Parse the shape of an image, such as 1,28,28."""
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape C,H,W such as 1,28,28") from None
    return channels, height, width

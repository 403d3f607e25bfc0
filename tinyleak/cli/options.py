"""Options made from the dataclasses and functions that they fill; those that commands share.

An option that is not given is None, and leaves what it fills to its own default.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from tinyleak import data
from tinyleak.attacks import Settings
from tinyleak.attacks.settings import GOALS
from tinyleak.client import Client, LocalSteps, Truth, simulate
from tinyleak.client.notes import parse_rate, parse_shape, parse_whole
from tinyleak.data import IMAGE_CLASSES, IMAGE_SHAPE
from tinyleak.defenses import FORMS, Defense
from tinyleak.nn import MLP, LeNet, ResNet
from tinyleak.nn.models import Network

T = TypeVar("T")

MODELS: dict[str, type[Network]] = {"lenet": LeNet, "mlp": MLP, "resnet": ResNet}
ACTIVATIONS = ("sigmoid", "tanh", "softplus")
SCHEMES = {"U": "uniform", "default": "default"}
RECIPES: dict[str, Callable[[], Settings]] = {"default": Settings, "paper": Settings.paper}

SHAPE = tuple[int, int, int]

DEEP_GOAL = 1e-30
"""A deep network's gradient hardly depends on the image: a small distance says little there."""


class Option(NamedTuple):
    """How something is asked for: what --help says of it, and what its type does not say."""

    help: str
    metavar: str | None = None
    least: int = 0  # of a whole number
    choices: Collection[str] | None = None
    parse: Callable[[str], Any] | None = None


def add_options(group: Any, filled: Callable[..., Any], options: Mapping[str, Option]) -> None:
    """Declare `--some-name` for what a dataclass or a function takes as `some_name`.

    Args:
        group: of a parser.
        filled: the dataclass or function. The type of a field or argument says how it is parsed.
        options: what to ask for, by name.
    """
    hints = get_type_hints(filled)
    for name, option in options.items():
        kinds = {hints[name], *get_args(hints[name])}
        literal = next((one for one in kinds if get_origin(one) is Literal), None)
        choices = option.choices or (None if literal is None else get_args(literal))
        parsers = {int: whole_number(option.least), float: float, SHAPE: image_shape, Path: Path}
        parse = option.parse or next((parsers[one] for one in parsers if one in kinds), None)
        group.add_argument(
            flag(name),
            metavar=option.metavar,
            help=option.help,
            **({"choices": choices} if choices else {"type": parse}),
        )


def given(filled: Callable[..., Any], args: argparse.Namespace) -> dict[str, Any]:
    """Return what was asked for of that which a dataclass or a function takes, by name."""
    told = {name: getattr(args, name, None) for name in signature(filled).parameters}
    return {name: value for name, value in told.items() if value is not None}


def flag(name: str) -> str:
    """Return an option as it is typed, from the name that its value has."""
    return "--" + name.replace("_", "-")


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return a parser whose ValueErrors argparse passes on, word for word."""

    def call(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return call


def whole_number(least: int) -> Callable[[str], int]:
    """Return what parses a whole number of `least` or more."""
    return checked(parse_whole(least))


image_shape, learning_rate = checked(parse_shape), checked(parse_rate)


def renaming(text: str) -> tuple[str, str]:
    """Parse a renaming FROM=TO."""
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise argparse.ArgumentTypeError(f"{text!r} was given; write a renaming as FROM=TO")
    return old, new


def add_rename_option(group: Any) -> None:
    """Declare --rename."""
    group.add_argument(
        "--rename",
        metavar="FROM=TO",
        type=renaming,
        action="append",
        default=[],
        help="what a tensor, or a layer, of the files is called in the model, where names and "
        "shapes leave that open; may be repeated",
    )


def add_defense_option(group: Any) -> None:
    """Declare --defense."""
    group.add_argument(
        "--defense",
        metavar="NAME:STRENGTH",
        action="append",
        default=[],
        help=f"what is done to the gradient before it is shared: {', '.join(FORMS)}; several are "
        "applied in the order given",
    )


OURS, PAPERS = Settings(), Settings.paper()

SETTINGS = {
    "iterations": Option(
        f"iterations at most (default: {OURS.iterations}; paper: {PAPERS.iterations} outer steps "
        "of 20)",
        "K",
    ),
    "goal": Option(
        "the distance between gradients at which it is satisfied (default: "
        f"{', '.join(f'{goal:g} in {dtype}' for dtype, goal in GOALS.items())}, resnet "
        f"{DEEP_GOAL:g}; paper: none)",
        "D",
    ),
    "line_search": Option(f"(default: {OURS.line_search}; paper: {PAPERS.line_search})"),
    "history": Option(
        f"steps that L-BFGS remembers (default: {OURS.history}; paper: {PAPERS.history})", "M", 1
    ),
    "dtype": Option(
        f"of the client and the attack (default: {OURS.dtype}; paper: {PAPERS.dtype})",
        choices=tuple(GOALS),
    ),
}


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """How the attack goes about it."""
    group = parser.add_argument_group("the attack")
    group.add_argument(
        "--recipe",
        choices=RECIPES,
        default="default",
        help="what the next five options are if not given; the default is what succeeds most, "
        "paper is the paper's: raw distance, float32, no line search (default: %(default)s)",
    )
    add_options(group, Settings, SETTINGS)


def build_settings(args: argparse.Namespace) -> Settings:
    """Return the recipe, with the options that were given in place of its own."""
    deep = args.recipe == "default" and args.model in ("resnet", ["resnet"])
    changes = ({"goal": DEEP_GOAL} if deep else {}) | given(Settings, args)
    return replace(RECIPES[args.recipe](), **changes)


CHOICE = {
    "data_dir": Option(
        "where the data's files are (default: the user's cache, into which they are downloaded)",
        "DIR",
    ),
    "shape": Option(
        f"with --image: resize to this (default: {','.join(map(str, IMAGE_SHAPE))}; C is 1 for "
        "grey, 3 for RGB)",
        "C,H,W",
    ),
    "classes": Option(
        f"with --image: how many classes there are (default: {IMAGE_CLASSES})", "K", 1
    ),
    "label": Option("label all of them so (default: as the data says; 0 with --image)", "L"),
}


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Which images a simulated client has: what `data.choose` is told, and which of them."""
    group = parser.add_argument_group("the client's data")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--data",
        choices=data.NAMES,
        help="glyphs: built-in digits; portrait: one built-in RGB photograph; "
        "mnist, cifar100: test splits (default: glyphs)",
    )
    image = {"image": Option("an image file instead", "FILE")}
    add_options(source, data.choose, image)
    add_options(group, data.choose, CHOICE)
    group.add_argument(
        "--index", metavar="I", type=whole_number(0), help="the first image (default: 0)"
    )
    group.add_argument(
        "--batch",
        metavar="N",
        type=whole_number(1),
        help="how many images, I to I+N-1 (default: 1)",
    )


def simulated_client(
    args: argparse.Namespace,
    *,
    dtype: str,
    defenses: Sequence[Defense],
    local: LocalSteps | None = None,
) -> tuple[Client, Truth]:
    """Return the client that was asked for, made up of data and a fresh network, and its truth.

    Raises:
        ValueError: options that do not go together, or damaged files.
        OSError: files that are not there.
    """
    dataset = data.choose(args.data, **given(data.choose, args))
    images, labels = dataset.consecutive(args.index or 0, args.batch or 1)
    kind, activation = MODELS[args.model or "lenet"], args.activation or "sigmoid"
    model = kind(images.shape[1:], dataset.classes, activation)
    return simulate(
        model,
        images,
        labels,
        seed=args.seed or 0,
        init=SCHEMES[args.init or "U"],
        dtype=dtype,
        defenses=defenses,
        local=local,
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which network the client trains."""
    group = parser.add_argument_group("the client's network")
    group.add_argument(
        "--model",
        choices=MODELS,
        help="the paper's LeNet, a perceptron, or ResNet-20 without strides (default: lenet)",
    )
    group.add_argument("--activation", choices=ACTIVATIONS, help="(default: sigmoid)")
    group.add_argument(
        "--init",
        choices=SCHEMES,
        help="weights from U(-0.5, 0.5), or as PyTorch does by default (default: U)",
    )

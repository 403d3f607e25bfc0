"""Options made from the dataclasses and functions that they fill; those that commands share.

An option that is not given is None, and leaves what it fills to its own default.
"""

import argparse
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from tinyleak import data
from tinyleak.attacks import Settings
from tinyleak.attacks.settings import GOALS
from tinyleak.client import Client, Notes, simulate
from tinyleak.client.loss import REDUCTIONS
from tinyleak.client.notes import parse_normalize, parse_rate, parse_shape, parse_whole
from tinyleak.data import IMAGE_CLASSES, IMAGE_SHAPE, Dataset
from tinyleak.data.networks import SUFFIX
from tinyleak.defenses import FORMS
from tinyleak.nn import ACTIVATIONS, MLP, LeNet, ResNet
from tinyleak.nn.criteria import LOSSES
from tinyleak.nn.models import Network

T = TypeVar("T")

MODELS: dict[str, type[Network]] = {"lenet": LeNet, "mlp": MLP, "resnet": ResNet}
SCHEMES = {"U": "uniform", "default": "default"}
RECIPES: dict[str, Callable[[], Settings]] = {"default": Settings, "paper": Settings.paper}
DEVICES = ("cpu", "cuda")

DEEP_GOAL = 1e-30
"""A deep network's gradient hardly depends on the image: a small distance says little there."""


class NetworkNames(tuple[str, ...]):
    """The networks that --model takes: those of these names, and any in a `.pt2` file."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        return iter((*super().__iter__(), f"NAME{SUFFIX}"))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or str(name).endswith(SUFFIX)


CHOICES: dict[str, Collection[str]] = {
    **{"model": NetworkNames(MODELS), "activation": ACTIVATIONS, "init": SCHEMES, "dtype": GOALS},
    **{"reduction": REDUCTIONS, "loss": LOSSES, "device": DEVICES},
}
"""What may be chosen, by the name of the option, where the type does not say it."""

ONE_OR_MORE = {
    *("batch", "classes", "epochs", "examples", "heads", "history", "layers", "local_batch"),
    *("local_steps", "restarts", "width"),
}
"""Whole numbers that are not to be 0."""


def add_options(group: Any, filled: Callable[..., Any], texts: Mapping[str, str]) -> None:
    """Declare `--some-name` for what a dataclass or a function takes as `some_name`.

    The type of a field or argument says how it is parsed, and `texts` what --help says, by name.
    """
    hints = get_type_hints(filled)
    for name, text in texts.items():
        # What is asked for of `int | None` is an int.
        kinds = {hints[name], *get_args(hints[name])}
        literal = next((get_args(one) for one in kinds if get_origin(one) is Literal), None)
        chosen = literal or CHOICES.get(name)
        if chosen:
            group.add_argument(flag(name), choices=chosen, help=text)
            continue
        parsers: dict[Any, tuple[str, Callable[[str], Any]]] = {
            int: ("N", whole_number(int(name in ONE_OR_MORE))),
            float: ("X", learning_rate if name == "learning_rate" else float),
            tuple[int, int, int]: ("C,H,W", image_shape),
            tuple[tuple[float, ...], tuple[float, ...]]: ("MEAN,STD", normalisation),
            **dict.fromkeys((Path, os.PathLike[str]), ("FILE", Path)),
            Sequence[int]: ("T,...", lengths),
        }
        metavar, parse = next(parsers[one] for one in parsers if one in kinds)
        group.add_argument(flag(name), metavar=metavar, type=parse, help=text)


def given(filled: Callable[..., Any], args: argparse.Namespace) -> dict[str, Any]:
    """Return what was asked for of that which a dataclass or a function takes, by name."""
    told = {name: getattr(args, name, None) for name in signature(filled).parameters}
    return {name: value for name, value in told.items() if value is not None}


def flag(name: str) -> str:
    """Return an option as it is typed, from the name that its value has."""
    return "--" + name.replace("_", "-")


def refuse(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raise ValueError if any option of these names was given; `{}` in `why` stands for them."""
    told = [flag(name) for name in names if getattr(args, name) not in (None, [])]
    if told:
        raise ValueError(why.replace("{}", " and ".join(told)))


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
normalisation = checked(parse_normalize)


def lengths(text: str) -> list[int]:
    """Parse the lengths of sentences."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of lengths such as 22,16"
        ) from None


def renaming(text: str) -> tuple[str, str]:
    """Parse a renaming FROM=TO."""
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise argparse.ArgumentTypeError(f"{text!r} was given; write a renaming as FROM=TO")
    return old, new


def add_rename_option(group: Any) -> None:
    """Declare --rename."""
    text = (
        "what a tensor, or a layer, of the files is called in the model, where names and shapes "
        "leave that open; may be repeated"
    )
    group.add_argument(
        "--rename", metavar="FROM=TO", type=renaming, action="append", default=[], help=text
    )


def add_defense_option(group: Any) -> None:
    """Declare --defense."""
    text = (
        f"what is done to the gradient before it is shared: {', '.join(FORMS)}; several are "
        "applied in the order given"
    )
    group.add_argument("--defense", metavar="NAME:STRENGTH", action="append", default=[], help=text)


OURS, PAPERS = Settings(), Settings.paper()

SETTINGS = {
    "iterations": f"iterations at most (default: {OURS.iterations}; paper: {PAPERS.iterations} "
    "outer steps of 20)",
    "goal": "the distance between gradients at which it is satisfied (default: "
    f"{', '.join(f'{goal:g} in {dtype}' for dtype, goal in GOALS.items())}, resnet "
    f"{DEEP_GOAL:g}; paper: none)",
    "line_search": f"(default: {OURS.line_search}; paper: {PAPERS.line_search})",
    "history": f"steps that L-BFGS remembers (default: {OURS.history}; paper: {PAPERS.history})",
    "dtype": f"of the client and the attack (default: {OURS.dtype}; paper: {PAPERS.dtype})",
}


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """How the attack goes about it."""
    text = (
        "what the next five options are if not given; the default is what succeeds most, paper is "
        "the paper's: raw distance, float32, no line search (default: default)"
    )
    group = parser.add_argument_group("the attack")
    group.add_argument("--recipe", choices=RECIPES, default="default", help=text)
    add_options(group, Settings, SETTINGS)


def build_settings(args: argparse.Namespace) -> Settings:
    """Return the recipe, with the options that were given in place of its own."""
    deep = args.recipe == "default" and args.model in ("resnet", ["resnet"])
    changes = ({"goal": DEEP_GOAL} if deep else {}) | given(Settings, args)
    return replace(RECIPES[args.recipe](), **changes)


DATA = {
    "data_dir": "where the data's files are (default: the user's cache, into which they are "
    "downloaded)",
    "shape": f"with --image: resize to this (default: {','.join(map(str, IMAGE_SHAPE))}; C is 1 "
    "for grey, 3 for RGB)",
    "classes": f"with --image: how many classes there are (default: {IMAGE_CLASSES})",
    "label": "label all of them so (default: as the data says; 0 with --image)",
}
BATCH = {
    "index": "the first image (default: 0)",
    "batch": "how many images, from there on (default: 1)",
}
NETWORK = {
    "model": "the paper's LeNet, a perceptron, or ResNet-20 without strides (default: lenet); or "
    "your own, net.pt2, as torch.export.save writes it, with its weights",
    "activation": "(default: sigmoid)",
}
TRAINING = {
    "loss": "the client's (default: as the notes say, else read off the gradient where it tells, "
    "else cross-entropy)",
    "normalize": "what the client normalised its images by: the channels' means, then their "
    "standard deviations, of pixels in [0, 1]; 0,0.00392157 for pixels of 0 to 255 (default: as "
    "the notes say, else read off a first layer that is linear, else not at all)",
}
INIT = {"init": "weights from U(-0.5, 0.5), or as PyTorch does by default (default: U)"}


def add_weights_option(group: Any) -> None:
    """Declare --weights, of a simulated client's own network."""
    text = "with --model net.pt2: its weights, .safetensors or .npz (default: those saved with it)"
    add_options(group, Client.from_files, {"weights": text})


def add_data_options(group: Any, **image: Any) -> None:
    """Declare where images come from; `image` is more of what argparse is to know of --image."""
    source = group.add_mutually_exclusive_group()
    text = (
        "glyphs: built-in digits; portrait: one built-in RGB photograph; mnist, cifar100: test "
        "splits (default: glyphs)"
    )
    source.add_argument("--data", choices=data.NAMES, help=text)
    text = "an image file instead"
    source.add_argument("--image", metavar="FILE", type=Path, help=text, **image)
    add_options(group, data.choose, DATA)


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """Which images a simulated client has, and which network it trains."""
    group = parser.add_argument_group("the client's data")
    add_data_options(group)
    add_options(group, Dataset.consecutive, BATCH)
    group = parser.add_argument_group("the client's network")
    add_options(group, Notes, NETWORK)
    add_options(group, simulate, INIT)

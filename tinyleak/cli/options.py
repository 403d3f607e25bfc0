"""Options that more than one command has, and what they mean once they are parsed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak import data
from tinyleak.attack import Settings
from tinyleak.backend import Array
from tinyleak.data import Dataset
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

SIMULATED: dict[str, Any] = {
    "data": "glyphs",
    "index": 0,
    "batch": 1,
    "model": "lenet",
    "activation": "sigmoid",
    "init": "U",
    "labels": "optimise",
}
"""What a simulated client is like unless its options say otherwise."""


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Which images the client has."""
    group = parser.add_argument_group("the client's data")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--data",
        choices=data.NAMES,
        help="glyphs: built-in digits; portrait: one built-in RGB photograph; "
        "mnist, cifar100: test splits (default: glyphs)",
    )
    source.add_argument("--image", metavar="FILE", type=Path, help="an image file instead")
    group.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        help="where the data's files are (default: the user's cache, into which they are "
        "downloaded)",
    )
    group.add_argument(
        "--shape",
        metavar="C,H,W",
        type=image_shape,
        help="with --image: resize to this (default: "
        f"{','.join(map(str, IMAGE_SHAPE))}; C is 1 for grey, 3 for RGB)",
    )
    group.add_argument(
        "--classes",
        metavar="K",
        type=whole_number(1),
        help=f"with --image: how many classes there are (default: {IMAGE_CLASSES})",
    )
    group.add_argument(
        "--index",
        metavar="I",
        type=whole_number(0),
        help="the first image (default: 0)",
    )
    group.add_argument(
        "--batch",
        metavar="N",
        type=whole_number(1),
        help="how many images, I to I+N-1 (default: 1)",
    )
    group.add_argument(
        "--label",
        metavar="L",
        type=whole_number(0),
        help="label all of them so (default: as the data says; 0 with --image)",
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


def fill_simulated(args: argparse.Namespace) -> None:
    """Give the options of a simulated client that were left out what `SIMULATED` says.

    The parser leaves them None, so that it shows whether they were given.
    """
    for name, default in SIMULATED.items():
        if getattr(args, name, default) is None:
            setattr(args, name, default)


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


def read_data(args: argparse.Namespace) -> Dataset:
    """Return the data that was asked for; an image file is data of one image.

    Raises:
        ValueError: options that do not go together, a label out of range, or damaged files.
        OSError: files that are not there.
    """
    if args.image is None:
        if args.shape is not None or args.classes is not None:
            raise ValueError(
                f"--shape and --classes describe an --image, but data {args.data!r} was chosen, "
                "which has its own; leave them out"
            )
        dataset = data.load(args.data, data_dir=args.data_dir)
    else:
        if args.data_dir is not None:
            raise ValueError(
                "--data-dir is where data like mnist has its files, but an --image was given; "
                "leave one of the two out"
            )
        image = data.load_image(args.image, args.shape or IMAGE_SHAPE)
        dataset = Dataset(
            "image", image[np.newaxis], np.zeros(1, np.int64), args.classes or IMAGE_CLASSES
        )
    if args.label is not None:
        dataset = replace(dataset, labels=np.full(len(dataset), args.label))
    return dataset


def take_batch(args: argparse.Namespace, dataset: Dataset) -> tuple[Array, Array]:
    """Return the images (N, C, H, W) and labels (N,) that were asked for.

    Raises:
        ValueError: an image that the data does not hold.
    """
    last = args.index + args.batch - 1
    if last >= len(dataset):
        raise ValueError(
            f"--index {args.index} with --batch {args.batch} asks for image {last}, but data "
            f"{dataset.name!r} holds images 0 to {len(dataset) - 1}; lower one of them"
        )
    return dataset.batch(range(args.index, last + 1))


def build_model(args: argparse.Namespace, dataset: Dataset) -> Network:
    """Return the network that was asked for, made for the data."""
    _, channels, height, width = dataset.images.shape
    return MODELS[args.model]((channels, height, width), dataset.classes, args.activation)


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

"""A client that is made up: its data and its network, as options describe them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak import data
from tinyleak.backend import Array
from tinyleak.cli.options import (
    ACTIVATIONS,
    IMAGE_CLASSES,
    IMAGE_SHAPE,
    MODELS,
    SCHEMES,
    image_shape,
    whole_number,
)
from tinyleak.client.local import LocalSteps
from tinyleak.client.simulated import Victim, simulate
from tinyleak.data import Dataset
from tinyleak.defenses import Defense
from tinyleak.nn.models import Network

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


def simulated_client(
    args: argparse.Namespace,
    *,
    dtype: str,
    defenses: Sequence[Defense],
    local: LocalSteps | None = None,
) -> tuple[Network, Victim]:
    """Return the network that was asked for, and the client who trains it and shares its gradient.

    Args:
        args: what was asked for, filled in by `fill_simulated`.
        dtype: in which the client computes.
        defenses: what it does to the gradient before it shares it.
        local: steps of SGD that it takes, to share their outcome instead of one gradient.

    Raises:
        ValueError: options that do not go together, or damaged files.
        OSError: files that are not there.
    """
    dataset = read_data(args)
    images, labels = take_batch(args, dataset)
    model = build_model(args, dataset)
    victim = simulate(
        model,
        images,
        labels,
        seed=args.seed,
        scheme=SCHEMES[args.init],
        dtype=dtype,
        defenses=defenses,
        local=local,
    )
    return model, victim

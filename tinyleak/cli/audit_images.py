"""`tinyleak audit` of a network that looks at images: its files, or one as it is initialised."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak import __version__, data
from tinyleak.audit import audit, typical, write_page
from tinyleak.audit.words import lines, meaning, table
from tinyleak.backend import Array
from tinyleak.cli.options import SCHEMES
from tinyleak.cli.output import WIDTH, paragraphs, readable
from tinyleak.client.files import ACTIVATION, read_like, read_network
from tinyleak.client.loss import Loss, read_loss
from tinyleak.client.notes import Notes, gather_notes
from tinyleak.data import IMAGE_CLASSES, IMAGE_SHAPE, Dataset
from tinyleak.nn.init import draw
from tinyleak.nn.models import Network
from tinyleak.nn.models.shapes import MODELS, kind_of
from tinyleak.report import write_json

MODEL = "lenet"
"""What is audited unless something says otherwise."""


def run_images(args: argparse.Namespace, directory: Path | None) -> str:
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
        f"{kind_of(model)} with {model.activation}, {weights}; gradients of {many} of {shape}, "
        f"{model.classes} classes; typical images: {typical}"
        + ("" if labelled else ", labelled by the network itself")
    )


def _settings(
    args: argparse.Namespace, model: Network, batch: int, loss: Loss | None
) -> dict[str, Any]:
    fresh = args.weights is None
    return {
        "weights": readable(args.weights),
        "gradients": readable(args.gradients),
        "model": kind_of(model),
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

"""What the client does to its gradient, and what the attacker makes of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyleak.analytic import LabelInference, LayerGradient, infer_labels
from tinyleak.attacks import Settings
from tinyleak.attacks.recursion import recursion
from tinyleak.backend import Array
from tinyleak.client.simulated import Victim
from tinyleak.defenses import FORMS, Defense, knowledge, parse
from tinyleak.nn.models import MLP, LeNet, Network


@dataclass(frozen=True)
class Attacker:
    """What an attacker brings to one client.

    Attributes:
        settings: how the attack is run.
        labels: the N labels that it goes by, or None to find them with the images.
        precision: what it multiplies each entry's squared difference with, or None.
        inference: where the labels come from, if they were read off the gradient.
    """

    settings: Settings
    labels: list[int] | None
    precision: dict[str, Array] | None
    inference: LabelInference | None


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


def add_attacker_options(parser: argparse.ArgumentParser) -> None:
    """What stands between client and attacker, and what the attacker knows."""
    group = parser.add_argument_group("what the client does about it, and what the attacker knows")
    add_defense_option(group)
    group.add_argument(
        "--aware",
        action="store_true",
        help="the attacker knows the defences: it matches only what survived pruning, weighs the "
        "rest by how exactly it is known, and matches the direction alone after clipping",
    )
    group.add_argument(
        "--smoothness",
        metavar="BETA",
        type=float,
        default=0.0,
        help="prefer images of little total variation; 3 helps against noise (default: 0, not)",
    )
    group.add_argument(
        "--start",
        choices=("noise", "recursion"),
        default="noise",
        help="what the first start is: noise as in the paper, or what can be read off the gradient "
        "of a LeNet or MLP layer by layer, which needs --labels infer or known and few images: "
        "two of the default LeNet (default: %(default)s)",
    )
    group.add_argument(
        "--labels",
        choices=("optimise", "infer", "known"),
        help="find the labels with the images, read them off the last layer's gradient first, or "
        "be told them (default: optimise; with files infer, where that can be trusted)",
    )


def read_defenses(args: argparse.Namespace) -> list[Defense]:
    """Return the defences that were asked for.

    Raises:
        ValueError: one that is none, or knowledge of defences where there are none.
    """
    if args.aware and not args.defense:
        raise ValueError(
            "--aware is an attacker who knows the client's defences, but there are none; "
            "give them with --defense, or leave it out"
        )
    return [parse(text) for text in args.defense]


def equip(
    args: argparse.Namespace,
    model: Network,
    victim: Victim,
    settings: Settings,
    defenses: list[Defense],
) -> Attacker:
    """Return what the attacker that was asked for brings; say so if labels are a guess."""
    settings, precision = aim(args, settings, defenses, victim.gradients, args.batch)
    if args.labels == "infer":
        layer = LayerGradient.last(model, victim.params, victim.gradients, args.batch)
        inference = infer_labels(layer)
        if inference.warning is not None:
            print(f"tinyleak: {inference.warning}", file=sys.stderr)
        return Attacker(settings, inference.labels.tolist(), precision, inference)
    labels = victim.labels.tolist() if args.labels == "known" else None
    return Attacker(settings, labels, precision, None)


def aim(
    args: argparse.Namespace,
    settings: Settings,
    defenses: list[Defense],
    gradients: dict[str, Array],
    batch: int,
) -> tuple[Settings, dict[str, Array] | None]:
    """Return how closely the attacker wants which part of a gradient matched, and how it looks."""
    settings = replace(settings, smoothness=args.smoothness)
    if not args.aware:
        return settings, None
    precision, direction = knowledge(defenses, gradients, batch)
    return replace(settings, direction=direction), precision


def first_images(
    args: argparse.Namespace,
    model: Network,
    params: Mapping[str, Array],
    shared: Mapping[str, Array],
    labels: Sequence[int] | None,
    precision: Mapping[str, Array] | None,
) -> Array | None:
    """Return the images that the attack is to start from, (N, C, H, W), or None for noise.

    Raises:
        ValueError: they cannot be read off the gradient of this network, or labels are not known.
    """
    if args.start == "noise":
        return None
    if labels is None:
        raise ValueError(
            "--start recursion reads images off the gradient, for which labels must be known "
            "first; give --labels infer"
        )
    if not isinstance(model, LeNet | MLP):
        raise ValueError(
            "--start recursion goes backwards through a LeNet or an MLP, not through a "
            f"{type(model).__name__}; leave it out"
        )
    kept = [one[one > 0] for one in (precision or {}).values()]
    # A precision of 1 is that of an entry without noise, beside others that were pruned.
    exact = all(bool((one == 1).all()) for one in kept)
    variance = 0.0 if exact else float(np.mean(1 / np.concatenate(kept)))
    layer = LayerGradient.last(model, params, shared, len(labels))
    return recursion(layer, shared, labels, variance=variance)

"""The problem that an attacker makes of a client: what to minimise, and from where.

All that can be refused is refused here, before any work.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyleak.analytic.known import Records
from tinyleak.analytic.labels import LabelInference
from tinyleak.attacks.attacker import Attacker, Labels, make_attacker
from tinyleak.attacks.distances import StoppedError
from tinyleak.attacks.extended import ExtendedMatching
from tinyleak.attacks.features_first import GOALS, known_label
from tinyleak.attacks.matching import Matching
from tinyleak.attacks.settings import Settings
from tinyleak.attacks.starts import first_images, starting_point
from tinyleak.backend import Array
from tinyleak.client import Client
from tinyleak.client.explanation import MARGIN, MOST_ROUNDING
from tinyleak.defenses import knowledge
from tinyleak.interop import as_array, called
from tinyleak.nn.criteria import dummies_of, one_hot
from tinyleak.nn.fitting import require_fit

GREY, CONTRAST = 0.5, 0.1
"""Mean and standard deviation of the pixels that least squares starts from."""


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """What an attacker makes of a client: what to minimise, and from where."""

    client: Client  # who is attacked
    attacker: Attacker  # by whom
    matching: Matching  # the objective, in the dtype of the settings
    starts: Array  # (restarts, n), dummies to start from, float64
    settings: Settings  # the attacker's, with what follows from the client
    # Where the labels come from, if they were inferred from the gradient.
    inference: LabelInference | None
    seconds: float = 0.0  # how long it took to work this out
    interrupted: bool = False  # whether Ctrl-C came by then: the start is as near as it will get
    # Those of the batch, if all were found when the method was chosen.
    records: Records | None = None

    def __repr__(self) -> str:
        return f"<Problem: {self.client}; {self.attacker}>"

    @property
    def is_plain(self) -> bool:
        """Whether it is the paper's: one start, L-BFGS, on the CPU."""
        attacker = self.attacker
        return len(self.starts) == 1 and attacker.method == "lbfgs" and attacker.device == "cpu"


def meet(
    client: Any,
    params: Mapping[str, Any] | None,
    gradients: Mapping[str, Any] | None,
    batch: int,
    attacker: Attacker | None,
    keywords: Mapping[str, Any],
) -> Problem:
    """Return the problem that `tinyleak.attack` was called with; see there.

    Raises:
        TypeError: neither a client nor its parts; an unknown keyword, or keywords beside an
            attacker.
        ValueError: as `attack`.
    """
    if isinstance(client, Problem) and params is None and attacker is None and not keywords:
        return client
    attacker = make_attacker(attacker, keywords)
    if not isinstance(client, Client):
        if params is None or gradients is None:
            raise TypeError(
                f"attack was given {called(client)} alone; give a Client, or a network "
                "with its weights and gradient"
            )
        client = Client.of(client, params, gradients, batch=batch)
    elif params is not None or gradients is not None or batch != 1:
        raise TypeError(
            "attack was given a Client, and weights, a gradient or a batch besides; the client "
            "has its own: leave them out"
        )
    return problem_of(client, attacker)


def problem_of(client: Client, attacker: Attacker) -> Problem:
    """Work out what an attacker is to minimise, from where.

    Raises:
        ValueError: labels or images that do not fit the client; a gradient of zeros; what cannot
            be combined.
        TypeError: something else in place of a client.
    """
    began = time.perf_counter()
    if not isinstance(client, Client):
        raise TypeError(f"{called(client)} was given as client; give a tinyleak.Client")
    records = None
    if attacker.method == "auto":
        from tinyleak.attacks.method import chosen

        client, attacker, records = chosen(client, attacker)
    settings, precision = apply_knowledge(client, attacker)
    # Where records come apart nothing is minimised, and what they are does not follow the factor.
    squares = attacker.method not in ("lbfgs", "records")
    # Least squares takes hold once labels are settled: what the gradient tells of them is used.
    wanted = attacker.labels
    if wanted is None and attacker.method == "levenberg-marquardt":
        wanted = "trusted"
    targets, inference = _labels(client, wanted)
    if squares and not client.loss.exact:
        raise ValueError(
            f"method {attacker.method} minimises the distance between two gradients, but the "
            f"client's loss is known only as {client.loss.fact}; say its reduction "
            '(--reduction, or Client.of(…, reduction="mean")), or choose method lbfgs'
        )
    if squares and (settings.direction or settings.smoothness or client.local):
        raise ValueError(
            f"method {attacker.method} minimises the distance between two gradients alone; to "
            "match a direction (as after clipping), to prefer smooth images or to go through local "
            "steps, choose method lbfgs"
        )
    matching = _matching(client, targets, precision, settings, squares=squares)
    starts = starting_point(
        client.model, client.batch, attacker.seed, attacker.restarts, with_labels=targets is None
    )
    if squares and attacker.method == "levenberg-marquardt":
        # Within the range that pixels have: the same noise, on a grey.
        pixels = slice(0, matching.image_size)
        starts[:, pixels] = GREY + CONTRAST * starts[:, pixels]
    interrupted = False
    try:
        images = first_images(client, attacker, targets, precision)
    except StoppedError as stopped:
        images, interrupted = stopped.x.reshape(1, *client.model.image_shape), True
        settings = replace(settings, iterations=0)
    if images is not None:
        starts[0, : images.size] = images.ravel()
    by_features = isinstance(attacker.start, str) and attacker.start in ("auto", "features")
    if images is not None and by_features:
        soft = known_label(client, images) if targets is None else targets
        if soft is not None and targets is None:
            starts[0, images.size :] = dummies_of(client.loss.kind, soft).ravel()
        if settings.scale_free and settings.goal is None:
            # Below the rounding of what was shared a distance tells nothing more of the image.
            rounding = 0.0 if soft is None else min((MARGIN * client.roundoff) ** 2, MOST_ROUNDING)
            goal = max(settings.near_enough, GOALS[client.dtype], rounding)
            settings = replace(settings, goal=goal)
    if isinstance(attacker.start, str) and attacker.start == "auto":
        attacker = replace(attacker, start="noise" if images is None else "features")
    seconds = time.perf_counter() - began
    return Problem(
        client, attacker, matching, starts, settings, inference, seconds, interrupted, records
    )


def apply_knowledge(
    client: Client, attacker: Attacker
) -> tuple[Settings, Mapping[str, Array] | None]:
    """Return the attacker's settings for this client, and the precision of each gradient entry."""
    settings = attacker.settings
    precision: Mapping[str, Array] | None = attacker.precision
    direction = settings.direction or not client.loss.exact
    if attacker.defenses:
        known = knowledge(attacker.defenses, client.gradients, client.batch)
        direction = direction or known.direction
        precision = known.precision if precision is None else precision
    precision = client.weigh(precision)
    if precision is not None:
        require_fit(client.model, precision, "precisions")
        if any(bool((array < 0).any()) for array in precision.values()):
            raise ValueError(
                "a precision is negative; give 0 or more for each entry of the gradient"
            )
    return replace(settings, direction=direction), precision


def _matching(
    client: Client,
    targets: Array | None,
    precision: Mapping[str, Array] | None,
    settings: Settings,
    *,
    squares: bool,
) -> Matching:
    model = client.model
    scale = 1.0
    if settings.scale_free:
        size = length(client.gradients, precision)
        if size == 0.0:
            raise ValueError(
                "every shared gradient is zero, or has no precision, so nothing can be read from "
                "it; check that the client's backward pass was run"
            )
        scale = 1.0 / size

    def numbers(array: Any) -> Array:
        return np.asarray(array, dtype=settings.dtype)

    parts: dict[str, Any] = {
        "model": model,
        "params": {name: numbers(array) for name, array in client.params.items()},
        "shared": {name: numbers(scale * g) for name, g in client.gradients.items()},
        "batch": client.batch,
        "scale": numbers(scale),
        "targets": None if targets is None else numbers(targets),
        "precision": None
        if precision is None
        else {name: numbers(precision[name]) for name in model.shapes},
    }
    beyond: dict[str, Any] = {
        "local": client.local,
        "direction": settings.direction,
        "smoothness": settings.smoothness,
    }
    # Least squares takes each label for one class, or for a mixture of some.
    free = client.loss.kind != "cross-entropy" and not squares
    extended = free or any(beyond.values())
    return ExtendedMatching(**parts, **beyond) if extended else Matching(**parts)


def length(gradients: Mapping[str, Array], precision: Mapping[str, Array] | None = None) -> float:
    """Return √Σ precision · gradient², without squaring what is too small or large for it."""
    largest = max(float(np.abs(g).max(initial=0.0)) for g in gradients.values()) or 1.0
    total = 0.0
    for name, gradient in gradients.items():
        squares = np.square(np.asarray(gradient, float) / largest)
        total += float(np.sum(squares if precision is None else squares * precision[name]))
    return largest * math.sqrt(total)


def _labels(client: Client, labels: Labels) -> tuple[Array | None, LabelInference | None]:
    """Return the labels to go by, (N, K), and where they are from, if they were inferred.

    None is to find them with the images.
    """
    if labels is None:
        return None, None
    if isinstance(labels, str):
        if client.local is not None and (client.local.batch or client.batch) < client.batch:
            if labels == "infer":
                raise ValueError(
                    "--labels infer tells which labels a batch has, and not which mini-batch each "
                    "was in; choose optimise"
                )
            return None, None
        if labels == "trusted" and client.targets is None:
            return None, client.labels if client.last_layer is not None else None
        inference = client.labels
        told = one_hot(inference.labels, client.model.classes)
        return (told if client.targets is None else client.targets), inference
    given = as_array(labels)
    if given.shape != (client.batch,):
        several = f"{given.size} labels" if given.ndim == 1 else f"labels of shape {given.shape}"
        raise ValueError(
            f"{several} were given for a batch of {client.batch}; give one each, in a list"
        )
    return one_hot(given, client.model.classes), None

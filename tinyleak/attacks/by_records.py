"""The attack that takes a batch apart, record by record.

Where the network's first layer is linear, its inputs are the images, and its gradient shows each of
them (see `tinyleak.analytic.records`): nothing is matched, and what is found is certified. Where
layers of another kind come before, as in most networks for images, it shows the features of each,
and the image is then found alone, by its features.
"""

import math
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import prod

import numpy as np

from tinyleak.analytic.deltas import Deltas
from tinyleak.analytic.known import Records, StoppedSearchError
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.attacks.attacker import Labels
from tinyleak.attacks.by_largest import exactly_by_largest
from tinyleak.attacks.distances import StoppedError, objective_of, search_in_range
from tinyleak.attacks.features_first import CONTRAST, GOALS, GREY, UNIT, range_at, search
from tinyleak.attacks.first_layer import first_layer, records_of
from tinyleak.attacks.problem import Problem
from tinyleak.attacks.recorder import Recorder
from tinyleak.attacks.refit import refit
from tinyleak.attacks.result import Progress, Reconstruction
from tinyleak.attacks.shown import Shown, takes_pixels
from tinyleak.attacks.smoothed import CLOSE, past_kinks
from tinyleak.backend import Array
from tinyleak.client import Client
from tinyleak.nn.criteria import Loss, loss_of, one_hot
from tinyleak.nn.split import Split
from tinyleak.tensor import Tensor

PATIENCE, SOON = 350, 100
"""Evaluations within which the distance of an image's features halves, or it is not going to; and
where exact steps go on from, once it is near enough."""

MET, STARTS = 1e-5, 4
"""Squared relative distance at which an image has its features, which may themselves be known to
three digits only, and how many starts are made until one does: max pooling stops some."""

MOST_EXACT, ENOUGH, ALIKE = 1024, 10.0, 1e-7
"""The most pixels for exact steps, each of which costs two evaluations a pixel. After them an image
that has its features to so many times the goal is taken, or, as these may be less exact, one that
another start has ended at too, but for a mean squared difference below the last."""

SECONDS = 300.0  # how long to search, at most: 128 records of 784 pixels take 10 to 20 seconds


def attack_by_records(
    problem: Problem, on_progress: Callable[[Progress], None] | None = None
) -> Reconstruction:
    """Find the records of a client's batch in its first linear layer's gradient.

    Behind those that are certified come what was told less exactly; then, for images of which
    nothing was found, grey ones, every label of them as likely.

    Raises:
        ValueError: the first linear layer has fewer inputs than an image has pixels, or cannot
            tell so many records apart.
    """
    client, recorder = problem.client, Recorder(problem, on_progress)
    found = first_layer(client, problem.attacker.defenses)
    if found is None:
        raise ValueError(
            "method records needs a network whose first linear layer has as many inputs as an "
            f"image has pixels; {client.network} has none: choose another method"
        )
    layer, cut = found
    rng, loss = np.random.default_rng(problem.attacker.seed), loss_of(client.model)
    direct = takes_pixels(cut.below, client.model.image_shape)
    interrupted = False
    try:
        records = problem.records or records_of(client, layer, cut, rng, SECONDS)
    except StoppedSearchError as stopped:
        records, interrupted = stopped.records, True
    _compare(records, problem.attacker.labels)
    order = np.repeat(np.arange(len(records.copies)), records.copies)
    inputs = np.concatenate([records.inputs[order], records.guesses])
    images = np.full((client.batch, *client.model.image_shape), 0.5)
    if direct:
        images[: len(inputs)] = inputs.reshape(-1, *images.shape[1:])
    elif not interrupted:
        interrupted = _fill(images, inputs, order, cut, client, rng)
    labels = np.zeros(client.batch, np.int64)
    labels[: len(inputs)] = np.concatenate([records.labels[order], records.guessed_labels])
    if not (direct or interrupted) and len(records.guesses):
        told = labels_of(layer, cut, images[: len(inputs)], loss)
        labels[len(order) : len(inputs)] = told[len(order) :]  # the others are certified
    soft = one_hot(labels, client.model.classes, problem.settings.dtype)
    soft[len(inputs) :] = 1.0 / client.model.classes
    matching = replace(problem.matching, targets=soft)
    x = images.ravel().astype(problem.settings.dtype)
    if len(inputs) == client.batch and not interrupted:
        try:
            x = refit(client, matching, x)
        except KeyboardInterrupt:
            interrupted = True
    recorder.problem = replace(problem, matching=matching)
    recorder.note(x, float(matching.distances(Tensor(x)).data), 0)
    reason = "stalled" if records.missing else "converged"
    reason = "interrupted" if interrupted else reason
    return recorder.conclude(x, records.attempts, records.attempts, reason)


def _compare(records: Records, labels: Labels) -> None:
    """Warn where labels were given, and the records that were found have others."""
    if labels is None or isinstance(labels, str):
        return
    given, certified = np.sort(labels), np.sort(np.repeat(records.labels, records.copies))
    most = max(given.max(initial=0), certified.max(initial=0)) + 1
    if (np.bincount(certified, minlength=most) > np.bincount(given, minlength=most)).any():
        warnings.warn(
            f"labels {' '.join(map(str, given))} were given, but the images that are certified "
            f"have labels {' '.join(map(str, certified))}; these are returned",
            stacklevel=2,
        )


def _fill(
    images: Array, inputs: Array, order: Array, cut: Split, client: Client, rng: np.random.Generator
) -> bool:
    """Search for the images with these inputs, one by one; return whether Ctrl-C came.

    Those of the numbers in `order` come first, and are known to all their digits. Where batch norm
    is by the batch's own statistics, an image's features depend on all: then all are found at once.
    """
    bounds, count = None, len(inputs)
    together = "batch norm" in getattr(client.network, "training", ())
    for first in range(0, count, count if together else 1):
        some = slice(first, count if together else first + 1)
        exact = some.stop <= len(order)
        if exact and first > 0 and order[first] == order[first - 1]:
            images[first] = images[first - 1]
            continue
        try:
            bounds = bounds or _bounds(cut, inputs[some], client, rng)
            found = images_with(cut, inputs[some], client, rng, exact=exact, bounds=bounds)
            images[some] = found.reshape(images[some].shape)
        except KeyboardInterrupt as stopped:
            images[some] = getattr(stopped, "x", images[some]).reshape(images[some].shape)
            return True
    return False


def labels_of(layer: LayerGradient, cut: Split, images: Array, loss: Loss) -> Array:
    """Return the labels, (M,), of images, (M, C, H, W), that are most of a batch.

    With their inputs known, the gradient says each δ; the label is the one that gives the nearest.
    """
    h = cut.below(Tensor(images)).data
    rows = h if layer.bias_gradient is None else np.pad(h, [(0, 0), (0, 1)], constant_values=1.0)
    shared = (layer.records or len(h)) * layer.matrix @ np.linalg.pinv(rows)
    z, deltas = cut.outputs(Tensor(h)).data, Deltas(cut, loss)
    targets = np.eye(cut.model.classes)[:, np.newaxis] + np.zeros((1, len(h), 1))
    apart = [np.linalg.norm(deltas.of(z, labels) - shared.T, axis=1) for labels in targets]
    return np.argmin(apart, axis=0)


def _shown(cut: Split, features: Array) -> Shown:
    return Shown(cut.weight, features, np.zeros(features.shape), cut.below, {})


def _bounds(
    cut: Split, features: Array, client: Client, rng: np.random.Generator
) -> tuple[float, float]:
    """Return what is between which numbers in the images that give a layer these inputs, (N, F)."""
    shape = (len(features), *client.model.image_shape)
    start = GREY + CONTRAST * rng.standard_normal(prod(shape))
    objective = objective_of(shape, _shown(cut, features), None)
    return range_at(client.model, search(objective, start, GOALS[client.dtype]).x)


class _SettledError(Exception):
    """The search goes no further."""


def images_with(
    cut: Split,
    features: Array,
    client: Client,
    rng: np.random.Generator,
    *,
    exact: bool,
    bounds: tuple[float, float] = UNIT,
) -> Array:
    """Return the images that give a layer these inputs, (N, F), as near as searches come.

    Features that are known to some digits only are met no nearer: then it ends where it stays.
    Those that are exact are: where kinks stop every start, the search goes past them.

    Raises:
        StoppedError: Ctrl-C; it has the best pixels so far.
    """
    shape = (len(features), *client.model.image_shape)
    shown, goal, start = _shown(cut, features), GOALS[client.dtype], np.full(prod(shape), GREY)
    met = max(CLOSE, goal) if exact else MET
    halved, ends = deque[float](maxlen=PATIENCE), list[tuple[float, Array]]()
    to_end = None
    if exact and len(start) <= MOST_EXACT:
        like = start + CONTRAST * rng.standard_normal(len(start))
        within = like.reshape(shape), *bounds, goal
        to_end = exactly_by_largest(cut.below, features.ravel(), *within)

    def watched(x: Array) -> tuple[float, Array]:
        value, slope = objective(x)
        if value < ends[-1][0]:
            ends[-1] = value, x.copy()
        lowest, _ = ends[-1]
        patience = PATIENCE if to_end is None or lowest > met else SOON
        if len(halved) >= patience and lowest > 0.5 * halved[-patience]:
            raise _SettledError
        halved.append(lowest)
        return value, slope

    objective = objective_of(shape, shown, None)
    try:
        for _ in range(STARTS):
            halved.clear()
            ends.append((math.inf, start))
            with suppress(_SettledError):
                start = GREY + CONTRAST * rng.standard_normal(prod(shape))
                search_in_range(watched, start, goal, *bounds)
            lowest, best = ends[-1]
            if to_end is not None and goal < lowest < met:
                best = to_end(best)
                ends[-1] = objective(best)[0], best
            again = any(np.mean((best - x) ** 2) < ALIKE for _, x in ends[:-1])
            if ends[-1][0] < (met if to_end is None else ENOUGH * goal) or (to_end and again):
                return best
        lowest, best = min(ends, key=_distance)
        if lowest < met:
            return best
        within = best.reshape(shape), *bounds, goal
        found = past_kinks(shown, {}, *within, cycles=1) if exact else None
    except KeyboardInterrupt as stopped:
        last = getattr(stopped, "x", start)
        raise StoppedError(min([*ends, (objective(last)[0], last)], key=_distance)[1]) from None
    return best if found is None or found.value > lowest else found.x


def _distance(end: tuple[float, Array]) -> float:
    return end[0]

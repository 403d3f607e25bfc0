"""The attack that takes a batch apart, record by record.

Where the network's first layer is linear, its inputs are the images, and its gradient shows each of
them (see `tinyleak.analytic.records`): nothing is matched, and what is found is certified. Where
layers of another kind come before, as in most networks for images, it shows the features of each,
and the image is then found alone, by its features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np

from tinyleak.analytic.certificate import certify
from tinyleak.analytic.probes import smooth_noise
from tinyleak.analytic.records import find_records
from tinyleak.attacks.features_first import CONTRAST, GREY
from tinyleak.attacks.method import first_layer, takes_pixels
from tinyleak.attacks.problem import Problem
from tinyleak.attacks.recorder import Recorder
from tinyleak.attacks.result import Progress, Reconstruction
from tinyleak.backend import Array
from tinyleak.client import Client
from tinyleak.nn.criteria import loss_of
from tinyleak.nn.labels import one_hot
from tinyleak.nn.split import Split
from tinyleak.tensor import Tensor

SECONDS = 300.0
"""How long to search, at most: 128 records of 784 pixels take 10 to 20 seconds."""


def attack_by_records(
    problem: Problem, on_progress: Callable[[Progress], None] | None = None
) -> Reconstruction:
    """Find the records of a client's batch in its first linear layer's gradient.

    Behind those that are certified come what was told less exactly; then, for images of which
    nothing was found, grey ones with label 0.

    Raises:
        ValueError: the first linear layer has fewer inputs than an image has pixels, or cannot
            tell so many records apart.
    """
    client, recorder = problem.client, Recorder(problem, on_progress)
    found = first_layer(client)
    if found is None:
        raise ValueError(
            "method records needs a network whose first linear layer has as many inputs as an "
            f"image has pixels; {client.network} has none: choose another method"
        )
    layer, cut = found
    rng = np.random.default_rng(problem.attacker.seed)
    direct, features = takes_pixels(cut), cut.below(Tensor(smooth_noise(client.model.image_shape)))
    never_negative = float(features.data.min()) >= 0.0
    bounds = (0.0, 1.0) if direct else (0.0, math.inf) if never_negative else None
    loss = loss_of(client.model)
    records = find_records(layer, cut, bounds=bounds, loss=loss, rng=rng, seconds=SECONDS)
    order = np.repeat(np.arange(len(records.copies)), records.copies)
    inputs = np.concatenate([records.inputs[order], records.guesses])
    images = np.full((client.batch, *client.model.image_shape), 0.5)
    labels = np.zeros(client.batch, np.int64)
    labels[: len(inputs)] = np.concatenate([records.labels[order], records.guessed_labels])
    for index, h in enumerate(inputs):
        again = not direct and 0 < index < len(order) and order[index] == order[index - 1]
        known = images[index - 1] if again else h if direct else image_with(cut, h, client, rng)
        images[index] = known.reshape(images[index].shape)
    if not direct and len(records.guesses):
        # An image says its features more exactly than noise let them be read.
        guessed = slice(len(order), len(inputs))
        h = cut.below(Tensor(images[guessed])).data
        distances = [
            certify(layer, cut, h, np.full(len(h), k), loss=loss).delta_distances
            for k in range(client.model.classes)
        ]
        labels[guessed] = np.argmin(distances, axis=0)
    soft = one_hot(labels, client.model.classes, problem.settings.dtype)
    matching = replace(problem.matching, targets=soft)
    x = images.ravel().astype(problem.settings.dtype)
    recorder.problem = replace(problem, matching=matching)
    recorder.note(x, float(matching.distances(Tensor(x)).data), 0)
    reason = "stalled" if records.missing else "converged"
    return recorder.conclude(x, records.attempts, records.attempts, reason)


def image_with(cut: Split, features: Array, client: Client, rng: np.random.Generator) -> Array:
    """Return the image that gives a layer these inputs, as near as a search from noise comes."""
    from tinyleak.attacks.features_first import GOALS, Shown, _objective, _search_in_range

    shown = Shown(cut.weight, features[None], np.zeros((1, len(features))), cut.below, {})
    start = GREY + CONTRAST * rng.standard_normal(prod(client.model.image_shape))
    objective = _objective(client.model, shown, None)
    return _search_in_range(objective, start, GOALS[client.dtype]).x

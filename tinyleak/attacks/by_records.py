"""The attack that takes a batch apart, record by record.

Where the network's first layer is linear, its inputs are the images, and its gradient shows each of
them (see `tinyleak.analytic.records`): nothing is matched, and what is found is certified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tinyleak.analytic.records import find_records
from tinyleak.attacks.method import first_layer
from tinyleak.attacks.problem import Problem
from tinyleak.attacks.recorder import Recorder
from tinyleak.attacks.result import Progress, Reconstruction
from tinyleak.nn.criteria import loss_of
from tinyleak.nn.labels import one_hot
from tinyleak.tensor import Tensor

SECONDS = 300.0
"""How long to search, at most: 128 records of 784 pixels take 10 to 20 seconds."""


def attack_by_records(
    problem: Problem, on_progress: Callable[[Progress], None] | None = None
) -> Reconstruction:
    """Find the records of a client's batch in its first layer's gradient.

    Images that were not found are grey, with label 0, and come last.

    Raises:
        ValueError: the first layer is not linear, or cannot tell so many records apart.
    """
    client, recorder = problem.client, Recorder(problem, on_progress)
    found = first_layer(client)
    if found is None:
        raise ValueError(
            f"method records needs a network whose first layer is linear; {client.network} has "
            "none: choose another method"
        )
    rng = np.random.default_rng(problem.attacker.seed)
    records = find_records(
        *found, bounds=(0.0, 1.0), loss=loss_of(client.model), rng=rng, seconds=SECONDS
    )
    images = np.full((client.batch, *client.model.image_shape), 0.5)
    labels = np.zeros(client.batch, np.int64)
    order = np.repeat(np.arange(len(records.copies)), records.copies)
    images[: len(order)] = records.inputs[order].reshape(-1, *client.model.image_shape)
    labels[: len(order)] = records.labels[order]
    soft = one_hot(labels, client.model.classes, problem.settings.dtype)
    matching = replace(problem.matching, targets=soft)
    x = images.ravel().astype(problem.settings.dtype)
    recorder.problem = replace(problem, matching=matching)
    recorder.note(x, float(matching.distances(Tensor(x)).data), 0)
    reason = "stalled" if records.missing else "converged"
    return recorder.conclude(x, records.attempts, records.attempts, reason)

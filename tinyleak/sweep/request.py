"""One attack of a sweep: all that a worker needs to run it, and the plain row that comes back.

A request travels to another process or another machine, so it holds numbers, names and small
arrays, and brings its images along: a worker needs no data files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from tinyleak.attacks import Reconstruction, Settings, attack
from tinyleak.backend import Array
from tinyleak.client.simulated import Outcome, Victim, judge, simulate
from tinyleak.defenses import Defense, knowledge, need_examples
from tinyleak.metrics import match_batch, mse
from tinyleak.nn.models import Network

LABEL_MODES = ("optimise", "infer", "known")
ATTACKERS = ("naive", "aware")
UNDEFENDED = "none"


@dataclass(frozen=True)
class Request:
    """One attack on one simulated client.

    Attributes:
        data: the name of the data, for the table.
        image: the index of the first image in it, for the table.
        images: (N, C, H, W), the client's batch, pixels in [0, 1].
        labels: (N,), its labels.
        model: the network.
        scheme: how its weights are drawn, one of `tinyleak.nn.init.SCHEMES`.
        seed: decides the weights, the defence's noise and the attack's start.
        restarts: how many starts are run side by side.
        label_mode: "optimise", "infer" from the shared gradient, or "known" to the attacker.
        defenses: what the client does to its gradient, in order, before it shares it.
        attacker: "naive", or "aware" if it knows the defences and uses that.
        settings: how the attack is run.
        device: "cpu" or "cuda".
        keep_images: whether the result brings the reconstruction along.
    """

    data: str
    image: int
    images: Array
    labels: Array
    model: Network
    scheme: str = "uniform"
    seed: int = 0
    restarts: int = 1
    label_mode: str = "optimise"
    defenses: tuple[Defense, ...] = ()
    attacker: str = "naive"
    settings: Settings = field(default_factory=Settings)
    device: str = "cpu"
    keep_images: bool = False

    def __post_init__(self) -> None:
        """Refuse what no worker could do.

        Raises:
            ValueError: an unknown way to the labels or attacker, or defences out of order.
        """
        if self.label_mode not in LABEL_MODES:
            raise ValueError(
                f"labels {self.label_mode!r} are unknown; choose one of {', '.join(LABEL_MODES)}"
            )
        if self.attacker not in ATTACKERS:
            raise ValueError(
                f"attacker {self.attacker!r} is unknown; choose one of {', '.join(ATTACKERS)}"
            )
        need_examples(self.defenses)

    @property
    def columns(self) -> dict[str, str | int | float | bool]:
        """What decides the result, by column of the table. It is what tells two rows apart."""
        options = asdict(self.settings)
        return {
            "defense": "+".join(map(str, self.defenses)) or UNDEFENDED,
            "attacker": self.attacker,
            "data": self.data,
            "image": self.image,
            "batch": len(self.images),
            "model": type(self.model).__name__.lower(),
            "activation": self.model.activation,
            "network": repr(self.model),
            "init": self.scheme,
            "labels": self.label_mode,
            "seed": self.seed,
            "restarts": self.restarts,
            "max_iterations": options.pop("iterations"),
            **options,
            "device": self.device,
        }

    @cached_property
    def id(self) -> str:
        """A name for the row: 16 hexadecimal digits of the checksum of its columns."""
        text = json.dumps(self.columns, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


RESULT_COLUMNS = (
    *("succeeded", "recovered", "labels_right", "mse", "mse_worst", "distance"),
    *("reason", "iterations", "evaluations", "seconds", "error"),
)
"""What the table says of an attack that has ended; a failed one has nothing but its error."""


def run_attack(request: Request) -> dict[str, Any]:
    """Run the attack, and return its result by column, with "arrays" beside if they are wanted.

    An error is a result too, since an exception may not survive the way to another process.
    """
    try:
        return _run(request)
    except Exception as error:
        return failure(error)


def failure(error: BaseException) -> dict[str, Any]:
    """Return the result of an attack that ended with this error."""
    text = " ".join(str(error).split())
    return {
        **dict.fromkeys(RESULT_COLUMNS),
        "succeeded": False,
        "error": f"{type(error).__name__}: {text}",
    }


def _run(request: Request) -> dict[str, Any]:
    settings, batch = request.settings, len(request.images)
    victim = simulate(
        request.model,
        request.images,
        request.labels,
        seed=request.seed,
        scheme=request.scheme,
        dtype=settings.dtype,
        defenses=request.defenses,
    )
    precision = None
    if request.attacker == "aware":
        known = knowledge(request.defenses, victim.gradients, batch)
        precision = known.precision
        settings = replace(settings, direction=settings.direction or known.direction)
    found = attack(
        request.model,
        victim.params,
        victim.gradients,
        batch=batch,
        labels=_labels(request),
        precision=precision,
        seed=request.seed,
        restarts=request.restarts,
        settings=settings,
        device=request.device,
    )
    if found.reason == "interrupted":
        # What was found so far is no result of these settings.
        raise KeyboardInterrupt
    outcome = judge(victim, found)
    result = {
        "succeeded": outcome.succeeded,
        "recovered": int(outcome.recovered.sum()),
        "labels_right": int((outcome.labels == victim.labels).sum()),
        "mse": float(outcome.mse.mean()),
        "mse_worst": float(outcome.mse.max()),
        "distance": found.distance,
        "reason": found.reason,
        "iterations": found.iterations,
        "evaluations": found.evaluations,
        "seconds": found.seconds,
        "error": None,
    }
    if request.keep_images:
        result["arrays"] = _arrays(victim, found, outcome)
    return result


def _labels(request: Request) -> list[int] | Literal["infer"] | None:
    """Return what the attacker is told of the labels."""
    if request.label_mode == "infer":
        return "infer"
    return [int(label) for label in request.labels] if request.label_mode == "known" else None


def _arrays(victim: Victim, found: Reconstruction, outcome: Outcome) -> dict[str, Array]:
    """Return the reconstruction beside the truth, and how distance and error fell."""
    errors = [_batch_error(frame.images, victim.images) for frame in found.frames]
    return {
        "images": outcome.images,
        "truth": victim.images,
        "labels": outcome.labels,
        "labels_true": victim.labels,
        "distances": np.array(found.distances),
        "mse_iterations": np.array([frame.iteration for frame in found.frames]),
        "mse": np.array(errors),
    }


def _batch_error(images: Array, truth: Array) -> float:
    if len(images) > 1:
        images = images[match_batch(images, truth)]
    return float(mse(images, truth).mean())

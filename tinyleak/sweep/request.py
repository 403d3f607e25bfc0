"""One attack of a sweep: all that a worker needs to run it, and the plain row that comes back.

A request travels to another process or another machine, so it holds numbers, names and small
arrays, and brings its images along: a worker needs no data files.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tinyleak import __version__
from tinyleak.attacks import Attacker, Reconstruction, attack
from tinyleak.backend import Array
from tinyleak.client import Outcome, Truth, simulate
from tinyleak.defenses import Defense, need_examples
from tinyleak.metrics import matched_mse
from tinyleak.nn.models import Network
from tinyleak.nn.models.exported import Exported

UNDEFENDED = "none"


@dataclass(frozen=True, eq=False)
class Request:
    """One attack on one simulated client; a ValueError where the defences cannot be."""

    data: str  # the name of the data, for the table
    image: int  # the index of the first image in it, for the table
    truth: Truth  # the client's batch, images and labels
    model: Network | Exported  # the network
    # Who attacks it: aware of the defences, or of the labels, if it has them. Its seed decides the
    # client's weights and the noise of its defences, too.
    attacker: Attacker = field(default_factory=Attacker)
    init: str = "uniform"  # how the weights are drawn, one of `tinyleak.nn.init.SCHEMES`
    defenses: tuple[Defense, ...] = ()  # what the client does to its gradient, in order
    keep_images: bool = False  # whether the result brings the reconstruction along

    def __post_init__(self) -> None:
        need_examples(self.defenses)

    @property
    def columns(self) -> dict[str, str | int | float | bool]:
        """What decides the result, by column of the table. It is what tells two rows apart."""
        attacker = self.attacker
        settings = {**asdict(attacker.settings), "goal": attacker.settings.near_enough}
        labels = attacker.labels
        given = labels if isinstance(labels, str) else "known"
        return {
            "defense": "+".join(map(str, self.defenses)) or UNDEFENDED,
            "attacker": "aware" if attacker.defenses else "naive",
            "data": self.data,
            "image": self.image,
            "batch": len(self.truth.images),
            "model": type(self.model).__name__.lower(),
            "activation": self.model.activation,
            "network": repr(self.model),
            "init": "own" if isinstance(self.model, Exported) else self.init,
            "labels": "optimise" if labels is None else given,
            "seed": attacker.seed,
            "restarts": attacker.restarts,
            "method": attacker.method,
            "start": attacker.start if isinstance(attacker.start, str) else "given",
            "max_iterations": settings.pop("iterations"),
            **settings,
            "device": attacker.device,
            "content": self.content,
            "version": __version__,
        }

    @cached_property
    def content(self) -> str:
        """16 hexadecimal digits of the checksum of all arrays: what names cannot tell apart."""
        attacker, digest = self.attacker, hashlib.sha256()
        arrays: dict[str, Any] = {"images": self.truth.images, "labels": self.truth.labels}
        known = {"labels known": attacker.labels, "start": attacker.start}
        arrays |= {name: part for name, part in known.items() if not isinstance(part, str | None)}
        if isinstance(self.model, Exported):
            own = {**self.model.constants, **self.model.weights}
            arrays |= {f"network's {name}": part for name, part in own.items()}
            digest.update(repr(self.model.graph).encode())
        for name, array in sorted({**arrays, **(attacker.precision or {})}.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        digest.update("+".join(map(str, attacker.defenses)).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def id(self) -> str:
        """A name for the row: 16 hexadecimal digits of the checksum of its columns."""
        text = json.dumps(self.columns, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


RESULT_COLUMNS = (
    *("succeeded", "recovered", "labels_right", "mse", "mse_worst", "distance"),
    *("reason", "iterations", "evaluations", "seconds", "error"),
)
"""Columns of an attack that has ended; a failed one has only `succeeded` and `error`."""


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
    attacker = request.attacker
    client, truth = simulate(
        request.model,
        request.truth.images,
        request.truth.labels,
        seed=attacker.seed,
        init=request.init,
        dtype=attacker.settings.dtype,
        defenses=request.defenses,
    )
    found = attack(client, attacker=attacker)
    if found.reason == "interrupted":
        # An unfinished attack must not count as a result of these settings.
        raise KeyboardInterrupt
    outcome = truth.judge(found)
    assert outcome.mse is not None and outcome.recovered is not None, "the truth is known"
    result = {
        "succeeded": outcome.succeeded,
        "recovered": int(outcome.recovered.sum()),
        "labels_right": int((outcome.labels == truth.labels).sum()),
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
        result["arrays"] = _arrays(truth, found, outcome)
    return result


def _arrays(truth: Truth, found: Reconstruction, outcome: Outcome) -> dict[str, Array]:
    """Return the reconstruction beside the truth, and how distance and error fell."""
    errors = [matched_mse(one.images, truth.images).mean() for one in found.snapshots]
    return {
        "images": outcome.images,
        "truth": truth.images,
        "labels": outcome.labels,
        "labels_true": truth.labels,
        "distances": np.array(found.distances),
        "mse_iterations": np.array([one.iteration for one in found.snapshots]),
        "mse": np.array(errors),
    }

"""What `tinyleak attack` leaves behind: the files of --out, and a summary for a person."""

from __future__ import annotations

import argparse
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak import __version__
from tinyleak.attacks import Reconstruction
from tinyleak.backend import Array, device_module
from tinyleak.cli.attacker import Attacker
from tinyleak.cli.output import counted, written
from tinyleak.cli.pictures import write_pictures
from tinyleak.client.simulated import Outcome, Victim
from tinyleak.metrics import mse
from tinyleak.nn.models import Network
from tinyleak.report import Frame, write_arrays, write_json

FILES = ("result.json", "reconstruction.npz", "progress.png", "loss.png", "player.html")


@dataclass(frozen=True)
class Result:
    """An attack that has ended.

    Attributes:
        args: what was asked for.
        model: the network that the client trains.
        attacker: what it knew, and how it was run.
        victim: the client.
        found: what the attack found.
        outcome: how close that is.
    """

    args: argparse.Namespace
    model: Network
    attacker: Attacker
    victim: Victim
    found: Reconstruction
    outcome: Outcome

    def as_dict(self) -> dict[str, Any]:
        """Return what result.json says: the outcome, and all that it takes to get it again."""
        args, found, outcome = self.args, self.found, self.outcome
        inference = self.attacker.inference
        return {
            "succeeded": outcome.succeeded,
            "reason": found.reason,
            "mse": outcome.mse,
            "psnr": outcome.psnr,
            "labels_true": self.victim.labels,
            "labels_recovered": outcome.labels,
            "labels_inferred": None if inference is None else inference.labels,
            "gradient_distance": found.distance,
            "iterations": found.iterations,
            "evaluations": found.evaluations,
            "seconds": found.seconds,
            "settings": {
                "data": args.data if args.image is None else None,
                "data_dir": readable(args.data_dir),
                "image": readable(args.image),
                "index": args.index,
                "batch": args.batch,
                "label": args.label,
                "model": args.model,
                "image_shape": self.model.image_shape,
                "classes": self.model.classes,
                "activation": args.activation,
                "init": args.init,
                **run_settings(args, self.attacker),
            },
            "versions": versions(args.device),
        }

    def write(self, directory: Path) -> None:
        """Write all `FILES` into the directory, those that cannot be made from others first.

        Raises:
            OSError: a file cannot be written.
        """
        truth, outcome = self.victim.images, self.outcome
        write_json(directory / "result.json", self.as_dict())
        write_arrays(
            directory / "reconstruction.npz",
            images=outcome.images,
            truth=truth,
            labels=outcome.labels,
            labels_true=self.victim.labels,
            soft_labels=outcome.soft_labels,
            distances=self.found.distances,
        )
        write_pictures(directory, self._frames(), outcome.labels, truth, self.victim.labels)

    def _frames(self) -> list[Frame]:
        """Return the stages as the report wants them, in the order of the client's images."""
        frames = []
        for iteration, images, distance in self.found.frames:
            ordered = images[self.outcome.order]
            frames.append(Frame(iteration, ordered, mse(ordered, self.victim.images), distance))
        return frames

    def summary(self) -> str:
        """Return the few lines that tell a person what happened."""
        args, found, outcome = self.args, self.found, self.outcome
        count, recovered = len(self.victim.images), int(outcome.recovered.sum())
        right = np.array_equal(outcome.labels, self.victim.labels)
        shape = "x".join(map(str, self.model.image_shape))
        verdict = "success" if outcome.succeeded else "NO success"
        if count > 1:
            verdict += f", {recovered} of {count} images recovered"
        iterations = counted(found.iterations, "iteration")
        lines = {
            "attacked": f"{_source(args)}, {shape}; {args.model} with {args.activation}, "
            f"init {args.init}, seed {args.seed}",
            **self._defended(),
            "result": f"{verdict}: {found.reason} after {iterations}",
            "error": f"MSE {_range(outcome.mse, '.1e')}, PSNR {_range(outcome.psnr, '.1f')} dB",
            "label" if count == 1 else "labels": listed(outcome.labels)
            + (" (right)" if right else f" (in truth {listed(self.victim.labels)})"),
            "distance": f"{found.distance:.1e} between the gradients",
            "cost": f"{found.evaluations} evaluations, {found.seconds:.1f} s",
            "files": written(args.out, FILES, "the result, pictures and a player"),
        }
        return "\n".join(f"{name:<10}{text}" for name, text in lines.items())

    def _defended(self) -> dict[str, str]:
        if not self.args.defense:
            return {}
        knows = "knows of it" if self.args.aware else "does not know of it"
        return {"defended": f"{', '.join(self.args.defense)}; the attacker {knows}"}


def run_settings(args: argparse.Namespace, attacker: Attacker) -> dict[str, Any]:
    """Return what result.json says of how an attack was run, on whichever client."""
    return {
        "seed": args.seed,
        "recipe": args.recipe,
        "method": args.method,
        "start": args.start,
        **asdict(attacker.settings),
        "restarts": args.restarts,
        "defenses": args.defense,
        "aware": args.aware,
        "labels": args.labels,
        "device": args.device,
    }


def versions(device: str) -> dict[str, str]:
    """Return the versions of all that has a say in the numbers."""
    versions = {
        "tinyleak": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    if device == "cuda":
        versions["cupy"] = device_module(device).__version__
    return versions


def readable(path: Path | None) -> str | None:
    """Return a path as text that UTF-8 can hold, whatever bytes it is made of."""
    return None if path is None else str(path).encode(errors="backslashreplace").decode()


def _source(args: argparse.Namespace) -> str:
    if args.image is not None:
        return f"image {args.image}"
    if args.batch == 1:
        return f"{args.data} image {args.index}"
    return f"{args.data} images {args.index} to {args.index + args.batch - 1}"


def _range(values: Array, form: str) -> str:
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low} to {high}"


def listed(labels: Array) -> str:
    """Return labels as text."""
    return " ".join(map(str, labels))

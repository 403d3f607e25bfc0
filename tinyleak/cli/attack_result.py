"""What `tinyleak attack` leaves behind: the files of --out, and a summary for a person.

One form serves both kinds of client. Where no truth is known, what needs it is null.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyleak.attacks import Problem, Reconstruction
from tinyleak.backend import Array
from tinyleak.cli.options import given
from tinyleak.cli.output import counted, paragraphs, readable, versions, written
from tinyleak.client import RECOVERED_MSE, Notes, Outcome
from tinyleak.report import (
    curves,
    emergence,
    pixel_range,
    player,
    save,
    write_arrays,
    write_json,
)

FILES = ("result.json", "reconstruction.npz", "progress.png", "loss.png", "player.html")


@dataclass(frozen=True)
class Result:
    """An attack that has ended.

    Attributes:
        args: what was asked for.
        problem: who attacked whom.
        found: what the attack found.
        outcome: how close that is.
    """

    args: argparse.Namespace
    problem: Problem
    found: Reconstruction
    outcome: Outcome

    def as_dict(self) -> dict[str, Any]:
        """Return what result.json says: the outcome, and all that it takes to get it again."""
        found, outcome, inference = self.found, self.outcome, self.problem.inference
        return {
            "succeeded": outcome.succeeded,
            "reason": found.reason,
            "mse": outcome.mse,
            "psnr": outcome.psnr,
            "labels_true": outcome.labels_true,
            "labels_recovered": outcome.labels,
            "labels_inferred": None if inference is None else inference.labels,
            "gradient_distance": found.distance,
            "relative_distance": outcome.distance,
            "succeeded_below": outcome.tolerance,
            "loss_factor": outcome.factor or self.problem.client.loss.factor,
            "pixel_range": [found.images.min(), found.images.max()],
            "iterations": found.iterations,
            "evaluations": found.evaluations,
            "seconds": found.seconds,
            "settings": {**self._client(), **self._attacker()},
            "versions": versions(self.problem.attacker.device),
        }

    def _client(self) -> dict[str, Any]:
        """Return what result.json says of the client; null is what the other kind has."""
        args, client, made = self.args, self.problem.client, self.args.weights is None
        notes = client.facts["notes"].value if "notes" in client.facts else None
        said = (notes or Notes()).under(Notes(**given(Notes, args)))
        return {
            "weights": readable(args.weights),
            "gradients": readable(args.gradients),
            "weights_after": readable(args.weights_after),
            "data": (args.data or "glyphs") if made and args.image is None else None,
            "data_dir": readable(args.data_dir),
            "image": readable(args.image),
            "index": (args.index or 0) if made else None,
            "label": args.label,
            "init": (args.init or "U") if made else None,
            "batch": client.batch,
            "model": self._kind,
            "image_shape": client.model.image_shape,
            "classes": client.model.classes,
            "activation": getattr(client.model, "activation", None),
            "rename": ["=".join(pair) for pair in args.rename],
            "reduction": said.reduction,
            "local_steps": said.local_steps,
            "learning_rate": said.learning_rate,
            "notes": None if notes is None else str(notes),
        }

    def _attacker(self) -> dict[str, Any]:
        """Return what result.json says of how the attack was run."""
        args, attacker, settings = self.args, self.problem.attacker, self.problem.settings
        told = "trusted" if args.weights is not None else "optimise"
        return {
            "seed": attacker.seed,
            "recipe": args.recipe,
            "method": attacker.method,
            "start": attacker.start,
            **asdict(settings),
            "goal": settings.near_enough,
            "restarts": attacker.restarts,
            "defenses": args.defense,
            "aware": args.aware,
            "labels": args.labels or told,
            "device": attacker.device,
        }

    @property
    def _kind(self) -> str:
        return type(self.problem.client.model).__name__.lower()

    def write(self, directory: Path) -> None:
        """Write all `FILES` into the directory, those that cannot be made from others first.

        Raises:
            OSError: a file cannot be written.
        """
        found, outcome, truth = self.found, self.outcome, self.outcome.truth
        write_json(directory / "result.json", self.as_dict())
        arrays = {
            **{"images": outcome.images, "labels": outcome.labels},
            **{"soft_labels": outcome.soft_labels, "distances": found.distances},
            **{"truth": truth, "labels_true": outcome.labels_true},
        }
        known: dict[str, Any] = {name: a for name, a in arrays.items() if a is not None}
        write_arrays(directory / "reconstruction.npz", **known)
        figure = emergence(
            found.snapshots, truth, labels=found.labels, labels_true=outcome.labels_true
        )
        save(figure, directory / "progress.png")
        below = None if truth is None else RECOVERED_MSE
        save(curves(found.snapshots, truth, success_below=below), directory / "loss.png")
        what = "An image" if len(found.images) == 1 else "Images"
        title = f"{what} out of a gradient"
        player(directory / "player.html", found.snapshots, truth, title=title)

    def summary(self) -> str:
        """Return the few lines that tell a person what happened."""
        found, outcome, client = self.found, self.outcome, self.problem.client
        iterations = counted(found.iterations, "iteration")
        return paragraphs(
            {
                "attacked": self._attacked(),
                **{topic: str(fact) for topic, fact in client.facts.items()},
                "loss": str(client.loss.fact),
                **self._defended(),
                "result": f"{outcome.verdict}: {found.reason} after {iterations}{self._advice()}",
                **self._judged(),
                "cost": f"{found.evaluations} evaluations, {found.seconds:.1f} s",
                "files": written(self.args.out, FILES, "the result, pictures and a player"),
            }
        )

    def _attacked(self) -> str:
        args, client = self.args, self.problem.client
        model, many = client.model, counted(client.batch, "image")
        shape = "x".join(map(str, model.image_shape))
        network = f"{self._kind} with {getattr(model, 'activation', 'no activation')}"
        network += f", {model.classes} classes"
        if args.weights is None:
            first = args.index or 0
            which = (
                f"image {first}"
                if client.batch == 1
                else (f"images {first} to {first + client.batch - 1}")
            )
            source = (
                f"{args.data or 'glyphs'} {which}"
                if args.image is None
                else (f"image {args.image}")
            )
            network += f", init {args.init or 'U'}, seed {self.problem.attacker.seed}"
        elif args.gradients is None:
            source = f"what {many} changed from {args.weights} to {args.weights_after}"
        else:
            source = f"the gradient of {many} in {args.gradients}, weights {args.weights}"
        return f"{source}, {shape}; {network}"

    def _defended(self) -> dict[str, str]:
        if not self.args.defense:
            return {}
        knows = "knows of it" if self.args.aware else "does not know of it"
        return {"defended": f"{', '.join(self.args.defense)}; the attacker {knows}"}

    def _advice(self) -> str:
        """Return what may help where an attack on a batch of which no truth is known has failed."""
        if self.outcome.succeeded or self.problem.client.batch == 1 or self.args.weights is None:
            return ""
        return "; --restarts, or --method lbfgs+levenberg-marquardt, may do better"

    def _judged(self) -> dict[str, str]:
        """Return how close labels, images and gradient came, as far as that can be told."""
        found, outcome = self.found, self.outcome
        topic = "label" if len(outcome.labels) == 1 else "labels"
        if outcome.mse is not None and outcome.psnr is not None:
            found_labels, true = listed(outcome.labels), listed(outcome.labels_true)
            truth = "right" if found_labels == true else f"in truth {true}"
            return {
                "error": f"MSE {_range(outcome.mse, '.1e')}, PSNR {_range(outcome.psnr, '.1f')} dB",
                topic: f"{found_labels} ({truth})",
                "distance": f"{found.distance:.1e} between the gradients",
            }
        optimised = self.problem.matching.targets is None
        return {
            "distance": f"{outcome.distance:.1e} of the gradient's squared length; its "
            f"{'noise' if outcome.noisy else 'rounding'} allows {outcome.tolerance:.1e}",
            topic: f"{listed(outcome.labels)} "
            f"({'found with the images' if optimised else 'read off beforehand'})",
            "pixels": self._pixels(),
        }

    def _pixels(self) -> str:
        """Return how far the pixels reach, and how they are drawn."""
        images = self.found.images
        text = f"{images.min():.2f} to {images.max():.2f}"
        if pixel_range(images) != (0.0, 1.0):
            text += ", drawn from black to white"
            if self.outcome.succeeded:
                text += ": the client normalised its images"
        return text


def listed(labels: Any) -> str:
    """Return labels as text."""
    return " ".join(map(str, labels))


def _range(values: Array, form: str) -> str:
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low} to {high}"

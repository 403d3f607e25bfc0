"""What `tinyleak attack` leaves behind: the files of --out, and a summary for a person.

One form serves both kinds of client. Where no truth is known, what needs it is null.
"""

import argparse
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.attacks import Problem, Reconstruction
from tinyleak.attacks.advice import likely_causes
from tinyleak.backend import Array
from tinyleak.cli.labels import labels_told, listed
from tinyleak.cli.options import given
from tinyleak.cli.output import counted, paragraphs, readable, versions, written
from tinyleak.client import RECOVERED_MSE, Fact, Notes, Outcome
from tinyleak.client.facts import as_data, in_one_line, knows
from tinyleak.data.networks import SUFFIX
from tinyleak.nn.models.as_trained import heads_of
from tinyleak.report import curves, emergence, pixel_range, player, save, write_arrays, write_json

MOST_CAUSES = 2  # how many likely causes the summary names

MOST_NUMBERS = 5  # targets of so many numbers are listed

FILES = ("result.json", "reconstruction.npz", "progress.png", "loss.png", "player.html")


@dataclass(frozen=True)
class Result:
    """An attack that has ended."""

    args: argparse.Namespace  # what was asked for
    problem: Problem  # who attacked whom
    found: Reconstruction  # what the attack found
    outcome: Outcome  # how close that is: by the truth, if it is known, else as `explained`
    explained: Outcome  # what the shared gradient says of it

    def as_dict(self) -> dict[str, Any]:
        """Return what result.json says: the outcome, and all that it takes to get it again."""
        found, outcome, inference = self.found, self.outcome, self.problem.inference
        return {
            "succeeded": outcome.succeeded,
            "verdict": self.explained.verdict,
            "expected_mse": self.explained.expected_mse,
            "certified": self.explained.certified,
            "causes": [asdict(cause) for cause in self._causes],
            "knows": as_data(self._knows),
            "reason": found.reason,
            "mse": outcome.mse,
            "psnr": outcome.psnr,
            "labels_true": outcome.labels_true,
            "labels_recovered": outcome.labels,
            "labels_inferred": None if inference is None else inference.labels,
            "gradient_distance": found.distance,
            "relative_distance": self.explained.distance,
            "succeeded_below": self.explained.tolerance,
            "loss_factor": self.explained.factor,
            "pixel_range": [found.images.min(), found.images.max()],
            "iterations": found.iterations,
            "evaluations": found.evaluations,
            "seconds": found.seconds,
            "settings": {**self._client(), **self._attacker()},
            "versions": versions(self.problem.attacker.device),
        }

    def _client(self) -> dict[str, Any]:
        """Return what result.json says of the client; null is what the other kind has."""
        args, client, model = self.args, self.problem.client, self._model
        notes = client.facts["notes"].value if "notes" in client.facts else None
        said = (notes or Notes()).under(Notes(**given(Notes, args)))
        paths = ("weights", "gradients", "weights_after", "data_dir", "image")
        return {
            **{name: readable(getattr(args, name)) for name in paths},
            "data": None if args.image else self._simulated(args.data or "glyphs"),
            "index": self._simulated(args.index or 0),
            "label": args.label,
            "init": self._init,
            "batch": client.batch,
            "model": type(client.network).__name__.lower(),
            "image_shape": model.image_shape,
            "classes": model.classes,
            "activation": model.activation,
            "rename": ["=".join(pair) for pair in args.rename],
            "reduction": said.reduction,
            "local_steps": said.local_steps,
            "learning_rate": said.learning_rate,
            "notes": None if notes is None else str(notes),
        }

    def _attacker(self) -> dict[str, Any]:
        """Return what result.json says of how the attack was run."""
        args, attacker, settings = self.args, self.problem.attacker, self.problem.settings
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
            "labels": args.labels or self._simulated("optimise") or "trusted",
            "device": attacker.device,
        }

    @property
    def _model(self) -> Any:
        return self.problem.client.model

    def _simulated(self, value: Any) -> Any:
        """Return what only a simulated client has; None of one known by its files."""
        return value if self.args.weights is None else None

    @property
    def _init(self) -> str | None:
        """How a simulated client's weights were drawn, unless they are those of a file."""
        own = str(self.args.model).endswith(SUFFIX)
        return None if own else self._simulated(self.args.init or "U")

    @cached_property
    def _causes(self) -> list[Cause]:
        """Why it may have failed; what contradicts the assumptions is said in any case."""
        causes = likely_causes(self.problem, self.found, self.explained)
        if not self.args.defense:
            return causes
        # The defences have been named, and are not to be applied again.
        left = "" if self.args.aware else "--aware"
        named = [cause.advice.startswith("--defense") for cause in causes]
        return [
            replace(cause, advice=left) if again else cause
            for cause, again in zip(causes, named, strict=True)
        ]

    @property
    def _knows(self) -> dict[str, Fact]:
        """What the attacker was given, and how."""
        labels = Fact("found with the images", "assumed")
        if self.problem.matching.targets is not None:
            labels = Fact("inferred beforehand", "read off", "the last layer's gradient")
            labels = Fact("given", "said") if self.args.labels == "known" else labels
        defenses = Fact(", ".join(self.args.defense), "said") if self.args.aware else None
        return knows(self.problem.client, labels, defenses)

    def _certified(self) -> str:
        """Return for which images a linear layer's gradient vouches."""
        certified = self.explained.certified
        if certified is None or set(certified) == {None}:
            return "no linear layer can tell; the whole gradient decides"
        yes, no = (sum(one is answer for one in certified) for answer in (True, False))
        different = len(np.unique(self.found.images.reshape(len(certified), -1), axis=0))
        twice = f"; {different} different ones" if different < len(certified) == yes else ""
        return (
            f"{yes} of {len(certified)} images by the linear layers' gradients, {no} refused{twice}"
        )

    def write(self, directory: Path) -> None:
        """Write all `FILES` into the directory, those that cannot be made from others first."""
        found, outcome, truth = self.found, self.outcome, self.outcome.truth
        write_json(directory / "result.json", self.as_dict())
        arrays: dict[str, Any] = {
            "images": outcome.images,
            "labels": outcome.labels,
            "soft_labels": outcome.soft_labels,
            "distances": found.distances,
        }
        if truth is not None:
            arrays |= {"truth": truth, "labels_true": outcome.labels_true}
        write_arrays(directory / "reconstruction.npz", **arrays)
        labels, labels_true = self._labels(found), outcome.labels_true
        figure = emergence(found.snapshots, truth, labels=labels, labels_true=labels_true)
        save(figure, directory / "progress.png")
        below = None if truth is None else RECOVERED_MSE
        save(curves(found.snapshots, truth, success_below=below), directory / "loss.png")
        title = f"{'An image' if len(found.images) == 1 else 'Images'} out of a gradient"
        named: dict[str, Any] = {"labels": labels, "labels_true": labels_true}
        player(directory / "player.html", found.snapshots, truth, title=title, **named)

    def summary(self) -> str:
        """Return the few lines that tell a person what happened."""
        args, found, client = self.args, self.found, self.problem.client
        lines = {
            "attacked": self._attacked(),
            **{topic: str(fact) for topic, fact in client.facts.items()},
            "loss": str(client.loss.fact),
            "knows": in_one_line(self._knows),
        }
        if args.defense:
            knows = "knows of it" if args.aware else "does not know of it"
            lines["defended"] = f"{', '.join(args.defense)}; the attacker {knows}"
        rounded = found.reason == "stalled" and self.explained.verdict == "exact"
        ended = "as near as rounding lets it come" if rounded else found.reason
        after = f"{ended} after {counted(found.iterations, 'iteration')}"
        success = "success" if self.outcome.succeeded else "NO success"
        success = success if self.outcome.mse is None else self.outcome.sentence
        lines["result"] = f"{success}: {after}"
        lines["verdict"] = self.explained.sentence
        lines |= self._explained() if self.outcome.mse is None else self._judged(self.outcome.mse)
        lines["certified"] = self._certified()
        lines["cost"] = f"{found.evaluations} evaluations, {found.seconds:.1f} s"
        lines["files"] = written(args.out, FILES, "the result, pictures and a player")
        if not self.outcome.succeeded:
            for cause in self._causes[:MOST_CAUSES]:
                tried = f" ({cause.advice})" if cause.advice else ""
                before = f"{lines['why']}; or " if "why" in lines else ""
                lines["why"] = f"{before}{cause.text}{tried}"
            advice = next((cause.advice for cause in self._causes if cause.advice), "")
            if advice:
                lines["try"] = f"the same command with {advice}"
        return paragraphs(lines)

    def _attacked(self) -> str:
        args, client, model = self.args, self.problem.client, self._model
        many, first = counted(client.batch, "image"), args.index or 0
        if args.weights is not None and args.gradients is not None:
            source = f"the gradient of {many} in {args.gradients}, weights {args.weights}"
        elif args.weights is not None:
            source = f"what {many} changed from {args.weights} to {args.weights_after}"
        elif args.image is not None:
            source = f"image {args.image}"
        elif client.batch == 1:
            source = f"{args.data or 'glyphs'} image {first}"
        else:
            source = f"{args.data or 'glyphs'} images {first} to {first + client.batch - 1}"
        kind = type(client.network).__name__.lower()
        own = kind if client.network.activation is None else f"{kind} with {model.activation}"
        network = f"{getattr(client.network, 'name', own)}, {model.classes} classes"
        weights = "its own weights" if self._init is None else f"init {self._init}"
        drawn = f", {weights}, seed {self.problem.attacker.seed}"
        shape = "x".join(map(str, model.image_shape))
        return f"{source}, {shape}; {network}{self._simulated(drawn) or ''}"

    def _judged(self, mse: Array) -> dict[str, str]:
        """Return how close labels, images and gradient came to the truth."""
        assert self.outcome.psnr is not None, "it follows from the MSE"
        labels, true = listed(self.outcome.labels), listed(self.outcome.labels_true)
        return {
            "error": f"MSE {_range(mse, '.1e')}, PSNR {_range(self.outcome.psnr, '.1f')} dB",
            self._topic: f"{labels} ({'right' if labels == true else f'in truth {true}'})",
            "distance": f"{self.found.distance:.1e} between the gradients",
        }

    def _explained(self) -> dict[str, str]:
        """Return how well what was found explains the gradient, where no truth is known."""
        outcome, images = self.outcome, self.found.images
        origin = "read off beforehand"
        client = self.problem.client
        if client.premises.loss is None and client.loss.kind == "mse":
            origin = "of that squared error"
        elif self.problem.matching.targets is None:
            origin = "found with the images"
        pixels = f"{images.min():.2f} to {images.max():.2f}"
        if pixel_range(images) != (0.0, 1.0):
            known = outcome.verdict == "exact"
            normalised = ": the client did not have its pixels in [0, 1]" if known else ""
            pixels += f", drawn from black to white{normalised}"
        return {
            "distance": f"{outcome.distance:.1e} of the gradient's squared length; its "
            f"{'noise' if outcome.noisy else 'rounding'} allows {outcome.tolerance:.1e}",
            self._topic: f"{self._targets} ({origin})",
            "pixels": pixels,
        }

    def _labels(self, found: Reconstruction | Outcome) -> list[str] | None:
        client = self.problem.client
        heads = heads_of(client.model)
        return labels_told(client.loss.kind, found.soft_labels, found.labels, heads)

    @property
    def _targets(self) -> str:
        """What was found of each image beside its pixels: its label, its classes or its numbers."""
        labels, found = self._labels(self.outcome), self.outcome.soft_labels
        classes = found.shape[1]
        if labels is not None:
            return listed(labels)
        if self.problem.client.loss.kind == "bce":
            return ", ".join(listed(np.flatnonzero(row > 0.5)) or "none" for row in found)
        if classes > MOST_NUMBERS:
            return ", ".join(f"numbers from {y.min():.3g} to {y.max():.3g}" for y in found)
        return ", ".join(listed([f"{y:.3g}" for y in row]) for row in found)

    @property
    def _topic(self) -> str:
        name = "label" if self.problem.client.loss.kind != "mse" else "target"
        return name if len(self.outcome.labels) == 1 else f"{name}s"


def _range(values: Array, form: str) -> str:
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low} to {high}"

"""What an attack on a client's files leaves behind: the files of --out, and a summary.

No truth is known, so in result.json the keys that need it are null, and pictures show no error.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.attacks import Reconstruction
from tinyleak.backend import Array
from tinyleak.cli.attacker import Attacker
from tinyleak.cli.client import Client, settings_of
from tinyleak.cli.explained import Explained
from tinyleak.cli.output import counted, written
from tinyleak.cli.paragraphs import paragraphs
from tinyleak.cli.pictures import write_pictures
from tinyleak.cli.result import FILES, listed, readable, run_settings, versions
from tinyleak.report import Frame, write_arrays, write_json

DARKEST, LIGHTEST = -0.25, 1.25
"""Pixels beyond these were not in [0, 1]: the client normalised its images."""


@dataclass(frozen=True)
class FileResult:
    """An attack on files that has ended.

    Attributes:
        args: what was asked for.
        client: whose files they are.
        attacker: what it knew, and how it was run.
        found: what the attack found.
        explained: how well that explains the gradient.
    """

    args: argparse.Namespace
    client: Client
    attacker: Attacker
    found: Reconstruction
    explained: Explained

    def as_dict(self) -> dict[str, Any]:
        """Return what result.json says: the keys of any attack, and how success was told."""
        args, found, explained = self.args, self.found, self.explained
        inference = self.attacker.inference
        return {
            "succeeded": explained.succeeded,
            "reason": found.reason,
            "mse": None,
            "psnr": None,
            "labels_true": None,
            "labels_recovered": found.labels,
            "labels_inferred": None if inference is None else inference.labels,
            "gradient_distance": found.distance,
            "relative_distance": explained.distance,
            "succeeded_below": explained.tolerance,
            "loss_factor": explained.factor,
            "pixel_range": [found.images.min(), found.images.max()],
            "iterations": found.iterations,
            "evaluations": found.evaluations,
            "seconds": found.seconds,
            "settings": {
                "weights": readable(args.weights),
                "gradients": readable(args.gradients),
                "weights_after": readable(args.weights_after),
                **settings_of(args, self.client),
                **run_settings(args, self.attacker),
            },
            "versions": versions(args.device),
        }

    def write(self, directory: Path) -> None:
        """Write all `FILES` into the directory, those that cannot be made from others first.

        Raises:
            OSError: a file cannot be written.
        """
        found = self.found
        write_json(directory / "result.json", self.as_dict())
        write_arrays(
            directory / "reconstruction.npz",
            images=found.images,
            labels=found.labels,
            soft_labels=found.soft_labels,
            distances=found.distances,
        )
        write_pictures(directory, self._frames(), found.labels)

    def _frames(self) -> list[Frame]:
        """Return the stages, with pixels in the range that can be drawn."""
        low, high = self._drawn()
        return [
            Frame(iteration, (images - low) / (high - low), None, distance)
            for iteration, images, distance in self.found.frames
        ]

    def _drawn(self) -> tuple[float, float]:
        """Return which pixels are drawn black and white: 0 and 1, unless the client had others."""
        low, high = float(self.found.images.min()), float(self.found.images.max())
        usual = low >= DARKEST and high <= LIGHTEST
        return (0.0, 1.0) if usual or not low < high < np.inf else (low, high)

    def summary(self) -> str:
        """Return the few lines that tell a person what happened."""
        args, client, found, explained = self.args, self.client, self.found, self.explained
        model = client.model
        many = "1 image" if client.batch == 1 else f"{client.batch} images"
        lines = {
            "attacked": f"{_source(args, many)}; "
            f"{settings_of(args, client)['model']} with {model.activation}, "
            f"{'x'.join(map(str, model.image_shape))}, {model.classes} classes",
        }
        if client.notes.said():
            lines["told"] = f"{client.notes.said()} (by the notes about the files)"
        if client.local is not None:
            lines["steps"] = (
                f"{client.local.count} of plain SGD, each with the same whole batch and without "
                "momentum or decay: that is assumed"
            )
        if args.defense:
            lines["defended"] = f"{', '.join(args.defense)}; the attacker knows of it"
        if client.activation is not None:
            lines["activation"] = client.activation
        lines["loss"] = client.loss.said
        iterations = counted(found.iterations, "iteration")
        lines["result"] = f"{self._verdict()}: {found.reason} after {iterations}"
        lines["result"] += self._advice()
        allowed = "its noise" if explained.noisy else "its rounding"
        lines["distance"] = (
            f"{explained.distance:.1e} of the gradient's squared length; {allowed} allows "
            f"{explained.tolerance:.1e}"
        )
        origin = "found with the images" if self.attacker.labels is None else "read off beforehand"
        lines["label" if client.batch == 1 else "labels"] = f"{listed(found.labels)} ({origin})"
        lines["pixels"] = self._pixels()
        lines["cost"] = f"{found.evaluations} evaluations, {found.seconds:.1f} s"
        lines["files"] = written(args.out, FILES, "the result, pictures and a player")
        return paragraphs(lines)

    def _verdict(self) -> str:
        if not self.explained.succeeded:
            return "NO success, what was found does not explain the gradient"
        if self.explained.noisy:
            return "success, as far as noise on the gradient lets tell (tinyleak audit says more)"
        return "success, what was found explains the gradient"

    def _advice(self) -> str:
        """Return what may help where an attack on a batch has failed."""
        if self.explained.succeeded or self.client.batch == 1:
            return ""
        return "; --restarts, or --method lbfgs+levenberg-marquardt, may do better"

    def _pixels(self) -> str:
        """Return how far the pixels reach, and how they are drawn."""
        images: Array = self.found.images
        text = f"{images.min():.2f} to {images.max():.2f}"
        low, high = self._drawn()
        if (low, high) != (0.0, 1.0):
            text += ", drawn from black to white"
            if self.explained.succeeded:
                text += ": the client normalised its images"
        return text


def _source(args: argparse.Namespace, many: str) -> str:
    if args.gradients is None:
        return f"what {many} changed from {args.weights} to {args.weights_after}"
    return f"the gradient of {many} in {args.gradients}, weights {args.weights}"

"""The pictures of an attack on images: its progress, its curves, and a player."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyleak.backend import Array
from tinyleak.client.simulated import RECOVERED_MSE
from tinyleak.report import Frame, loss_figure, player, progress_figure


def write_pictures(
    directory: Path,
    frames: Sequence[Frame],
    labels: Array,
    truth: Array | None = None,
    labels_true: Array | None = None,
) -> None:
    """Write progress.png, loss.png and player.html into the directory.

    Args:
        directory: where to.
        frames: the attack's.
        labels: (N,), found.
        truth: (N, C, H, W), the client's images, if they are known.
        labels_true: (N,), their labels, if they are known.

    Raises:
        OSError: a file cannot be written.
    """
    progress_figure(
        directory / "progress.png",
        frames,
        truth,
        labels_true=None if labels_true is None else labels_true.tolist(),
        labels_recovered=labels.tolist(),
    )
    errors = [frame.mse for frame in frames if frame.mse is not None]
    loss_figure(
        directory / "loss.png",
        [frame.iteration for frame in frames],
        [frame.distance for frame in frames],
        np.stack(errors) if errors else None,
        success_below=RECOVERED_MSE if errors else None,
    )
    title = "An image out of a gradient" if len(labels) == 1 else "Images out of a gradient"
    player(directory / "player.html", frames, truth, title=title)

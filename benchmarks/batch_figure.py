"""The figures of batches: what each method found of one, how its error fell, what batches cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyleak.report.canvas import drawing, number, save, show_image

COLOURS = ("#D55E00", "#0072B2", "#009E73")


class Found(NamedTuple):
    """What one method found of a batch.

    Attributes:
        images: (N, C, H, W), in the order of the truth.
        mse: (N,).
        seconds: (K,) of processor time at each iteration.
        worst: (K,) the largest error of the batch then.
    """

    images: np.ndarray
    mse: np.ndarray
    seconds: np.ndarray
    worst: np.ndarray


def batch_figure(path: Path, truth: np.ndarray, found: Mapping[str, Found]) -> None:
    """Draw a batch, a row for the truth and each method, and beside them the error over time.

    Args:
        path: the PNG to write.
        truth: (N, C, H, W).
        found: what was found, by the method's name.
    """
    count = len(truth)
    with drawing(1.1 * count + 4.5, 1.25 * (1 + len(found)) + 0.3) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=(1.1 * count, 4.5))
        grid = left.subplots(1 + len(found), count, squeeze=False)
        for axes, image in zip(grid[0], truth, strict=True):
            show_image(axes, image)
        grid[0, 0].set_ylabel("truth", fontsize=9)
        for row, (name, one) in zip(grid[1:], found.items(), strict=True):
            row[0].set_ylabel(name, fontsize=9)
            for axes, image, error in zip(row, one.images, one.mse, strict=True):
                show_image(axes, image)
                axes.set_xlabel(f"MSE {number(float(error))}", fontsize=7)
        axes = right.subplots()
        axes.set(yscale="log", xlabel="seconds of processor time", ylabel="largest MSE")
        axes.spines[["top", "right"]].set_visible(False)
        for (name, one), colour in zip(found.items(), COLOURS, strict=False):
            axes.plot(one.seconds, one.worst, "-", color=colour, label=name)
        axes.legend(frameon=False, fontsize=8)
        save(figure, path)


def cost_figure(
    path: Path, costs: Mapping[str, Sequence[tuple[int, float, float]]], pixels: int
) -> None:
    """Draw what attacks took, a dot each, against the number of images.

    Args:
        path: the PNG to write.
        costs: for each initialisation, N, seconds of processor time and MiB of each attack.
        pixels: of an image.
    """
    with drawing(8.0, 3.2) as figure:
        panels = figure.subplots(1, 2)
        scales = {"seconds of processor time": "log", "MiB of memory": "linear"}
        for place, (axes, (what, scale)) in enumerate(
            zip(panels, scales.items(), strict=True), start=1
        ):
            for (init, found), colour in zip(costs.items(), COLOURS, strict=False):
                batches = sorted({one[0] for one in found})
                medians = [np.median([one[place] for one in found if one[0] == n]) for n in batches]
                each = [one[0] for one in found], [one[place] for one in found]
                axes.plot(*each, ".", color=colour, alpha=0.4)
                axes.plot(batches, medians, "-", color=colour, label=f"init {init}")
            ticks = sorted({one[0] for found in costs.values() for one in found})
            axes.set(
                xscale="log", yscale=scale, xlabel=f"N, images of {pixels} pixels", ylabel=what
            )
            axes.set_xticks(ticks, [f"{n}" for n in ticks], fontsize=8)
            axes.minorticks_off()
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].legend(frameon=False, fontsize=8)
        save(figure, path)

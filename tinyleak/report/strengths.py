"""Two pictures of defences: what comes back at each strength, and how an attack went there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tinyleak.backend import Array
from tinyleak.report.canvas import QUIET_COLOUR, drawing, number, on_log_scale, show_image

Numbers: TypeAlias = Sequence[float] | Sequence[int] | Array
Curve: TypeAlias = tuple[Numbers, Numbers]
"""Iterations and the values after them, (K,) and (K,)."""

LIGHTEST = 0.88
"""How far up matplotlib's viridis curves go: beyond, its yellow is lost on white."""


def defence_grid(
    reconstructions: Mapping[str, Mapping[str, Array]],
    truth: Array | None = None,
) -> Any:
    """Draw a reconstruction for each strength of each defence: a row for a defence.

    Args:
        reconstructions: images (C, H, W), C = 1 or 3, by strength, by defence, in their order.
            The strengths of one defence need not be those of another.
        truth: the client's image; it is drawn at the left, and each image's MSE below it.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: no image; one that cannot be drawn; images and a truth of different shapes.
    """
    images = [image for row in reconstructions.values() for image in row.values()]
    _check_images(images, truth)
    _, height, width = images[0].shape
    rows = len(reconstructions)
    columns = max(map(len, reconstructions.values())) + (truth is not None)
    captions = 0.6 if truth is not None else 0.35
    with drawing(1.45 * columns + 0.4, rows * (1.4 * height / width + captions)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for line, (defence, row) in zip(grid, reconstructions.items(), strict=True):
            cells = list(line)
            if truth is not None:
                _show(cells.pop(0), truth, "truth")
            for axes, (strength, image) in zip(cells, row.items(), strict=False):
                _show(axes, image, strength)
                if truth is not None:
                    axes.set_xlabel(f"MSE {number(float(np.mean((image - truth) ** 2)))}")
            line[0].set_axis_on()
            line[0].set(xticks=[], yticks=[])
            line[0].set_ylabel(defence, fontweight="bold")
    return figure


def _show(axes: Any, image: Array, title: str) -> None:
    axes.set_axis_on()
    axes.set_title(title)
    show_image(axes, image)


def _check_images(images: Sequence[Array], truth: Array | None) -> None:
    if not images:
        raise ValueError("there is no reconstruction to draw; give at least one")
    shape = images[0].shape
    if len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape:
        raise ValueError(
            f"an image of shape {shape} cannot be drawn; give (C, H, W) with C = 1 or 3"
        )
    for image in (*images, *(() if truth is None else (truth,))):
        if image.shape != shape:
            raise ValueError(
                f"images of shapes {shape} and {image.shape} were given; give all, and the truth, "
                "one shape"
            )


def strength_curves(
    distances: Mapping[str, Curve],
    mse: Mapping[str, Curve],
    *,
    title: str = "strength",
    success_below: float | None = None,
) -> Any:
    """Draw distance and MSE against the iteration, a line for each strength, side by side.

    The lines go from dark to light in the order of the strengths. A value of exactly zero is
    drawn a decade below the smallest other of its line; NaN and infinity are gaps.

    Args:
        distances: by strength, iterations and the distance between the gradients after them.
        mse: by strength, iterations (which may be others) and the mean squared error after them.
        title: over the names of the strengths, such as "Gaussian, variance".
        success_below: the MSE below which an image counts as recovered, marked by a thin line.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: no strength; strengths of one that the other lacks; a curve without points, or
            with another number of iterations than of values.
    """
    _check_curves(distances, mse)
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0, LIGHTEST, len(distances)))
    with drawing(11, 4.2) as figure:
        panels = figure.subplots(1, 2)
        for axes, name, curves in zip(
            panels, ("gradient distance", "MSE"), (distances, mse), strict=True
        ):
            axes.set(yscale="log", xlabel="iteration", title=name)
            axes.margins(x=0.01)
            axes.grid(axis="y", color="#E5E5E5")
            axes.spines[["top", "right"]].set_visible(False)
            for strength, shade in zip(distances, shades, strict=True):
                iterations, values = curves[strength]
                heights = on_log_scale(np.asarray(values, dtype=np.float64))
                # A marker shows what a line cannot: a single point.
                marker = "o" if len(heights) == 1 else None
                axes.plot(iterations, heights, color=shade, label=strength, marker=marker)
            axes.minorticks_off()
        if success_below is not None:
            label = f"recovered: MSE < {number(success_below)}"
            style = {"color": QUIET_COLOUR, "linewidth": 1, "linestyle": (0, (4, 4))}
            panels[1].axhline(success_below, label=label, **style)
        handles, names = panels[1].get_legend_handles_labels()
        figure.legend(handles, names, title=title, loc="outside right upper", frameon=False)
    return figure


def _check_curves(distances: Mapping[str, Curve], mse: Mapping[str, Curve]) -> None:
    if not distances or set(distances) != set(mse):
        raise ValueError(
            f"distances of strengths {list(distances)} and errors of {list(mse)} were given; "
            "give both of the same strengths, at least one"
        )
    for name, curves in (("distance", distances), ("MSE", mse)):
        for strength, (iterations, values) in curves.items():
            if len(iterations) == 0 or len(iterations) != len(values):
                raise ValueError(
                    f"the {name} of strength {strength} has {len(values)} values for "
                    f"{len(iterations)} iterations; give one for each, and at least one"
                )

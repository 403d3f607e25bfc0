"""Pictures of an attack: how images emerge, what was found beside the truth, how distance falls."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyleak.backend import Array
from tinyleak.report.canvas import (
    DISTANCE_COLOUR,
    MSE_COLOUR,
    QUIET_COLOUR,
    Floats,
    drawing,
    number,
    on_log_scale,
    show_image,
)
from tinyleak.report.snapshots import SnapshotLike, choose, picture, prepare, require_images, scaled

MOST_IMAGES = 8  # images of a batch that a figure shows: at 1.45 inches each, the width of a slide
LINE = 0.23  # inches that a line of text takes, in letters of 12 points

Labels = Sequence[object] | Array | None


class Cell(NamedTuple):
    """An image (C, H, W) of a figure, and the lines to write below it."""

    image: Array
    lines: list[str]


class Moment(NamedTuple):
    """The images of a batch at one time, and what that time is called."""

    title: str
    cells: list[Cell]


def emergence(
    snapshots: Sequence[SnapshotLike],
    truth: Array | None = None,
    *,
    labels: Labels = None,
    labels_true: Labels = None,
    count: int = 8,
) -> Any:
    """Draw the truth, then the reconstruction at `count` iterations: a matplotlib `Figure`.

    Images stand below each other, or beside each other if there are more of them than iterations.

    Args:
        snapshots: moments of an attack, the start first, with images (N, C, H, W); some that show
            the emergence are chosen.
        truth: (N, C, H, W), the client's images.
        labels: (N,), found, in the snapshots' order; written under the last reconstruction.
        labels_true: (N,), the client's; written under the truth.
        count: reconstructions shown.

    Raises:
        ValueError: no snapshot; images that cannot be drawn; a truth or labels that do not fit
            them.
    """
    moments, order, truth = prepare(snapshots, truth)
    _require_labels(len(order), labels, labels_true)
    shown = choose(moments, count)
    drawn = [] if truth is None else [_moment("truth", truth, labels=labels_true)]
    for one in shown[:-1]:
        drawn.append(_moment(f"iteration {one.iteration}", one.images, one.mse))
    last = shown[-1]
    found = None if labels is None else [labels[index] for index in order]
    drawn.append(_moment(f"iteration {last.iteration}", last.images, last.mse, found))
    return _draw(drawn, len(order))


def side_by_side(
    images: Array,
    truth: Array | None = None,
    labels: Labels = None,
    labels_true: Labels = None,
    mse: Array | None = None,
) -> Any:
    """Draw what was found beside the truth, if that is known: a matplotlib `Figure`.

    The truth is left of one image, and above several.

    Args:
        images: (N, C, H, W), found.
        truth: (N, C, H, W), the client's images, in the same order.
        labels: (N,), found.
        labels_true: (N,), the client's.
        mse: (N,), the error of each image.

    Raises:
        ValueError: images that cannot be drawn; a truth or labels that do not fit them.
    """
    require_images(images.shape, truth)
    _require_labels(len(images), labels, labels_true)
    reference = images if truth is None else truth
    drawn = [_moment("found", picture(scaled(images, reference)), mse, labels)]
    if truth is not None:
        drawn.insert(0, _moment("truth", picture(scaled(truth, reference)), labels=labels_true))
    return _draw(drawn, len(images))


def _require_labels(images: int, *given: Labels) -> None:
    for labels in given:
        if labels is not None and len(labels) != images:
            raise ValueError(f"{len(labels)} labels were given for {images} images; give one each")


def _moment(title: str, images: Array, mse: Array | None = None, labels: Labels = None) -> Moment:
    """Return the first images, each with its error and its label below it, as far as known."""
    cells = [Cell(image, []) for image in images[:MOST_IMAGES]]
    for index, cell in enumerate(cells):
        if mse is not None:
            cell.lines.append(f"MSE {number(float(mse[index]))}")
        if labels is not None:
            cell.lines.append(f"label {labels[index]}")
    return Moment(title, cells)


def _draw(moments: list[Moment], images: int) -> Any:
    """Draw the longer of moments and images across; say how many images are left out."""
    down = 1 < len(moments[0].cells) >= len(moments)
    rows = [one.cells for one in moments]
    rows = rows if down else [list(row) for row in zip(*rows, strict=True)]
    _, height, width = rows[0][0].image.shape
    # The captions of a row get as many lines, so that they stand level.
    depths = [max(len(cell.lines) for cell in row) for row in rows]
    margin = LINE + 0.07
    wide = 1.45 * len(rows[0]) + margin * down
    tall = len(rows) * (1.4 * height / width + 0.12) + LINE * sum(depths)
    tall += margin * (not down) + margin * (images > MOST_IMAGES)
    with drawing(wide, tall) as figure:
        grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
        for line, row, depth in zip(grid, rows, depths, strict=True):
            for axes, cell in zip(line, row, strict=True):
                show_image(axes, cell.image)
                axes.set_xlabel("\n".join([*cell.lines, *[" "] * (depth - len(cell.lines))]))
        for index, (title, _) in enumerate(moments):
            write = grid[index, 0].set_ylabel if down else grid[0, index].set_title
            write(title, fontweight="bold" if title == "truth" else "normal")
        if images > MOST_IMAGES:
            figure.supxlabel(f"the first {MOST_IMAGES} of the batch's {images} images", fontsize=12)
    return figure


def curves(
    snapshots: Sequence[SnapshotLike],
    truth: Array | None = None,
    *,
    success_below: float | None = None,
) -> Any:
    """Draw the gradient distance, and the error, against the iteration: a matplotlib `Figure`.

    A value of exactly zero is drawn a decade below the smallest other; NaN and infinity are gaps.

    Args:
        snapshots: moments of an attack, with images (N, C, H, W).
        truth: (N, C, H, W), the client's images; then there is a line for the mean squared error of
            each.
        success_below: the MSE below which an image counts as recovered, marked by a thin line.

    Raises:
        ValueError: no snapshot, or shapes that differ.
    """
    moments, _, _ = prepare(snapshots, truth)
    iterations = [one.iteration for one in moments]
    lines = [("gradient distance", DISTANCE_COLOUR, np.array([one.distance for one in moments]))]
    if truth is not None:
        errors = np.array([one.mse for one in moments])
        lines.append(("MSE" if len(truth) == 1 else "MSE of each image", MSE_COLOUR, errors))
    with drawing(8, 4.5) as figure:
        axes = figure.add_subplot(yscale="log", xlabel="iteration")
        axes.margins(x=0.01)
        axes.xaxis.get_major_locator().set_params(integer=True)
        # As the legend has it; matplotlib's own would load a parser of formulas for it.
        axes.yaxis.set_major_formatter(lambda value, _: number(value))
        axes.grid(axis="y", color="#E5E5E5")
        axes.spines[["top", "right"]].set_visible(False)
        ends = []
        for name, colour, values in lines:
            drawn = on_log_scale(values).reshape(len(values), -1)
            # A marker shows what a line cannot: a single point.
            marker = "o" if len(drawn) == 1 else None
            thickness = 2 if drawn.shape[1] == 1 else 1.2
            axes.plot(iterations, drawn, color=colour, linewidth=thickness, marker=marker)
            ends.append((_end(drawn), name, colour))
        if success_below is not None:
            axes.axhline(success_below, color=QUIET_COLOUR, linewidth=1, linestyle=(0, (4, 4)))
            ends.append((success_below, f"recovered: MSE < {number(success_below)}", QUIET_COLOUR))
        axes.minorticks_off()
        _label_ends(axes, ends)
    return figure


def _end(drawn: Floats) -> float:
    """Return the height at which lines (K, N) end: of the highest at the last point drawn, or 1."""
    seen = drawn[np.isfinite(drawn).any(axis=1)]
    return float(np.nanmax(seen[-1])) if len(seen) else 1.0


def _label_ends(axes: Any, ends: list[tuple[float, str, str]]) -> None:
    """Write each name beside its line's end, (height, name, colour), a line of text apart."""
    low, high = np.log(axes.get_ylim())
    lowest = 0.0
    for end, name, colour in sorted(ends):
        height = max(float((np.log(end) - low) / (high - low)), lowest)
        lowest = height + 0.07
        axes.annotate(name, (1.01, height), xycoords="axes fraction", color=colour, va="center")

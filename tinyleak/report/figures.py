"""Two pictures of an attack: how the image emerges, and how the distance falls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.files import PathLike, write_atomically
from tinyleak.report.frames import Floats, Frame, check_frames, choose_frames, number, pixels

DISTANCE_COLOUR, MSE_COLOUR, QUIET_COLOUR = "#0072B2", "#D55E00", "#666666"
"""Blue and vermilion of Okabe and Ito's palette, told apart by any colour vision; and a grey."""

ROWS = 8
"""Images of a batch that `progress_figure` has room for."""

PNG_METADATA = {"Software": None}
"""Leave out matplotlib's version: two versions that draw alike should write alike."""


def progress_figure(
    path: PathLike,
    frames: Sequence[Frame],
    truth: Array | None = None,
    *,
    labels_true: Sequence[object] | None = None,
    labels_recovered: Sequence[object] | None = None,
    count: int = 8,
) -> None:
    """Draw the truth, then the reconstruction at `count` iterations: a PNG, a row for an image.

    Args:
        path: the PNG to write.
        frames: the attack's frames; `choose_frames` chooses among them.
        truth: the images that the client trained on, (N, C, H, W), in the order of the frames'.
        labels_true: a label for each image, written under the truth.
        labels_recovered: a label for each image, written under the last reconstruction.
        count: reconstructions shown.

    Raises:
        ValueError: no frame; images that cannot be drawn; a truth, errors or labels that do not
            fit them.
        OSError: the file cannot be written.
    """
    check_frames(frames, truth)
    shown = choose_frames(frames, count)
    images, _, height, width = frames[0].images.shape
    for labels in (labels_true, labels_recovered):
        if labels is not None and len(labels) != images:
            raise ValueError(f"{len(labels)} labels were given for {images} images; give one each")
    rows = min(images, ROWS)
    columns = []
    if truth is not None:
        columns.append(("truth", truth, _captions(rows, None, labels_true)))
    for frame in shown:
        labels = labels_recovered if frame is shown[-1] else None
        captions = _captions(rows, frame.mse, labels)
        columns.append((f"iteration {frame.iteration}", frame.images, captions))
    # Every caption gets as many lines, so that they stand level across the figure.
    depth = max(len(lines) for _, _, captions in columns for lines in captions)
    row_height = 1.4 * height / width + 0.23 * depth + 0.12
    with drawing(1.45 * len(columns), rows * row_height + 0.3) as figure:
        grid = figure.subplots(rows, len(columns), squeeze=False)
        for across, (title, batch, captions) in enumerate(columns):
            grid[0, across].set_title(title, fontweight="bold" if title == "truth" else "normal")
            for axes, image, lines in zip(grid[:, across], batch[:rows], captions, strict=True):
                show_image(axes, image)
                axes.set_xlabel("\n".join([*lines, *[" "] * (depth - len(lines))]))
        if images > rows:
            figure.supxlabel(f"the first {rows} of the batch's {images} images", fontsize=12)
        save(figure, path)


def _captions(rows: int, mse: Array | None, labels: Sequence[object] | None) -> list[list[str]]:
    """The lines to write under each of the first images: its error and its label, if known."""
    captions: list[list[str]] = [[] for _ in range(rows)]
    if mse is not None:
        for lines, error in zip(captions, mse[:rows], strict=True):
            lines.append(f"MSE {number(float(error))}")
    if labels is not None:
        for lines, label in zip(captions, labels[:rows], strict=True):
            lines.append(f"label {label}")
    return captions


def loss_figure(
    path: PathLike,
    iterations: Sequence[int] | Array,
    distances: Sequence[float] | Array,
    mse: Sequence[float] | Array | None = None,
    *,
    success_below: float | None = None,
) -> None:
    """Draw the gradient distance, and the error, against the iteration on a log scale: a PNG.

    A value of exactly zero is drawn a decade below the smallest other; NaN and infinity are gaps.

    Args:
        path: the PNG to write.
        iterations: the optimiser's count, (K,).
        distances: the distance between the gradients, (K,).
        mse: the mean squared error, (K,), or (K, N) for a line for each image of the batch.
        success_below: the MSE below which an image counts as recovered, marked by a thin line.

    Raises:
        ValueError: no iteration, or lengths that differ.
        OSError: the file cannot be written.
    """
    lines = [("gradient distance", DISTANCE_COLOUR, np.asarray(distances, dtype=np.float64))]
    if mse is not None:
        errors = np.asarray(mse, dtype=np.float64)
        name = "MSE" if errors.size == len(errors) else "MSE of each image"
        lines.append((name, MSE_COLOUR, errors))
    for name, _, values in lines:
        if len(iterations) == 0 or len(values) != len(iterations):
            raise ValueError(
                f"the {name} has {len(values)} values for {len(iterations)} iterations; "
                "give one for each, and at least one"
            )
    with drawing(8, 4.5) as figure:
        axes = figure.add_subplot(yscale="log", xlabel="iteration")
        axes.margins(x=0.01)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color="#E5E5E5")
        axes.spines[["top", "right"]].set_visible(False)
        ends = []
        for name, colour, values in lines:
            curves = on_log_scale(values).reshape(len(values), -1)
            # A marker shows what a line cannot: a single point.
            marker = "o" if len(curves) == 1 else None
            thickness = 2 if curves.shape[1] == 1 else 1.2
            axes.plot(iterations, curves, color=colour, linewidth=thickness, marker=marker)
            ends.append((_end(curves), name, colour))
        if success_below is not None:
            axes.axhline(success_below, color=QUIET_COLOUR, linewidth=1, linestyle=(0, (4, 4)))
            ends.append((success_below, f"recovered: MSE < {number(success_below)}", QUIET_COLOUR))
        axes.minorticks_off()
        _label_ends(axes, ends)
        save(figure, path)


def on_log_scale(values: Floats) -> Floats:
    """Values that a log axis can draw: zero a decade below the smallest other, the rest gaps."""
    usable = np.isfinite(values) & (values > 0)
    floor = values[usable].min() / 10 if usable.any() else 1.0
    return np.where(usable, values, np.where(values == 0, floor, np.nan))


def _end(curves: Floats) -> float:
    """The height at which curves (K, N) end: of the highest at the last point drawn, or 1."""
    drawn = curves[np.isfinite(curves).any(axis=1)]
    return float(np.nanmax(drawn[-1])) if len(drawn) else 1.0


def _label_ends(axes: Any, ends: list[tuple[float, str, str]]) -> None:
    """Write each name beside its line's end, (height, name, colour), a line of text apart."""
    low, high = np.log(axes.get_ylim())
    lowest = 0.0
    for end, name, colour in sorted(ends):
        height = max(float((np.log(end) - low) / (high - low)), lowest)
        lowest = height + 0.07
        axes.annotate(name, (1.01, height), xycoords="axes fraction", color=colour, va="center")


@contextmanager
def drawing(width: float, height: float) -> Iterator[Any]:
    """Give a figure of a size in inches, in matplotlib's own style and not the user's."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context(["default", {"font.size": 12, "axes.titlesize": 12}]):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def show_image(axes: Any, image: Array) -> Any:
    """Draw an image (C, H, W), C = 1 or 3, with nothing around it."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes.imshow(pixels(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def save(figure: Any, path: PathLike) -> None:
    """Write a figure as a PNG of 200 dots an inch."""

    def write(file: BinaryIO) -> None:
        figure.savefig(file, format="png", dpi=200, metadata=PNG_METADATA)

    write_atomically(path, write)

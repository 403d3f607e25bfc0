"""The figures of `defenses.py`: leak against accuracy, reconstructions, and the way to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.report.figures import drawing, save, show_image
from tinyleak.report.frames import number

NAIVE, AWARE, SMOOTH = "naive", "aware", "aware, smooth"
FAMILIES = {
    "gaussian": "#0072B2",
    "laplacian": "#56B4E9",
    "prune": "#D55E00",
    "prune-global": "#E69F00",
    "clip": "#009E73",
    "dpsgd": "#CC79A7",
    "float16": "#000000",
    "bfloat16": "#000000",
    "int8": "#000000",
    "int8-affine": "#000000",
}
"""A colour for each defence, of Okabe and Ito's palette."""

LOST = 1.0
"""Errors from here on are drawn here: noise of the variance of a fair coin has 0.25."""

LEGIBLE = 0.03
"""About where a digit stops being legible to the eye."""


def trade_figure(
    path: Path, medians: Mapping[tuple[str, str, str], float], scores: Mapping[str, float]
) -> None:
    """Draw the error of the reconstruction against the accuracy of training, by defence.

    Args:
        path: the PNG to write.
        medians: median MSE by defence, initialisation and attacker.
        scores: test accuracy by defence.
    """
    panels = [
        ("does not know of the defence", [NAIVE]),
        ("knows of it", [SMOOTH, AWARE, NAIVE]),
    ]
    with drawing(12, 5.2) as figure:
        all_axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (title, attackers) in zip(all_axes, panels, strict=True):
            axes.set(title=f"an attacker who {title}", xlabel="test accuracy, %", yscale="log")
            axes.axhspan(LEGIBLE, 2 * LOST, color="#F2F2F2", linewidth=0)
            axes.spines[["top", "right"]].set_visible(False)
            for family, colour in FAMILIES.items():
                points = _points(family, attackers, medians, scores)
                if points:
                    _draw_family(axes, family, colour, points)
            _draw_family(axes, "none", "#666666", _points("none", [NAIVE], medians, scores))
            axes.minorticks_off()
            axes.set_ylim(top=2 * LOST)
        all_axes[0].set_ylabel("median MSE of the reconstruction")
        all_axes[1].text(11, 1.25 * LEGIBLE, "illegible from here up", color="#666666", fontsize=9)
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=7, frameon=False)
        save(figure, path)


def _points(
    family: str,
    attackers: list[str],
    medians: Mapping[tuple[str, str, str], float],
    scores: Mapping[str, float],
) -> list[tuple[float, float, str]]:
    """Return accuracy in %, error and strength, at U weights, for each strength of a defence."""
    points = []
    for text, score in scores.items():
        name, _, strength = text.partition(":")
        known = [medians[text, "U", a] for a in attackers if (text, "U", a) in medians]
        if name == family and known:
            points.append((100 * score, min(known[0], LOST), strength))
    return points


def _draw_family(
    axes: Any, family: str, colour: str, points: list[tuple[float, float, str]]
) -> None:
    lonely = family not in ("gaussian", "laplacian", "prune", "prune-global", "clip", "dpsgd")
    xs, ys, strengths = zip(*points, strict=True)
    axes.plot(
        xs, ys, "o-", color=colour, markersize=5, label=None if lonely else family, linewidth=1.5
    )
    for x, y, strength in points:
        axes.annotate(
            family if lonely else strength,
            (x, y),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=8,
            color=colour,
        )


GRID: list[tuple[str, list[str], str]] = [
    (
        "Gaussian noise",
        ["gaussian:1e-5", "gaussian:1e-4", "gaussian:1e-3", "gaussian:1e-2", "gaussian:1e-1"],
        SMOOTH,
    ),
    ("pruning", ["prune:0.1", "prune:0.3", "prune:0.5", "prune:0.7", "prune:0.9"], AWARE),
    ("rounding", ["float16", "bfloat16", "int8", "int8-affine"], AWARE),
    ("clipping", ["clip:1.0", "clip:0.1"], AWARE),
    ("DP-SGD", ["dpsgd:1.0,0.001", "dpsgd:1.0,0.01", "dpsgd:1.0,0.1", "dpsgd:1.0,1.0"], SMOOTH),
]
"""The rows of the grid of reconstructions: a title, the strengths, and who else attacks."""


def reconstruction_figure(
    path: Path, truth: np.ndarray, found: Mapping[tuple[str, str], tuple[np.ndarray, float]]
) -> None:
    """Draw one digit as each attacker found it, a pair of rows for each defence.

    Args:
        path: the PNG to write.
        truth: (C, H, W).
        found: the image and its error, by defence and attacker.
    """
    columns = 1 + max(len(texts) for _, texts, _ in GRID)
    lines = [
        (f"{title}\n{attacker}", texts, attacker)
        for title, texts, other in GRID
        for attacker in (NAIVE, other)
    ]
    with drawing(1.55 * columns, 1.95 * len(lines)) as figure:
        grid = figure.subplots(len(lines), columns, squeeze=False)
        for all_axes, (title, texts, attacker) in zip(grid, lines, strict=True):
            show_image(all_axes[0], truth)
            all_axes[0].set_ylabel(title, fontsize=10)
            all_axes[0].set_title("truth", fontsize=9, fontweight="bold")
            for axes, text in zip(all_axes[1:], texts, strict=False):
                if (text, attacker) in found:
                    image, error = found[text, attacker]
                    show_image(axes, image)
                    axes.set_title(text, fontsize=9)
                    axes.set_xlabel(f"MSE {number(error)}", fontsize=9)
            for axes in all_axes[1:]:
                if not axes.images:
                    axes.set_visible(False)
        save(figure, path)


def emergence_figure(path: Path, courses: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Draw distance and error against the iteration, a line for each strength of noise.

    Args:
        path: the PNG to write.
        courses: for each strength "iterations", "distances" and "mse", all (K,).
    """
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0, 0.85, max(len(courses), 2)))
    with drawing(11, 4.2) as figure:
        for axes, key, name in zip(
            figure.subplots(1, 2), ("distances", "mse"), ("gradient distance", "MSE"), strict=True
        ):
            axes.set(yscale="log", xlabel="iteration", title=name)
            axes.spines[["top", "right"]].set_visible(False)
            for (text, run), shade in zip(courses.items(), shades, strict=False):
                axes.plot(run["iterations"], run[key], color=shade, label=text)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
        save(figure, path)

"""The figures of `defenses.py`: leak against accuracy, reconstructions, and the way to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.report.canvas import drawing, number, save, show_image

NAIVE, AWARE, SMOOTH = "naive", "aware", "aware, smooth"
PANELS = {
    "Gaussian noise": {"gaussian": "#0072B2"},
    "Laplacian noise": {"laplacian": "#0072B2"},
    "clipping, and noise after it": {"clip": "#009E73", "dpsgd": "#CC79A7"},
    "pruning, of each tensor": {"prune": "#D55E00"},
    "pruning, of all at once": {"prune-global": "#D55E00"},
    "rounding": dict.fromkeys(("float16", "bfloat16", "int8", "int8-affine"), "#56606A"),
}
"""What each panel of the trade shows, and its colours, of Okabe and Ito's palette."""

LOST = 1.0
"""Errors from here on are drawn here: noise of the variance of a fair coin has 0.25."""

LEGIBLE = 0.03
"""About where a digit stops being legible to the eye."""

WORST = 72.0
"""Accuracies below this, in %, are drawn here, and written beside the point."""


def trade_figure(
    path: Path, medians: Mapping[tuple[str, str, str], float], scores: Mapping[str, float]
) -> None:
    """Draw the error of the reconstruction against the accuracy of training, by defence.

    A good defence is at the upper right. An open point is the attacker who does not know of it.

    Args:
        path: the PNG to write.
        medians: median MSE by defence, initialisation and attacker.
        scores: test accuracy by defence.
    """
    with drawing(12, 7.6) as figure:
        grid = figure.subplots(2, 3, sharex=True, sharey=True)
        for axes, (title, colours) in zip(grid.flat, PANELS.items(), strict=True):
            axes.set(title=title, yscale="log", xlim=(WORST - 1.5, 100), ylim=(1e-14, 5 * LOST))
            axes.axhspan(LEGIBLE, 5 * LOST, color="#F2F2F2", linewidth=0)
            axes.spines[["top", "right"]].set_visible(False)
            axes.axhline(medians["none", "U", NAIVE], color="#999999", linestyle=":", linewidth=1)
            axes.axvline(100 * scores["none"], color="#999999", linestyle=":", linewidth=1)
            for place, (family, colour) in enumerate(colours.items()):
                naive = _points(family, [NAIVE], medians, scores)
                aware = _points(family, [SMOOTH, AWARE], medians, scores)
                _curve(axes, colour, naive, aware=False)
                _curve(axes, colour, aware, aware=True)
                _strengths(axes, aware, right=place % 2 == 0)
        for axes in grid[1]:
            axes.set_xlabel("test accuracy, %")
        for axes in grid[:, 0]:
            axes.set_ylabel("median MSE")
        grid[0, 0].text(WORST - 1, 1.7 * LOST, "illegible", color="#666666", fontsize=9)
        for aware, label in (
            (False, "the attacker does not know of it"),
            (True, "and knows of it"),
        ):
            grid[0, 0].plot([], [], color="#444444", label=label, **_style(aware))
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2,
            frameon=False,
        )  # fmt: skip
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
            points.append((100 * score, min(known[0], LOST), strength or name))
    return points


def _style(aware: bool) -> dict[str, Any]:
    """Return how an attacker's points look: filled, or open and joined by a broken line."""
    if aware:
        return {"marker": "o", "markersize": 6, "linewidth": 1.8}
    return {"marker": "o", "markersize": 6, "linewidth": 1, "linestyle": "--", "mfc": "white"}


def _curve(
    axes: Any, colour: str, points: Sequence[tuple[float, float, str]], *, aware: bool
) -> None:
    """Draw the strengths of a defence as one curve."""
    axes.plot(
        [max(x, WORST) for x, _, _ in points],
        [y for _, y, _ in points],
        color=colour,
        **_style(aware),
    )


def _strengths(axes: Any, points: Sequence[tuple[float, float, str]], *, right: bool) -> None:
    """Write to each point its strength, below it, at one side."""
    for x, y, strength in points:
        axes.annotate(
            strength if x >= WORST else f"{strength}, at {x:.0f} %",
            (max(x, WORST), y),
            xytext=(5 if right else -5, -12),
            ha="left" if right else "right",
            textcoords="offset points",
            fontsize=8,
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
    path: Path,
    truth: np.ndarray,
    found: Mapping[tuple[str, str], tuple[np.ndarray, float]],
    grid_rows: Sequence[tuple[str, list[str], str]] = GRID,
) -> None:
    """Draw one digit as each attacker found it, a pair of rows for each defence.

    Args:
        path: the PNG to write.
        truth: (C, H, W).
        found: the image and its error, by defence and attacker.
        grid_rows: a title, the strengths, and who else attacks, for each pair of rows.
    """
    columns = 1 + max(len(texts) for _, texts, _ in grid_rows)
    lines = [
        (f"{title}\n{attacker}", texts, attacker)
        for title, texts, other in grid_rows
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

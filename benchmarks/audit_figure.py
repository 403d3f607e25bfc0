"""The figure of `audit.py`: forecast against what attacks achieve."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinyleak.report.figures import (
    DISTANCE_COLOUR,
    MSE_COLOUR,
    QUIET_COLOUR,
    drawing,
    save,
)


def validation_figure(
    path: Path, forecast: np.ndarray, attack: np.ndarray, ideal: np.ndarray, smooth: np.ndarray
) -> None:
    """Draw errors against their forecasts: a PNG.

    Args:
        path: the PNG to write.
        forecast: (S,) mean squared errors.
        attack: (S,) those that the attack left.
        ideal: (S,) those that were left to who starts from the truth.
        smooth: (S,) whether the network is.
    """
    low, high = min(forecast.min(), ideal.min(), attack.min()) / 2, 1.0
    with drawing(8.4, 4.2) as figure:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, errors, title in zip(
            panels,
            (attack, ideal),
            ("the attack, from noise", "the ideal, from the truth"),
            strict=True,
        ):
            axes.set(xscale="log", yscale="log", xlabel="forecast MSE", title=title)
            axes.plot([low, high], [low, high], color=QUIET_COLOUR, linewidth=1)
            for which, colour, name in (
                (smooth, DISTANCE_COLOUR, "smooth activation"),
                (~smooth, MSE_COLOUR, "relu"),
            ):
                axes.plot(forecast[which], errors[which], "o", color=colour, alpha=0.7, label=name)
            axes.spines[["top", "right"]].set_visible(False)
            axes.minorticks_off()
        panels[0].set_ylabel("achieved MSE")
        panels[0].legend(frameon=False, loc="lower right")
        save(figure, path)

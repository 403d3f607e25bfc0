"""The figure of `audit.py`: forecast against what attacks achieve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cells import Cell

from tinyleak.report.canvas import (
    DISTANCE_COLOUR,
    MSE_COLOUR,
    QUIET_COLOUR,
    drawing,
    save,
)

PANELS = {"attack": "the attack", "ideal": "the ideal, from the truth"}


def validation_figure(path: Path, cells: Sequence[Cell], smooth: Sequence[bool]) -> None:
    """Draw errors against their forecasts, medians over the clients: a PNG.

    A line reaches from the least to the greatest error of a setting's clients, another from the
    least to the greatest forecast.

    Args:
        path: the PNG to write.
        cells: of each setting, with the forecasts "given" and the errors of "attack" and "ideal".
        smooth: whether the network of each is.
    """
    every = np.concatenate([np.ravel(cell[name]) for cell in cells for name in ("given", *PANELS)])
    low, high = every.min() / 2, 1.0
    with drawing(8.4, 4.2) as figure:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (who, title) in zip(panels, PANELS.items(), strict=True):
            axes.set(xscale="log", yscale="log", xlabel="forecast MSE", title=title)
            axes.plot([low, high], [low, high], color=QUIET_COLOUR, linewidth=1)
            for kind, colour, name in (
                (True, DISTANCE_COLOUR, "smooth activation"),
                (False, MSE_COLOUR, "relu"),
            ):
                chosen = [cell for cell, is_so in zip(cells, smooth, strict=True) if is_so is kind]
                if not chosen:
                    continue
                x, y = (
                    np.array([np.atleast_1d(cell[n]) for cell in chosen]) for n in ("given", who)
                )
                middle, height = np.median(x, axis=1), np.median(y, axis=1)
                thin = {"color": colour, "alpha": 0.35, "linewidth": 0.9}
                axes.vlines(middle, y.min(axis=1), y.max(axis=1), **thin)
                axes.hlines(height, x.min(axis=1), x.max(axis=1), **thin)
                axes.plot(middle, height, "o", color=colour, alpha=0.7, label=name)
            axes.spines[["top", "right"]].set_visible(False)
            axes.minorticks_off()
        panels[0].set_ylabel("achieved MSE")
        panels[0].legend(frameon=False, loc="lower right")
        save(figure, path)

"""Three pictures of an audit, as PNG: the forecast, the directions, and what can still be seen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyleak.audit.forecasting import Audit, Forecast
from tinyleak.audit.preview import best_guesses
from tinyleak.audit.spectrum import forecasts
from tinyleak.client.simulated import RECOVERED_MSE
from tinyleak.report.canvas import (
    DISTANCE_COLOUR,
    MSE_COLOUR,
    PNG_METADATA,
    QUIET_COLOUR,
    drawing,
    number,
    show_image,
)

POINTS = 121
"""Strengths of noise at which a curve is drawn."""

LOWEST_ERROR = 1e-6
"""Where the curve of the forecast begins: nobody sees a smaller error."""


def forecast_figure(audit: Audit) -> bytes:
    """Draw the error that the best attacker is left with against the noise: a PNG.

    The line is the mean over the typical batches, the band reaches from the least to the greatest.
    """
    variances = _variances(audit)
    errors = forecasts(audit.spectra, variances, audit.prior)
    with drawing(7.6, 4.4) as figure:
        axes = figure.add_subplot(
            xscale="log",
            yscale="log",
            xlabel="variance of the noise on each number of the gradient",
            ylabel="expected MSE of the best attacker",
        )
        axes.fill_between(
            variances, errors.min(0), errors.max(0), color=MSE_COLOUR, alpha=0.25, linewidth=0
        )
        axes.plot(variances, errors.mean(0), color=MSE_COLOUR, linewidth=2)
        axes.set_ylim(LOWEST_ERROR / 2, 3 * audit.prior)
        _level(axes, RECOVERED_MSE, f"recovered: MSE < {number(RECOVERED_MSE)}")
        _level(axes, audit.prior, f"no gradient at all: {number(audit.prior)}")
        _mark_given(axes, audit)
        _tidy(axes, variances)
        return _png(figure)


def spectrum_figure(audit: Audit) -> bytes:
    """Draw at what noise each direction of the image space drowns, the strongest first: a PNG."""
    with drawing(7.6, 4.4) as figure:
        axes = figure.add_subplot(
            yscale="log",
            xlabel="directions, strongest first (%)",
            ylabel="drowns at noise of variance",
        )
        for spectrum in audit.spectra:
            upto = 100 * np.cumsum(spectrum.shares)
            drowning = spectrum.drowning(audit.prior)
            shown = drowning > 0
            axes.step(upto[shown], drowning[shown], color=DISTANCE_COLOUR, linewidth=1.2)
        if audit.shared is not None and audit.shared.noise:
            _level(axes, audit.shared.noise, "the given gradient's noise")
        axes.set_xlim(0, 100)
        axes.grid(axis="y", color="#E5E5E5")
        axes.spines[["top", "right"]].set_visible(False)
        axes.minorticks_off()
        return _png(figure)


def preview_figure(audit: Audit, strengths: Sequence[Forecast]) -> bytes | None:
    """Draw a typical image, and the best guess of it at each strength of noise: a PNG.

    None where the spectrum is an estimate: guesses need all of it.
    """
    guesses = best_guesses(audit, [one.variance for one in strengths])
    if guesses is None or audit.images.shape[1] not in (1, 3):
        return None
    _, _, height, width = audit.images.shape
    with drawing(1.3 * (len(guesses) + 1), 1.3 * height / width + 0.75) as figure:
        all_axes = figure.subplots(1, len(guesses) + 1)
        image = audit.jacobians[0].images[0]
        show_image(all_axes[0], image)
        all_axes[0].set_title("the image", fontweight="bold")
        for axes, guess, one in zip(all_axes[1:], guesses, strengths, strict=True):
            show_image(axes, guess)
            axes.set_title(number(one.variance))
            error = float(np.mean((guess - image) ** 2))
            axes.set_xlabel(f"MSE {number(error)}", fontsize=10)
        return _png(figure)


def _variances(audit: Audit) -> Any:
    """From where the curve begins to where there is nothing left to lose."""
    strongest = max(one.values.max() for one in audit.spectra) ** 2 * audit.prior
    high = np.log10(max(strongest, max(audit.variances, default=0.0), 1e-300)) + 1
    weak = np.mean([one.forecast(10.0 ** (high - 20), audit.prior) for one in audit.spectra])
    # Where noise is weak, the error is proportional to it.
    low = high - 20 + np.log10(LOWEST_ERROR / max(float(weak), 1e-300))
    return np.logspace(min(max(low, high - 20), high - 3), high, POINTS)


def _mark_given(axes: Any, audit: Audit) -> None:
    if audit.shared is None or not audit.shared.noise:
        return
    left, right = axes.get_xlim()
    if left < audit.shared.noise < right:
        axes.axvline(audit.shared.noise, color=DISTANCE_COLOUR, linewidth=1.2)
        axes.annotate(
            "the given gradient",
            (audit.shared.noise, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color=DISTANCE_COLOUR,
        )


def _level(axes: Any, height: float, label: str) -> None:
    axes.axhline(height, color=QUIET_COLOUR, linewidth=1, linestyle=(0, (4, 4)))
    axes.annotate(
        label,
        (0.01, height),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        color=QUIET_COLOUR,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
    )


def _tidy(axes: Any, variances: Any) -> None:
    axes.set_xlim(variances[0], variances[-1])
    axes.grid(color="#E5E5E5")
    axes.spines[["top", "right"]].set_visible(False)
    axes.minorticks_off()


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata=PNG_METADATA)
    return file.getvalue()

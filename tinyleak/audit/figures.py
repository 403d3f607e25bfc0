"""Three pictures of an audit: the forecast, the directions, and what the eye can still see."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyleak.analytic.jacobian_spectrum import forecasts
from tinyleak.audit.measured import Measured
from tinyleak.backend import Array
from tinyleak.client import RECOVERED_MSE
from tinyleak.report.canvas import (
    DISTANCE_COLOUR,
    MSE_COLOUR,
    QUIET_COLOUR,
    drawing,
    number,
    show_image,
)
from tinyleak.tensor import Tensor

POINTS = 121
"""Strengths of noise at which a curve is drawn: six to a power of ten, which looks smooth."""

LOWEST_ERROR = 1e-6  # the curve of the forecast begins here: no eye sees a smaller error
DECADES = 20  # powers of ten of noise that the curve spans at most; at least three
WIDTH, HEIGHT = 7.6, 4.4  # of one panel, in inches

GRID_COLOUR = "#E5E5E5"


def panels(audit: Measured, *draw: Callable[[Any, Measured], None]) -> Any:
    """Draw `forecast`, or `directions`, or both side by side: a matplotlib `Figure`."""
    with drawing(WIDTH * len(draw), HEIGHT) as figure:
        for axes, panel in zip(figure.subplots(1, len(draw), squeeze=False)[0], draw, strict=True):
            panel(axes, audit)
            axes.spines[["top", "right"]].set_visible(False)
            axes.minorticks_off()
        return figure


def preview_figure(audit: Measured) -> Any | None:
    """Draw a typical image, and the best guess of it at each strength of noise: a `Figure`.

    None where the spectrum is an estimate, since a guess needs the whole of JᵀJ, and where images
    are neither grey nor RGB.
    """
    guesses = best_guesses(audit, audit.variances)
    if guesses is None or audit.images.shape[1] not in (1, 3):
        return None
    _, _, height, width = audit.images.shape
    with drawing(1.3 * (len(guesses) + 1), 1.3 * height / width + 0.75) as figure:
        first, *others = figure.subplots(1, len(guesses) + 1, squeeze=False)[0]
        image = audit.jacobians[0].images[0]
        show_image(first, image)
        first.set_title("the image", fontweight="bold")
        for axes, guess, variance in zip(others, guesses, audit.variances, strict=True):
            show_image(axes, guess)
            axes.set_title(number(variance))
            error = float(np.mean((guess - image) ** 2))
            axes.set_xlabel(f"MSE {number(error)}", fontsize=10)
        return figure


def best_guesses(
    audit: Measured, variances: Sequence[float], *, seed: int = 0
) -> list[Array] | None:
    """Return the first typical image as the best attacker would see it: (C, H, W) for each noise.

    With d the difference between the batch and the mean image, the gradient shows J d plus noise e,
    and the best guess of d solves (JᵀJ + v/τ²) d̂ = JᵀJ d + Jᵀe: the mean of the posterior, for
    noise of each variance v, 0 or more. None where the spectrum was estimated, since a guess needs
    all of JᵀJ.
    """
    jacobian, spectrum = audit.jacobians[0], audit.spectra[0]
    if (axes := spectrum.axes) is None:
        return None
    mean = audit.images.mean(axis=0 if len(audit.images) > 1 else None)
    truth = jacobian.images - mean
    rng = np.random.default_rng(seed)
    noise = {
        name: Tensor(rng.standard_normal((1, *shape))) for name, shape in audit.model.shapes.items()
    }
    noise_seen = axes.T @ jacobian.transposed_times(noise).data[0]
    squares = spectrum.values**2
    shown = squares * (axes.T @ truth.ravel())
    guesses = []
    for variance in variances:
        seen, damped = shown + np.sqrt(variance) * noise_seen, squares + variance / audit.prior
        # What J does not determine is guessed to be the mean.
        found = axes @ np.divide(seen, damped, out=np.zeros_like(seen), where=spectrum.determined)
        guesses.append(found.reshape(truth.shape)[0] + mean)
    return guesses


def forecast(axes: Any, audit: Measured) -> None:
    """Draw the error that the best attacker is left with against the noise.

    The line is the mean over the typical batches, the band reaches from the least to the greatest.
    """
    variances = _variances(audit)
    errors = forecasts(audit.spectra, variances, audit.prior)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="variance of the noise on each number of the gradient",
        ylabel="expected MSE of the best attacker",
    )
    band = {"color": MSE_COLOUR, "alpha": 0.25, "linewidth": 0}
    axes.fill_between(variances, errors.min(0), errors.max(0), **band)
    axes.plot(variances, errors.mean(0), color=MSE_COLOUR, linewidth=2)
    axes.set_xlim(variances[0], variances[-1])
    axes.set_ylim(LOWEST_ERROR / 2, 3 * audit.prior)
    _level(axes, RECOVERED_MSE, f"recovered: MSE < {number(RECOVERED_MSE)}")
    _level(axes, audit.prior, f"no gradient at all: {number(audit.prior)}")
    if audit.noise is not None and variances[0] < audit.noise < variances[-1]:
        axes.axvline(audit.noise, color=DISTANCE_COLOUR, linewidth=1.2)
        where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        style = {"color": DISTANCE_COLOUR, **where}
        axes.annotate("the given gradient", (audit.noise, 0.02), xytext=(4, 0), **style)
    axes.grid(color=GRID_COLOUR)


def directions(axes: Any, audit: Measured) -> None:
    """Draw the noise at which each direction of the image space drowns, the strongest first."""
    axes.set(yscale="log", xlabel="directions, strongest first (%)", xlim=(0, 100))
    axes.set_ylabel("drowns at noise of variance")
    for spectrum in audit.spectra:
        up_to = 100 * np.cumsum(spectrum.shares)
        drowning = spectrum.drowning(audit.prior)
        shown = drowning > 0
        axes.step(up_to[shown], drowning[shown], color=DISTANCE_COLOUR, linewidth=1.2)
    if audit.noise is not None:
        _level(axes, audit.noise, "the given gradient's noise")
    axes.grid(axis="y", color=GRID_COLOUR)


def _variances(audit: Measured) -> Array:
    """Return noise from where the curve begins to where there is nothing left to lose."""
    strongest = max(one.values.max() for one in audit.spectra) ** 2 * audit.prior
    high = np.log10(max(strongest, max(audit.variances, default=0.0), 1e-300)) + 1
    weak = np.mean([one.forecast(10.0 ** (high - DECADES), audit.prior) for one in audit.spectra])
    # Where noise is weak, the error is proportional to it.
    low = high - DECADES + np.log10(LOWEST_ERROR / max(float(weak), 1e-300))
    return np.logspace(min(max(low, high - DECADES), high - 3), high, POINTS)


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

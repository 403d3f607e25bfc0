"""What an audit measured, and what follows from it: a forecast at every strength of noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.jacobian import Jacobian
from tinyleak.analytic.jacobian_spectrum import Spectrum, forecasts, noise_for
from tinyleak.audit.rehearsal import Rehearsal
from tinyleak.audit.shared import Shared
from tinyleak.audit.structure import Counting, Finding, Saturation
from tinyleak.backend import Array
from tinyleak.client import RECOVERED_MSE
from tinyleak.nn.model import Model

HIDDEN = 0.9
"""An image is hidden if the error is more than this part of what a guess without any gradient
makes: nine tenths of what there is to know is gone, and no eye finds the image in the rest."""

LONGEST = 300  # letters of a `repr`: a line or two in a notebook


@dataclass(frozen=True)
class Forecast:
    """What the best attacker is left with at one strength of noise."""

    variance: float  # of the noise on every number of the gradient
    mse: float  # the expected mean squared error of a pixel, the mean over the typical batches
    lowest: float  # the least over the batches
    highest: float  # the greatest over the batches
    directions_left: float  # the share of directions that noise does not drown, from 0 to 1
    verdict: str  # "recovered", "recognisable" or "hidden"


@dataclass(frozen=True, eq=False, repr=False)
class Measured:
    """The numbers of an audit."""

    model: Model  # the network
    source: str  # where the typical images come from, in words
    counting: Counting  # numbers shared beside numbers unknown
    findings: list[Finding]  # what follows from the structure
    saturations: list[Saturation]  # how flat each activation is at the typical images
    images: Array  # (M, C, H, W), the typical images that were measured at
    jacobians: list[Jacobian]  # one for each typical batch
    spectra: list[Spectrum]  # the singular values of each
    prior: float  # τ², the variance of a pixel before anything is shared
    rounding: float  # the mean squared error that float32 leaves on a gradient's numbers
    errors: Sequence[float]  # that it leaves of a pixel, at each typical batch, within [0, 1]
    variances: tuple[float, ...]  # of the noise to forecast for
    shared: Shared | None  # what was read off the client's gradient, if it is known
    rehearsals: Sequence[Rehearsal] = ()  # of attacks on simulated clients with typical images
    interrupted: bool = False  # whether Ctrl-C came before all typical batches were measured at

    def at(self, variance: float) -> Forecast:
        """Return the forecast at noise of this variance; below 0 it is a ValueError."""
        return self._forecast(variance, forecasts(self.spectra, np.array([variance]), self.prior))

    @property
    def rounded(self) -> Forecast:
        """The forecast where there is no noise but float32's rounding, and bounds are known."""
        return self._forecast(self.rounding, np.array(self.errors))

    def _forecast(self, variance: float, errors: Array) -> Forecast:
        seen = [one.seen(variance, self.prior) / one.unknowns for one in self.spectra]
        mean, low, high = float(errors.mean()), float(errors.min()), float(errors.max())
        verdict = "recognisable" if mean < HIDDEN * self.prior else "hidden"
        verdict = "recovered" if mean < RECOVERED_MSE else verdict
        return Forecast(variance, mean, low, high, float(np.mean(seen)), verdict)

    @property
    def contradiction(self) -> Cause | None:
        """What shows that a forecast would be of another gradient than the client's, if it does."""
        causes = () if self.shared is None else self.shared.causes
        return next((cause for cause in causes if cause.sure), None)

    @property
    def verdict(self) -> str:
        """Of the gradient as it is: "shown" by one layer, "unknown", or as the forecast's."""
        shown = None if self.shared is None else self.shared.shown_mse
        if shown is not None and shown < RECOVERED_MSE:
            return "shown"
        if self.contradiction is not None:
            return "unknown"
        return (self.rounded if self.noise is None else self.at(self.noise)).verdict

    @property
    def ranks(self) -> list[int]:
        """How many directions each typical batch's gradient determines."""
        return [one.rank for one in self.spectra]

    @property
    def recovered_below(self) -> float:
        """The variance of the noise below which images are recovered; 0 if they never are."""
        least = self.rounding if self.rounded.mse < RECOVERED_MSE else 0.0
        return max(least, noise_for(RECOVERED_MSE, self.spectra, self.prior))

    @property
    def hidden_above(self) -> float:
        """The variance of the noise above which images are hidden."""
        return noise_for(HIDDEN * self.prior, self.spectra, self.prior)

    @property
    def noise(self) -> float | None:
        """The variance of the noise on the client's gradient, if there is more than rounding."""
        if self.shared is None or self.shared.exact:
            return None
        return self.shared.noise or None

    @property
    def forecasts(self) -> list[tuple[str, Forecast]]:
        """The forecasts to show, each with whose noise it is.

        That is "float32 rounding", "the given gradient", or "asked for", by strength.
        """
        found = [("float32 rounding", self.rounded)]
        if self.noise is not None:
            found.append(("the given gradient", self.at(self.noise)))
        return found + [("asked for", self.at(variance)) for variance in self.variances]

"""What errors leave of an image whose pixels lie in [0, 1], by simulating the best attacker.

Of a digit three quarters of the pixels are black, and none can be blacker: most directions that a
gradient determines weakly lead out of [0, 1]. While the noise is small, an attacker who knows that
looks for the change d of the image that is nearest to what noise e makes of the gradient,

    minimise ‖J d − e‖² + v ‖d‖² / τ²,   d ≥ 0 where a pixel is 0, d ≤ 0 where it is 1,

non-negative least squares (Lawson and Hanson 1974, chapter 23). Without bounds the error is that of
`jacobian_spectrum`, 3 to 200 times as large for digits and ordinary networks.
"""

import numpy as np

from tinyleak.analytic.jacobian import TIE
from tinyleak.analytic.jacobian_spectrum import Spectrum
from tinyleak.backend import Array

DRAWS = 2  # how many times noise is drawn: errors of one image differ by a third from draw to draw

MOST_BOUND = 1024
"""How many pixels on a bound are looked at, at most: of one digit there are 600, in half a second;
of four 2,400 take 40."""

MOST_STEPS = 20  # of non-negative least squares, for each pixel


def error_within_bounds(
    spectrum: Spectrum, image: Array, variance: float, prior: float
) -> float | None:
    """Return the mean squared error of a pixel that noise leaves to one who knows the bounds.

    Args:
        spectrum: of J there.
        image: (n,), where it was taken; pixels on a bound may have been moved by `TIE`.
        variance: v, of the noise on each number of the gradient; more than 0, and small.
        prior: τ², the variance of a pixel before anything was shared.

    Returns:
        None where the spectrum is estimated or empty, where no pixel is on a bound, or more than
        `MOST_BOUND`, or where no solution is found.
    """
    if spectrum.axes is None or not spectrum.determined.any() or not _on_a_bound(image).any():
        return None
    rng, scale = np.random.default_rng(0), np.sqrt(_squares(spectrum, variance, prior))
    errors = []
    for _ in range(DRAWS):
        pull = spectrum.axes @ (scale * rng.standard_normal(len(scale)))
        change = change_within_bounds(spectrum, image, variance, prior, np.sqrt(variance) * pull)
        if change is None:
            return None
        errors.append(change @ change)
    return float(np.mean(errors)) / len(image)


def change_within_bounds(
    spectrum: Spectrum, image: Array, variance: float, prior: float, pull: Array
) -> Array | None:
    """Return the change d of an image to which errors e of its gradient lead, (n,).

    Of them `pull`, (n,), is Jᵀe; the spectrum has its axes. None where more than `MOST_BOUND`
    pixels are on a bound, or where no solution is found.
    """
    from scipy.optimize import nnls

    assert spectrum.axes is not None, "an estimate has no directions"
    bound = _on_a_bound(image)
    if bound.sum() > MOST_BOUND:
        return None
    scale = np.sqrt(_squares(spectrum, variance, prior))
    root, pulled = scale[:, None] * spectrum.axes.T, spectrum.axes.T @ pull / scale
    signs = np.where(image >= 1.0, -1.0, 1.0)
    basis, triangle = np.linalg.qr(root[:, ~bound])
    inward = (root * signs)[:, bound]
    against = inward - basis @ (basis.T @ inward)
    held = np.zeros(len(inward.T))
    if len(held):
        try:
            most = MOST_STEPS * len(root)
            held, _ = nnls(against, pulled - basis @ (basis.T @ pulled), maxiter=most)
        except RuntimeError:
            return None
    change = np.zeros(len(image))
    change[bound] = signs[bound] * held
    change[~bound] = np.linalg.solve(triangle, basis.T @ (pulled - inward @ held))
    return change


def _on_a_bound(image: Array) -> Array:
    return (image <= TIE) | (image >= 1.0)


def _squares(spectrum: Spectrum, variance: float, prior: float) -> Array:
    """Return the squares of J's singular values, and what the prior adds to each."""
    return np.where(spectrum.determined, spectrum.values**2, 0.0) + variance / prior

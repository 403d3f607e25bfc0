"""What noise leaves of pixels that lie in [0, 1]: held against bounded least squares."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from tinyleak.analytic.jacobian_spectrum import of_gram
from tinyleak.analytic.within_bounds import error_within_bounds
from tinyleak.audit import audit
from tinyleak.data import load
from tinyleak.nn import MLP

NOISE, PRIOR, PIXELS = 1e-16, 0.1, 40


def linear_case(rng):
    """Return J, whose weak directions are a thousandth as strong, and an image mostly on bounds."""
    left, _ = np.linalg.qr(rng.standard_normal((60, PIXELS)))
    right, _ = np.linalg.qr(rng.standard_normal((PIXELS, PIXELS)))
    kinds = np.arange(PIXELS) % 4
    image = np.where(kinds == 0, rng.uniform(0.2, 0.8, PIXELS), 1.0 * (kinds == 1))
    return left * np.logspace(0, -3, PIXELS) @ right.T, image


def test_the_error_is_that_of_bounded_least_squares():
    forecast, found, without = [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        jacobian, image = linear_case(rng)
        spectrum = of_gram(jacobian.T @ jacobian)
        forecast.append(error_within_bounds(spectrum, image, NOISE, PRIOR))
        without.append(spectrum.forecast(NOISE, PRIOR))
        for _ in range(4):
            seen = jacobian @ image + np.sqrt(NOISE) * rng.standard_normal(60)
            x = lsq_linear(jacobian, seen, (0, 1), method="bvls", tol=1e-15).x
            found.append(np.mean((x - image) ** 2))
    assert 0.5 < np.mean(forecast) / np.mean(found) < 2.0
    assert np.mean(found) < np.mean(without) / 5


def test_without_pixels_on_a_bound_it_is_not_told():
    jacobian, _ = linear_case(np.random.default_rng(0))
    spectrum = of_gram(jacobian.T @ jacobian)
    assert error_within_bounds(spectrum, np.full(PIXELS, 0.5), NOISE, PRIOR) is None


def test_bounds_alone_tell_nothing_of_a_gradient_that_is_zero():
    spectrum = of_gram(np.zeros((PIXELS, PIXELS)))
    assert error_within_bounds(spectrum, np.zeros(PIXELS), NOISE, PRIOR) is None


def test_an_audit_of_images_tells_less_of_rounding_than_of_as_much_noise():
    model = MLP((1, 16, 16), 10, "tanh", (64,))
    params = model.init(np.random.default_rng(0))
    found = audit(model, params, load("glyphs"), examples=2)
    assert found.rounded.mse < found.at(found.rounding).mse
    assert found.forecasts[0][1] == found.rounded
    assert found.recovered_below >= found.rounding


@pytest.mark.parametrize("kind", ["white", "black"])
def test_an_image_that_is_all_bound_is_told(kind):
    jacobian, _ = linear_case(np.random.default_rng(0))
    image = np.full(PIXELS, float(kind == "white"))
    spectrum = of_gram(jacobian.T @ jacobian)
    error = error_within_bounds(spectrum, image, NOISE, PRIOR)
    assert 0 < error < spectrum.forecast(NOISE, PRIOR)

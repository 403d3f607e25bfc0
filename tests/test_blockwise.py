"""Least squares of unknowns in blocks: bounded minima, and a batch's pixels at wrong bounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from tinyleak import data
from tinyleak.attacks.attacker import Attacker
from tinyleak.attacks.least_squares.polishing import polished
from tinyleak.attacks.least_squares.residual import GradientResidual
from tinyleak.attacks.problem import problem_of
from tinyleak.client import simulate
from tinyleak.nn import LeNet, one_hot
from tinyleak.optim.blockwise import blockwise_least_squares


class Curved:
    """r = A x + 0.1 x² − b, of two blocks of three unknowns."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.A = np.concatenate([3.0 * np.eye(6), rng.standard_normal((4, 6))])
        self.b = 4.0 * rng.standard_normal(10)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        return self.A + 0.2 * np.pad(np.diag(x), [(0, 4), (0, 0)])

    def value(self, x: np.ndarray) -> np.ndarray:
        return self.A @ x + 0.1 * np.pad(x**2, (0, 4)) - self.b

    def slope(self, x: np.ndarray, r: np.ndarray) -> np.ndarray:
        return self.jacobian(x).T @ r

    def along(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        return self.jacobian(x) @ v

    def blocks(self, x: np.ndarray) -> np.ndarray:
        parts = np.split(self.jacobian(x), 2, axis=1)
        return np.stack([part.T @ part for part in parts])


@pytest.mark.parametrize("bound", [10.0, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_it_ends_where_a_bounded_minimum_is(bound: float, seed: int) -> None:
    problem = Curved(np.random.default_rng(seed))
    *_, fit = blockwise_least_squares(
        problem, np.zeros(6), lowest=-bound, highest=bound, max_iterations=60, goal=0.0
    )
    expected = least_squares(problem.value, np.zeros(6), bounds=(-bound, bound), xtol=1e-15)
    np.testing.assert_allclose(fit.value, 2 * expected.cost, rtol=1e-6)
    assert np.abs(fit.x).max() <= bound


def batch_of_three() -> tuple[GradientResidual, np.ndarray, float]:
    """The residual of three small digits in float32, the pixels, and the roundoff."""
    images, labels = data.load("glyphs").batch([3, 4, 5])
    small = images[:, :, 2::3, 2::3]
    client, _ = simulate(LeNet((1, 9, 9)), small, labels, init="uniform", dtype="float32")
    problem = problem_of(client, Attacker(method="levenberg-marquardt", labels=labels))
    gradient = GradientResidual(problem.matching, one_hot(labels, 10), np.zeros(0, np.int64))
    assert client.last_layer is not None
    return gradient, small.ravel(), client.last_layer.roundoff


def test_products_and_blocks_are_those_of_the_whole_matrix(rng: np.random.Generator) -> None:
    gradient, x, _ = batch_of_three()
    v, w = rng.standard_normal((2, len(x)))
    gram, pixels = gradient.gram(x), len(x) // 3
    product = float(gradient.along(x, v) @ gradient.along(x, w))
    assert product == pytest.approx(float(v @ gram @ w), rel=1e-9)
    for index, block in enumerate(gradient.blocks(x)):
        here = slice(index * pixels, (index + 1) * pixels)
        np.testing.assert_allclose(block, gram[here, here], rtol=1e-9, atol=1e-15)


def test_pixels_at_a_wrong_bound_come_back_without_the_whole_matrix(monkeypatch) -> None:
    gradient, x, roundoff = batch_of_three()
    start = x.copy()
    wrong = np.flatnonzero((x > 0.2) & (x < 0.8))[::3]
    assert len(wrong) >= 4
    start[wrong] = 0.0
    whole, most = gradient.gram, len(x) // 3
    sizes: list[int] = []

    def watched(*args, **kwargs):
        found = whole(*args, **kwargs)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(gradient, "gram", watched)
    *_, fit = polished(gradient, start, 1e-12, 60, 0, 0, roundoff)
    assert fit.reason == "converged"
    assert np.square(fit.x - x).mean() < 1e-6
    inside = int(((start > 0.0) & (start < 1.0)).sum())
    assert max(sizes) <= max(inside, most) < len(x)

"""Levenberg–Marquardt: known least-squares problems, bounds, damping, and how it ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, nan

import numpy as np
import pytest
import torch

from tinyleak import Tensor
from tinyleak.optim import Fit, levenberg_marquardt


@dataclass
class Dense:
    """A residual given by two functions."""

    function: Callable[[np.ndarray], np.ndarray]
    derivative: Callable[[np.ndarray], np.ndarray]

    def value(self, x: np.ndarray) -> np.ndarray:
        return self.function(x)

    def slope(self, x: np.ndarray, r: np.ndarray) -> np.ndarray:
        return self.derivative(x).T @ r

    def gram(self, x: np.ndarray) -> np.ndarray:
        matrix = self.derivative(x)
        return matrix.T @ matrix


ROSENBROCK = Dense(
    lambda x: np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]]),
    lambda x: np.array([[-20 * x[0], 10.0], [-1.0, 0.0]]),
)


def linear(rows: int, columns: int, rng: np.random.Generator) -> tuple[Dense, np.ndarray]:
    """A x − b, and the x at which its squares are least."""
    matrix, target = rng.standard_normal((rows, columns)), rng.standard_normal(rows)
    best, *_ = np.linalg.lstsq(matrix, target)
    return Dense(lambda x: matrix @ x - target, lambda x: matrix), best


def last(residual: Dense, start: list[float] | np.ndarray, **options: object) -> Fit:
    *_, fit = levenberg_marquardt(residual, np.asarray(start, dtype=float), **options)
    return fit


def test_rosenbrocks_valley_is_walked_to_its_end() -> None:
    fit = last(ROSENBROCK, [-1.2, 1.0], goal=1e-28, tolerance_gradient=0.0)
    assert fit.reason == "converged"
    np.testing.assert_allclose(fit.x, 1, atol=1e-13)
    assert fit.iterations < 40


def test_where_the_residual_can_vanish_the_end_is_quadratic() -> None:
    fits = levenberg_marquardt(ROSENBROCK, np.array([1.1, 1.1]), damping=1e-3, goal=0.0)
    values = [fit.value for fit in fits]
    near = [value for value in values if 1e-28 < value < 1e-3]
    assert len(near) >= 2
    for value, following in zip(near, near[1:], strict=False):
        assert following < 1e-3 * value


def test_a_linear_problem_ends_stationary_at_its_least_squares(rng: np.random.Generator) -> None:
    residual, best = linear(30, 6, rng)
    fit = last(residual, rng.standard_normal(6), tolerance_gradient=1e-12)
    assert fit.reason in ("stationary", "stalled")
    assert fit.value > 1
    np.testing.assert_allclose(fit.x, best, atol=1e-9)


def test_bounds_hold(rng: np.random.Generator) -> None:
    from scipy.optimize import lsq_linear

    residual, best = linear(40, 8, rng)
    lowest, highest = np.full(8, -0.1), np.full(8, 0.1)
    lowest[0], highest[0] = -inf, inf
    assert (np.abs(best[1:]) > 0.1).any(), "a bound matters"
    expected = lsq_linear(
        residual.derivative(best), -residual.value(np.zeros(8)), (lowest, highest)
    )
    fits = list(
        levenberg_marquardt(residual, 3 * rng.standard_normal(8), lowest=lowest, highest=highest)
    )
    for fit in fits:
        assert (fit.x >= lowest).all()
        assert (fit.x <= highest).all()
    np.testing.assert_allclose(fits[-1].x, expected.x, atol=1e-6)


def test_a_step_leaves_a_bound_at_which_the_gradient_alone_would_stay() -> None:
    matrix, best = np.array([[1.0, 1.0], [0.0, 0.1]]), np.array([0.2, 0.8])
    residual = Dense(lambda x: matrix @ (x - best), lambda x: matrix)
    start = np.array([1.5, 0.0])
    assert residual.slope(start, residual.value(start))[1] > 0
    fit = last(residual, start, lowest=0.0, highest=2.0, damping=1e-12, goal=1e-20)
    assert (fit.iterations, fit.reason) == (1, "converged")


def test_the_value_never_rises_and_damping_follows_success() -> None:
    start, options = np.array([-1.2, 1.0]), {"damping": 1e-3, "radius": inf}
    fits = list(levenberg_marquardt(ROSENBROCK, start, goal=1e-20, **options))
    for before, after in zip(fits, fits[1:], strict=False):
        assert after.value < before.value
        failures = after.evaluations - before.evaluations - 1
        grown = before.damping * 2 ** (failures * (failures + 1) // 2)
        assert 0.01 - 1e-12 <= after.damping / grown <= 2.0
    assert len({round(b.damping / a.damping, 3) for a, b in itertools.pairwise(fits[:-1])}) > 2


def test_a_flat_start_and_a_large_residual_are_no_reason_to_stop() -> None:
    """Brown and Dennis's sum of squares, 85,822.2 at its minimum (Moré, Garbow, Hillstrom 1981)."""
    t = np.arange(1, 21) / 5

    def parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x[0] + t * x[1] - np.exp(t), x[2] + x[3] * np.sin(t) - np.cos(t)

    def jacobian(x: np.ndarray) -> np.ndarray:
        u, v = parts(x)
        return np.stack([2 * u, 2 * u * t, 2 * v, 2 * v * np.sin(t)], axis=1)

    residual = Dense(lambda x: parts(x)[0] ** 2 + parts(x)[1] ** 2, jacobian)
    fit = last(residual, [25.0, 5.0, -5.0, -1.0], max_iterations=1000)
    assert fit.value == pytest.approx(85822.20163, rel=1e-6)


class Evaluations(Dense):
    """Remembers where it was evaluated."""

    def value(self, x: np.ndarray) -> np.ndarray:
        self.points = [*getattr(self, "points", []), x]
        return super().value(x)


def meyer(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Meyer's residual, as NIST's MGH10, and its Jacobian; its least square is 87.9459."""
    t = 45.0 + 5 * np.arange(1, 17)
    y = [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427]
    y += [3820, 3307, 2872]
    with np.errstate(over="ignore"):
        e = np.exp(x[1] / (t + x[2]))
    slopes = [e, x[0] * e / (t + x[2]), -x[0] * x[1] * e / (t + x[2]) ** 2]
    return x[0] * e - np.array(y), np.stack(slopes, axis=1)


def test_from_a_far_start_steps_are_no_longer_than_a_radius() -> None:
    residual = Evaluations(lambda x: meyer(x)[0], lambda x: meyer(x)[1])
    start = np.array([2.0, 400000.0, 25000.0])
    assert last(residual, start, max_iterations=300).value == pytest.approx(87.9459, rel=1e-5)
    scale = np.square(meyer(start)[1]).sum(axis=0)
    lengths = [np.sqrt(scale @ (x - start) ** 2) for x in residual.points[1:]]
    assert 0.8 < lengths[0] / np.sqrt(scale @ start**2) < 1.2 + 1e-9
    assert last(residual, start, max_iterations=300, radius=inf).value > 1e9, "without it fails"


def test_an_unknown_that_does_nothing_stays() -> None:
    residual = Dense(lambda x: x[:1] ** 3 - 8, lambda x: np.array([[3 * x[0] ** 2, 0.0]]))
    fit = last(residual, [1.0, 7.0], goal=1e-24)
    np.testing.assert_allclose(fit.x, [2.0, 7.0], atol=1e-11)


def test_a_singular_system_is_damped_until_it_is_none() -> None:
    """Two unknowns that do the same, with a damping below float32's rounding."""

    def jacobian(x: np.ndarray) -> np.ndarray:
        return np.array([[2 * (x[0] + x[1])] * 2], x.dtype)

    residual = Dense(lambda x: np.array([(x[0] + x[1]) ** 2]), jacobian)
    *_, fit = levenberg_marquardt(residual, np.array([1, 2], np.float32), damping=1e-12)
    assert fit.value < 1e-15


def test_it_stops_after_the_iterations_it_was_given() -> None:
    fit = last(ROSENBROCK, [-1.2, 1.0], max_iterations=3)
    assert (fit.iterations, fit.reason) == (3, "out of iterations")
    assert last(ROSENBROCK, [-1.2, 1.0], max_iterations=0).iterations == 0


def test_it_stalls_where_steps_have_no_effect_to_speak_of() -> None:
    # 2 + exp(−x) falls for ever, and ever less.
    residual = Dense(lambda x: 2 + np.exp(-x), lambda x: -np.exp(-x)[:, np.newaxis])
    fit = last(residual, [3.0], max_iterations=1000, tolerance_gradient=0.0)
    assert fit.reason == "stalled"
    assert fit.iterations < 100


def test_the_start_may_be_the_goal_or_not_a_number() -> None:
    fit = last(ROSENBROCK, [1.0, 1.0], goal=0.0)
    assert (fit.iterations, fit.evaluations, fit.reason) == (0, 1, "converged")
    with np.errstate(all="ignore"):
        assert last(ROSENBROCK, [inf, 1.0]).reason == "non-finite"


def test_what_overflows_is_drawn_back_from() -> None:
    # Gauss and Newton's first step leads to −48, where the residual is infinite.
    residual = Dense(
        lambda x: np.where(x < -20, inf, np.arctan(x) + 1.5), lambda x: 1 / (1 + x[:, None] ** 2)
    )
    fit = last(residual, [4.0], goal=1e-20, damping=1e-3, radius=inf)
    assert fit.reason == "converged"
    assert fit.evaluations > fit.iterations + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_iterations": -1}, "max_iterations is -1; it must be at least 0"),
        ({"max_iterations": 2.5}, "max_iterations is 2.5; .* whole number is needed"),
        ({"tolerance_change": "x"}, "tolerance_change is x; it must be at least 0"),
        ({"goal": nan}, "goal is nan; give a number"),
        ({"damping": 0.0}, "damping is 0.0; it must be above 0 and finite"),
        ({"radius": 0.0}, "radius is 0.0; it must be above 0"),
        ({"lowest": 2.0, "highest": 1.0}, "give lowest < highest"),
        ({"lowest": [0.0, 0.0, 0.0]}, r"a bound has shape \(3,\); give one number, or 2"),
    ],
)
def test_a_bad_request_is_answered_with_one_clear_sentence(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        levenberg_marquardt(ROSENBROCK, np.array([1.0, 2.0]), **options)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, Tensor])
def test_a_start_is_taken_from_any_library_and_copied(kind: Callable[[list[int]], object]) -> None:
    start = kind([3, 3])
    fits = levenberg_marquardt(ROSENBROCK, start, goal=1e-28)
    first = next(fits)
    if kind is np.array:
        start[:] = 7
    *_, fit = fits
    np.testing.assert_array_equal(first.x, [3.0, 3.0])
    np.testing.assert_allclose(fit.x, 1, atol=1e-13)


def test_a_start_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"start has shape \(1, 2\); give an array \(n,\)"):
        levenberg_marquardt(ROSENBROCK, np.ones((1, 2)))


def test_a_residual_of_another_shape_is_refused() -> None:
    residual = Dense(lambda x: np.ones((2, 1)), lambda x: np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"answered with shape \(2, 1\); it must be \(m,\)"):
        next(levenberg_marquardt(residual, np.ones(2)))

"""Robust regression past the last wrong kinks, and what a forecast does not know of them."""

from __future__ import annotations

import numpy as np
import pytest
from test_smoothed import client_of

from tinyleak import attack, attack_many, nn
from tinyleak.attacks import Settings, outliers, smoothed
from tinyleak.attacks.distances import StoppedError, objective_of, search_in_range
from tinyleak.attacks.features_first import GOALS
from tinyleak.attacks.outliers import in_turn_with_features
from tinyleak.attacks.shown import in_a_row, shown_layer
from tinyleak.audit import audit, rehearse
from tinyleak.audit.page import as_dict
from tinyleak.audit.words import lines
from tinyleak.nn import MLP, one_hot
from tinyleak.ops import reshape
from tinyleak.optim.truncated import Reached, Traced, truncated_gauss_newton
from tinyleak.tensor import Tensor


@pytest.mark.parametrize("seed", range(2))
def test_the_last_wrong_kinks_are_outliers(seed: int) -> None:
    client, image = client_of(seed)
    shown = shown_layer(client.model, client.params, client.gradients)
    assert shown is not None

    def residual(z: Tensor) -> Tensor:
        return in_a_row(shown.parts(reshape(z, image.shape), client.gradients))

    near = (image + 0.1 * np.random.default_rng(1).standard_normal(image.shape)).ravel()
    squares = objective_of(image.shape, shown, client.gradients)
    assert np.mean((search_in_range(squares, near, 1e-13).x - image.ravel()) ** 2) > 1e-6
    alone, exact = objective_of(image.shape, shown, None), Traced(residual, image.size)
    found = in_turn_with_features(exact, alone, 0.0, 1.0, 1e-13, near)
    assert found.value == pytest.approx(squares(found.x)[0]) and found.value < 1e-12
    assert np.mean((found.x - image.ravel()) ** 2) < 1e-13


@pytest.mark.parametrize(
    ("sizes", "values", "turns"),
    [
        ([1e-6, *[2e-6] * 6], [1.0] * 7, 4),  # near: three turns without a new least one
        ([1e-6, 2e-6, 9e-7, *[2e-6] * 6], [1.0] * 9, 6),
        ([1e-2] * 7, [0.4, 0.1, 0.09, 0.0], 3),  # far: the distance has to fall by half
        ([1e-6] * 4, [0.4, 0.0, 0.0, 0.0], 2),
    ],
)
def test_how_many_turns_are_made(
    monkeypatch, sizes: list[float], values: list[float], turns: int
) -> None:
    made: list[float] = []

    def next_of(*_: object) -> Reached:
        made.append(values[len(made)])
        return Reached(np.zeros(1), made[-1])

    def alone(x: np.ndarray) -> tuple[float, np.ndarray]:
        return sizes[len(made) - 1], x

    class Ones:
        def value(self, x: np.ndarray) -> np.ndarray:
            return np.ones(1)

    monkeypatch.setattr(outliers, "without_outliers", next_of)
    monkeypatch.setattr(outliers, "search_in_range", lambda _, x, *__: Reached(x, 0.0))
    found = in_turn_with_features(Ones(), alone, 0.0, 1.0, 1e-13, np.zeros(1))  # type: ignore[arg-type]
    assert len(made) == turns
    assert found.value == (0.0 if 0.0 in made else values[int(np.argmin(sizes[:turns]))])


def test_ctrl_c_past_kinks_keeps_the_best_so_far(monkeypatch) -> None:
    client, image = client_of(5)
    shown = shown_layer(client.model, client.params, client.gradients)
    start = 0.5 + 0.1 * np.random.default_rng(0).standard_normal(image.shape)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(smoothed, "in_turn_with_features", interrupted)
    with pytest.raises(StoppedError) as stopped:
        smoothed.past_kinks(shown, client.gradients, start, 0.0, 1.0, -1.0)
    assert np.mean((stopped.value.x - image.ravel()) ** 2) < 0.5 * np.mean((start - image) ** 2)
    # As if what was found before were not near enough; then that is the best.
    monkeypatch.setattr("tinyleak.attacks.features_first.CLOSE", -1.0)
    monkeypatch.setitem(GOALS, "float32", -1.0)
    found = attack(client, start="features")
    assert found.reason == "interrupted" and found.iterations == 0
    assert np.mean((found.images - image) ** 2) < 1e-6
    with pytest.raises(KeyboardInterrupt):
        attack_many([client, client], start="features")


def test_a_rehearsal_shows_what_stops_a_search_where_the_forecast_does_not(
    rng: np.random.Generator,
) -> None:
    model = MLP((1, 6, 6), 4, "relu", widths=(40, 40), unbiased=("0", "2", "4"))
    params, images = model.init(rng), rng.random((3, 1, 6, 6))
    found = audit(model, params, images, [0, 1, 2], examples=1, rehearsals=2)
    assert found.at(found.rounding).verdict == "recovered"
    assert len(found.rehearsals) == 2 and min(found.rehearsals).mse > 1e-3
    assert "2 simulated clients with typical images" in lines(found)["rehearsal"]
    assert [one["mse"] for one in as_dict(found)["rehearsals"]] == [
        one.mse for one in found.rehearsals
    ]
    biased = MLP((1, 6, 6), 4, "relu", widths=(40, 40))
    seen = audit(biased, biased.init(rng), images, [0, 1, 2], examples=1, rehearsals=1)
    assert seen.rehearsals[0].mse < 1e-10


def test_a_rehearsal_is_of_a_batch_and_of_soft_labels_as_well(rng: np.random.Generator) -> None:
    model = MLP((1, 4, 4), 4, "sigmoid", widths=(32,))
    params, images = model.init(rng), rng.random((2, 1, 4, 4))
    targets = nn.one_hot(np.array([1, 3]), 4)
    how = Settings(iterations=300)
    assert rehearse(model, params, images, targets, dtype="float64", settings=how).mse < 1e-6
    soft = 0.9 * one_hot(np.array([1]), 4) + 0.025
    assert rehearse(model, params, images[:1], soft).mse < 1e-12


def test_a_rehearsal_takes_lists_and_says_what_does_not_fit(rng: np.random.Generator) -> None:
    model = MLP((1, 4, 4), 4, "sigmoid", widths=(32,))
    params, images, targets = model.init(rng), rng.random((1, 1, 4, 4)), np.eye(4)[:1]
    assert rehearse(model, params, images.tolist(), targets.tolist()).mse < 1e-12
    with pytest.raises(ValueError, match="0 images and 1 targets; give one of each, 1 or more"):
        rehearse(model, params, images[:0], targets)


def test_fewer_rehearsals_than_none_are_refused(rng: np.random.Generator) -> None:
    model = MLP((1, 4, 4), 4, widths=(8,))
    with pytest.raises(ValueError, match="-1 rehearsals were asked for; give 0 or more"):
        audit(model, model.init(rng), rehearsals=-1)


def test_ctrl_c_in_a_search_keeps_the_best_pixels() -> None:
    seen: list[tuple[float, np.ndarray]] = []

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append((float(np.sum((x - 0.3) ** 4)), x.copy()))
        return seen[-1][0], 4 * (x - 0.3) ** 3

    with pytest.raises(StoppedError) as stopped:
        search_in_range(objective, np.ones(3), 0.0)
    np.testing.assert_array_equal(stopped.value.x, min(seen, key=lambda one: one[0])[1])


def test_with_as_many_products_as_unknowns_a_step_is_exact_within_bounds() -> None:
    """Of a line fitted by columns of which some hardly show, conjugate gradients leave much."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((60, 40)) * np.geomspace(1.0, 1e-5, 40)
    x = rng.uniform(-0.5, 1.5, 40).clip(0.0, 1.0)
    wanted = Tensor(matrix @ x)
    residual = Traced(lambda z: reshape(Tensor(matrix) @ reshape(z, (-1, 1)), (-1,)) - wanted, 40)

    def errors(products: int) -> float:
        steps = {"steps": 6, "products": products, "damping": 1e-12}
        end = truncated_gauss_newton(residual, np.full(40, 0.5), lowest=0.0, highest=1.0, **steps)
        return float(np.abs(end.x - x).max())

    assert errors(40) < 1e-10
    assert errors(39) > 0.1


@pytest.mark.parametrize("products", [1, 3])
def test_where_all_unknowns_are_held_at_their_bounds_no_step_is_made(products: int) -> None:
    residual = Traced(lambda z: z + 1.0, 3)
    start = np.zeros(3)
    end = truncated_gauss_newton(residual, start, lowest=0.0, highest=1.0, products=products)
    np.testing.assert_array_equal(end.x, start)
    assert end.value == 3.0

"""Robust regression past the last wrong kinks, and what a forecast does not know of them."""

from __future__ import annotations

import numpy as np
import pytest
from test_smoothed import client_of

from tinyleak import attack, attack_many, nn
from tinyleak.attacks import Settings, outliers, smoothed
from tinyleak.attacks.distances import StoppedError, objective_of, search_in_range
from tinyleak.attacks.features_first import GOALS
from tinyleak.attacks.outliers import without_outliers
from tinyleak.attacks.shown import shown_layer
from tinyleak.audit import audit, rehearse
from tinyleak.audit.record import as_dict
from tinyleak.audit.words import lines
from tinyleak.nn import MLP, one_hot
from tinyleak.optim.truncated import Reached


@pytest.mark.parametrize("seed", range(2))
def test_the_last_wrong_kinks_are_outliers(seed: int) -> None:
    client, image = client_of(seed)
    shown = shown_layer(client.model, client.params, client.gradients)
    assert shown is not None
    near = (image + 0.1 * np.random.default_rng(1).standard_normal(image.shape)).ravel()
    squares = objective_of(image.shape, shown, client.gradients)
    assert np.mean((search_in_range(squares, near, 1e-13).x - image.ravel()) ** 2) > 1e-6
    found = without_outliers(image.shape, shown, client.gradients, 0.0, 1.0, 1e-13)(near)
    assert found.value < 1e-12
    assert np.mean((found.x - image.ravel()) ** 2) < 1e-13


@pytest.mark.parametrize(("size", "arrives"), [(1e-6, True), (1e-2, False)])
def test_near_the_image_turns_without_progress_are_made(
    monkeypatch, size: float, arrives: bool
) -> None:
    lefts = [size, *[2 * size] * 6, 0.0]  # what is left after each turn

    def next_of(objective: object, x: np.ndarray, *_: object) -> Reached:
        if objective == "robust":  # one search of it ends a turn, as there is one s here
            return Reached(x + 1.0, 0.0)
        return Reached(x, 0.0)

    def distance(x: np.ndarray) -> tuple[float, np.ndarray]:
        return lefts[int(x[0])], x

    monkeypatch.setattr(outliers, "VARIANCES", (1e-7,))
    monkeypatch.setattr(outliers, "search_in_range", next_of)
    monkeypatch.setattr(outliers, "objective_of", lambda *_: distance)
    monkeypatch.setattr(outliers, "robust_objective_of", lambda *_: lambda _: "robust")
    client, image = client_of(0)
    shown = shown_layer(client.model, client.params, client.gradients)
    assert shown is not None
    search = outliers.without_outliers(image.shape, shown, client.gradients, 0.0, 1.0, 1e-13)
    found = search(np.zeros(image.size))
    assert found.value == (0.0 if arrives else size)


def test_ctrl_c_past_kinks_keeps_the_best_so_far(monkeypatch) -> None:
    client, image = client_of(5)
    shown = shown_layer(client.model, client.params, client.gradients)
    start = 0.5 + 0.1 * np.random.default_rng(0).standard_normal(image.shape)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(smoothed, "solve_for_pattern", lambda *_: Reached(start, 1.0))
    monkeypatch.setattr(smoothed, "without_outliers", lambda *_: interrupted)
    monkeypatch.setattr(smoothed, "MENDED", range(smoothed.WARMER, 8))
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

"""The span of a batch's features: what it is read off, and images of one label that it parts."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak.attack import attack, least_squares
from tinyleak.attack.features import FeatureResidual, Features, read_features
from tinyleak.attack.matching import Matching
from tinyleak.attack.residual import GradientResidual
from tinyleak.metrics import match_batch, mse
from tinyleak.nn import MLP, LeNet, one_hot
from tinyleak.victim import Victim, share

SMALL = LeNet((1, 8, 8), classes=4, hidden=6)


def client(labels: list[int], seed: int, scheme: str = "default") -> Victim:
    images = np.random.default_rng(100 + seed).random((len(labels), *SMALL.image_shape))
    return share(SMALL, SMALL.init(np.random.default_rng(seed), scheme), images, labels)


def features_of(victim: Victim) -> Features:
    found = read_features(SMALL, victim.params, victim.gradients, len(victim.images))
    assert found is not None
    return found


def test_the_clients_images_lie_in_the_span_and_others_do_not(rng: np.random.Generator) -> None:
    victim = client([1, 1, 2], 0)
    features = features_of(victim)
    assert features.span.shape == (3, SMALL.shapes["fc.0.weight"][1])
    np.testing.assert_allclose(features.span @ features.span.T, np.eye(3), atol=1e-12)
    inside = np.abs(features.outside(victim.images)).max()
    others = np.abs(features.outside(rng.random(victim.images.shape))).max()
    assert inside < 1e-9
    assert others > 1e-4


def test_they_are_the_last_layers_inputs(rng: np.random.Generator) -> None:
    model = MLP((1, 3, 4), 5, "tanh", (6,))
    params, images = model.init(rng), rng.random((2, 1, 3, 4))
    features = Features(model, params, np.eye(6)[:2])
    hidden = np.tanh(images.reshape(2, 12) @ params["0.weight"].T + params["0.bias"])
    np.testing.assert_allclose(features.outside(images)[:, 2:], hidden[:, 2:], atol=1e-13)
    np.testing.assert_array_equal(features.outside(images)[:, :2], 0)


def test_its_derivatives_are_those_of_differences(rng: np.random.Generator) -> None:
    victim = client([0, 3], 1)
    matching = Matching(SMALL, victim.params, victim.gradients, 2, np.asarray(7.0))
    gradient = GradientResidual(matching, one_hot(np.array([0, 3]), 4), np.array([1]))
    residual = FeatureResidual(gradient, features_of(victim), 5.0)
    x = rng.random(2 * 64 + 4)
    jacobian = residual.jacobian(x, np.arange(len(x))).copy()
    step = 1e-5
    for unknown in (0, 63, 64, 100, 129):
        ends = [x.copy(), x.copy()]
        ends[0][unknown] += step
        ends[1][unknown] -= step
        slope = (residual.value(ends[0]) - residual.value(ends[1])) / (2 * step)
        np.testing.assert_allclose(jacobian[:, unknown], slope, atol=1e-8)
    r = residual.value(x)
    assert len(r) == 2 * residual.features.span.shape[1] + len(gradient.value(x))
    np.testing.assert_allclose(residual.slope(x, r), jacobian.T @ r, atol=1e-12)
    some = np.array([2, 64, 99, 130])
    np.testing.assert_allclose(residual.jacobian(x, some), jacobian[:, some], atol=1e-13)


def test_nothing_is_read_where_the_gradient_does_not_show_it(rng: np.random.Generator) -> None:
    victim = client([0, 0], 0)
    read = [SMALL, victim.params]
    assert read_features(*read, victim.gradients, 2) is not None
    assert read_features(*read, victim.gradients, 4) is None, "as many images as classes"
    single = {name: g.astype(np.float32).astype(float) for name, g in victim.gradients.items()}
    assert read_features(*read, single, 2) is None, "rounding hides the second direction"
    noisy = {n: g + 1e-3 * rng.standard_normal(g.shape) for n, g in victim.gradients.items()}
    assert read_features(*read, noisy, 2) is None


@pytest.mark.parametrize(("labels", "seed"), [([1, 1, 2], 2), ([0, 0], 0), ([0, 0], 2)])
def test_images_of_one_label_come_back_and_would_not_by_the_gradients_alone(
    labels: list[int], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = client(labels, seed)

    def worst() -> float:
        found = attack(
            SMALL,
            victim.params,
            victim.gradients,
            batch=len(labels),
            labels="infer",
            method="levenberg-marquardt",
            seed=seed,
        )
        order = match_batch(found.images, victim.images)
        return float(mse(found.images[order], victim.images).max())

    assert worst() < 1e-10
    monkeypatch.setattr(least_squares, "read_features", lambda *args: None)
    assert worst() > 1e-3

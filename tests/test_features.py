"""The subspace of a batch's features: how it is read, and images of one label that it separates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from tinyleak import data
from tinyleak.analytic import LastLayerGradient, unmix
from tinyleak.attacks import Attacker, Reconstruction, Settings, attack, problem_of
from tinyleak.attacks.advice import likely_causes
from tinyleak.attacks.least_squares import one_by_one
from tinyleak.attacks.least_squares.features import (
    FeatureResidual,
    FeatureSubspace,
    images_with,
    read_features,
    read_span,
)
from tinyleak.attacks.least_squares.last_layer import LastLayer
from tinyleak.attacks.least_squares.residual import GradientResidual
from tinyleak.attacks.matching import Matching
from tinyleak.backend import Array
from tinyleak.client import Client, Truth, certify_images, share, simulate
from tinyleak.metrics import match_batch, matched_mse, mse
from tinyleak.nn import MLP, LeNet, one_hot

SMALL = LeNet((1, 8, 8), classes=4, hidden=6)
WIDE = LeNet((1, 8, 8), classes=4, hidden=12)


def simulated(labels: list[int], seed: int, scheme: str = "default") -> tuple[Client, Truth]:
    images = np.random.default_rng(100 + seed).random((len(labels), *SMALL.image_shape))
    return share(SMALL, SMALL.init(np.random.default_rng(seed), scheme), images, labels)


def layer_of(client: Client, **changes: Any) -> LastLayerGradient:
    layer = replace(client, **changes).last_layer
    assert layer is not None
    return layer


def span_of(client: Client) -> FeatureSubspace:
    found = read_span(layer_of(client))
    assert found is not None
    return found


def solved(client: Client, labels: list[int] | Literal["infer"], **options: Any) -> Reconstruction:
    return attack(client, labels=labels, method="levenberg-marquardt", **options)


def features_of(client: Client, truth: Truth) -> np.ndarray:
    return LastLayer(client.model, client.params, client.batch).features(truth.images)


def searched(layer: LastLayerGradient, labels: list[int]) -> FeatureSubspace | None:
    guess = np.full((layer.batch, layer.weight.shape[1]), 0.5)
    return read_features(layer, labels, guess, np.random.default_rng(0), 20)


def residual_of(
    client: Client,
    truth: Truth,
    unsettled: list[int],
    subspace: FeatureSubspace | None = None,
) -> FeatureResidual:
    scale = np.asarray(7.0)
    shared = {name: scale * gradient for name, gradient in client.gradients.items()}
    matching = Matching(SMALL, client.params, shared, client.batch, scale)
    targets = one_hot(truth.labels, SMALL.classes)
    gradient = GradientResidual(matching, targets, np.array(unsettled, dtype=np.int64))
    return FeatureResidual(gradient, subspace or span_of(client), 5.0)


def test_the_clients_images_lie_in_the_span_and_others_do_not(rng: np.random.Generator) -> None:
    client, truth = simulated([1, 1, 2], 0)
    residual = residual_of(client, truth, [])
    span = residual.subspace.span
    assert span.shape == (3, SMALL.shapes["fc.0.weight"][1])
    np.testing.assert_allclose(span @ span.T, np.eye(3), atol=1e-12)
    inside = np.abs(residual.outside(truth.images.ravel())).max()
    others = np.abs(residual.outside(rng.random(truth.images.size))).max()
    assert inside < 1e-9
    assert others > 1e-4


def two_of_one_label() -> tuple[Client, Truth]:
    """Glyphs with labels 3, 4, 5 and 5, in float32."""
    images, labels = data.load("glyphs").batch([3, 4, 5, 15])
    return simulate(LeNet(), images, labels, init="default", dtype="float32", seed=1)


@pytest.mark.slow
def test_images_of_one_label_come_apart_though_rounding_hides_all_but_their_mean() -> None:
    client, truth = two_of_one_label()
    found = attack(client, method="auto")
    assert found.reason == "converged"
    assert found.labels.tolist() == [3, 4, 5, 5]
    assert matched_mse(found.images, truth.images).max() < 1e-7


def test_without_that_the_mean_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two come back, and the mean of the last."""
    monkeypatch.setattr(one_by_one, "told_apart", lambda *_: iter(()))
    client, truth = two_of_one_label()
    problem = problem_of(client, Attacker(method="auto"))
    found = attack(problem)
    assert likely_causes(problem, found, client.explain(found))[0].name == "hidden images"
    assert found.labels.tolist() == [3, 4, 5, 5]
    assert mse(found.images[:2], truth.images[:2]).max() < 1e-6
    np.testing.assert_array_equal(found.images[2], found.images[3])
    assert mse(found.images[2:3], truth.images[2:].mean(axis=0, keepdims=True)) < 1e-2
    verdicts = certify_images(client, found.images, found.labels).verdicts
    assert verdicts[2:] == (None, None), "a mean looks like two copies"


def known_to_be(features: Array) -> FeatureSubspace:
    """Features that are known exactly."""
    return FeatureSubspace(features, np.zeros((0, features.shape[1])), np.zeros(len(features)))


def test_they_are_the_last_layers_inputs(rng: np.random.Generator) -> None:
    model = MLP((1, 3, 4), 5, "tanh", (6,))
    params, images = model.init(rng), rng.random((2, 1, 3, 4))
    hidden = np.tanh(images.reshape(2, 12) @ params["0.weight"].T + params["0.bias"])
    last = LastLayer(model, params, 2)
    np.testing.assert_allclose(last.features(images), hidden, atol=1e-13)
    found = last.jacobian(images).reshape(2, 12, 6)
    for image, pixel in ((0, 1), (0, 11), (1, 2)):
        slope = (1 - hidden[image] ** 2) * params["0.weight"][:, pixel]
        np.testing.assert_allclose(found[image, pixel], slope, atol=1e-13)


@pytest.mark.parametrize("known", [False, True])
def test_its_derivatives_are_those_of_differences(known: bool, rng: np.random.Generator) -> None:
    client, truth = simulated([0, 3], 1)
    features = features_of(client, truth)
    subspace = known_to_be(features) if known else None
    residual = residual_of(client, truth, [1], subspace)
    x = rng.random(2 * 64 + 4)
    some = np.array([0, 2, 63, 64, 99, 127, 129])
    steps = 1e-5 * np.eye(len(x))[some]
    jacobian = np.stack(
        [(residual.value(x + step) - residual.value(x - step)) / 2e-5 for step in steps], axis=1
    )
    r = residual.value(x)
    assert len(r) == features.size + len(residual.gradient.value(x))
    np.testing.assert_allclose(residual.slope(x, r)[some], jacobian.T @ r, atol=1e-8)
    gram = residual.gram(x)[np.ix_(some, some)]
    np.testing.assert_allclose(gram, jacobian.T @ jacobian, atol=1e-8)


def test_nothing_is_read_where_the_gradient_does_not_show_it(rng: np.random.Generator) -> None:
    client, _ = simulated([0, 0], 0)
    assert read_span(layer_of(client)) is not None
    assert read_span(layer_of(client, batch=4)) is None, "as many images as classes"
    single = {name: g.astype(np.float32) for name, g in client.gradients.items()}
    assert read_span(layer_of(client, gradients=single)) is None, "rounding hides a direction"
    noisy = {n: g + 1e-3 * rng.standard_normal(g.shape) for n, g in client.gradients.items()}
    assert read_span(layer_of(client, gradients=noisy)) is None


def test_single_precision_does_not_hide_what_short_rows_show() -> None:
    """Of eight digits of six labels, some rows of the gradient are a thousandth of others."""
    images, labels = data.load("glyphs").batch([844, 75, 16, 508, 306, 268, 40, 633])
    client, _ = simulate(LeNet(), images, labels, init="uniform", dtype="float32", seed=0)
    layer = layer_of(client)
    assert layer.sizes[7] < 1e2 * layer.sizes[8], "as the rows are, rounding hides a direction"
    assert read_span(layer) is not None
    params = {name: array.astype(float) for name, array in client.params.items()}
    features = LastLayer(client.model, params, 8).features(images)
    found = unmix(layer, labels, rounding=1e-6)
    distances = np.linalg.norm(found.features[:, np.newaxis] - features, axis=2)
    assert sorted(distances.argmin(axis=1)) == list(range(8))
    assert (distances.min(axis=1) < 10.0 * found.errors).all()
    assert (found.errors < 1e-4).all()


@pytest.mark.parametrize("shift", [-97.0, -200.0])
def test_a_class_whose_probability_float32_rounds_away_tells_nothing(shift: float) -> None:
    images, labels = data.load("glyphs").batch([844, 75, 16, 508])
    model = MLP((1, 28, 28), 10, "sigmoid", (100,))
    params = model.init(np.random.default_rng(1))
    params["2.bias"][np.setdiff1d(np.arange(10), labels)[0]] += shift
    client, _ = share(model, params, images, labels, dtype="float32")
    layer = layer_of(client)
    assert read_span(layer) is not None
    assert unmix(layer, labels).misfit < 10.0


@pytest.mark.parametrize("scheme", ["default", "uniform"])
@pytest.mark.parametrize(
    ("labels", "dtype", "tolerance"),
    [
        ([1, 1, 2], "float64", 1e-5),
        ([3, 3], "float64", 1e-5),
        ([0, 2], "float64", 1e-5),
        ([3], "float64", 1e-5),
        ([0, 2], "float32", 1e-3),  # with one label, what tells images apart is below the rounding
        ([3], "float32", 1e-3),
    ],
)
def test_the_features_themselves_are_read(
    labels: list[int], dtype: str, tolerance: float, scheme: str
) -> None:
    client, truth = simulated(labels, 0, scheme)
    rounded = {name: g.astype(dtype) for name, g in client.gradients.items()}
    found = searched(layer_of(client, gradients=rounded), labels)
    assert found is not None
    assert found.is_known
    expected = features_of(client, truth)
    nearest = [np.abs(found.points - one).max(axis=1) for one in expected]
    indices = np.argmin(nearest, axis=1)
    assert sorted(indices) == list(range(len(labels))), "each image's, once"
    assert [labels[index] for index in indices] == labels
    assert np.min(nearest, axis=1).max() < tolerance * np.std(expected)


def test_no_features_are_read_with_a_label_that_is_wrong_nor_without_a_bias() -> None:
    client, _ = simulated([1, 1, 2], 0)
    assert searched(layer_of(client), [1, 1, 2]) is not None
    assert searched(layer_of(client), [1, 2, 2]) is None
    without = {**client.gradients, "fc.0.bias": np.zeros(4)}
    assert searched(layer_of(client, gradients=without), [1, 1, 2]) is None


def test_an_attack_on_such_a_client_goes_on_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It searches from many starts once, and then from one at each iteration."""
    asked = []

    def read(*args: Any) -> FeatureSubspace | None:
        asked.append(args[-1])
        return read_features(*args)

    monkeypatch.setattr(one_by_one, "read_features", read)
    client, _ = simulated([1, 1, 2], 0)
    found = solved(client, [1, 2, 2], settings=Settings(iterations=5))
    assert found.iterations == 5
    assert found.reason == "out of iterations"
    assert asked == [one_by_one.FIRST_STARTS, 1, 1, 1, 1]


@pytest.mark.parametrize("iterations", [0, 1])
def test_solving_for_each_image_is_an_iteration(iterations: int, rng: np.random.Generator) -> None:
    client, _ = share(WIDE, WIDE.init(rng, "uniform"), mostly_black(2, rng), [1, 2])
    found = solved(client, [1, 2], settings=Settings(iterations=iterations))
    assert found.iterations == iterations == len(found.distances) - 1
    assert found.reason == ("converged" if iterations else "out of iterations")


def mostly_black(count: int, rng: np.random.Generator) -> np.ndarray:
    images = rng.random((count, *WIDE.image_shape))
    for image in images:
        image.ravel()[rng.permutation(64)[12:]] = 0.0
    return images


def test_an_image_that_is_mostly_black_is_determined_by_its_features(
    rng: np.random.Generator,
) -> None:
    """48 features determine 64 pixels of which 12 are not black, and not 64 that may be any."""
    params, images = WIDE.init(rng), mostly_black(3, rng)
    images[1] = rng.random(WIDE.image_shape)
    images[2] *= 3.0  # pixels from 0 to 3, whose features no image in [0, 1] has
    features = LastLayer(WIDE, params, 3).features(images)
    grey = np.full_like(images, 0.5)
    found, determined = images_with(WIDE, params, known_to_be(features), grey)
    assert determined.tolist() == [True, False, False]
    assert mse(found[:1], images[:1]).max() < 1e-12
    np.testing.assert_array_equal(found[1:], grey[1:])


def test_images_much_larger_than_their_features_are_not_tried(rng: np.random.Generator) -> None:
    """Black ones would be determined, but it would take long to find most that they are not."""
    params, images = SMALL.init(rng), np.zeros((1, *SMALL.image_shape))
    features = LastLayer(SMALL, params, 1).features(images)
    found, determined = images_with(SMALL, params, known_to_be(features), images + 0.5)
    assert not determined.any()
    np.testing.assert_array_equal(found, images + 0.5)


def test_a_batch_of_such_images_needs_few_steps(rng: np.random.Generator) -> None:
    client, truth = share(WIDE, WIDE.init(rng, "uniform"), mostly_black(3, rng), [1, 1, 2])
    found = solved(client, [1, 1, 2])
    assert found.reason == "converged"
    assert found.iterations <= 3
    assert len(found.distances) == found.iterations + 1
    order = match_batch(found.images, truth.images)
    assert mse(found.images[order], truth.images).max() < 1e-10


@pytest.mark.parametrize(("labels", "seed"), [([1, 1, 2], 2), ([0, 0], 0), ([0, 0], 2)])
def test_images_of_one_label_come_back_and_would_not_by_the_gradients_alone(
    labels: list[int], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, truth = simulated(labels, seed)

    def worst() -> float:
        found = solved(client, "infer", seed=seed)
        order = match_batch(found.images, truth.images)
        return float(mse(found.images[order], truth.images).max())

    assert worst() < 1e-10
    monkeypatch.setattr(one_by_one.Search, "span", lambda self: None)
    monkeypatch.setattr(one_by_one.Search, "features", lambda *_: None)
    assert worst() > 1e-3

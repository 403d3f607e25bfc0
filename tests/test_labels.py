"""Labels read off the last layer's gradient: of one image, and counts of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tinyleak.analytic import LayerGradient, infer_labels, label_search, search_labels, unmix
from tinyleak.analytic.last_layer import ends_linear, last_layer_names, layer_names
from tinyleak.attacks import Settings, attack, attack_many
from tinyleak.client import Client, Truth, share, simulate
from tinyleak.data import Dataset, load_glyphs, load_mnist
from tinyleak.nn import MLP, LeNet, flatten, init, linear
from tinyleak.nn.layers import activation
from tinyleak.tensor import Tensor

GLYPHS = load_glyphs(300)
SMALL = LeNet((1, 8, 8), classes=4, hidden=6)


@dataclass(frozen=True)
class WithoutBias:
    """One hidden layer, and a last layer that has no bias."""

    image_shape: tuple[int, int, int] = (1, 28, 28)
    classes: int = 10
    activation: str = "sigmoid"
    width: int = 30

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        pixels = math.prod(self.image_shape)
        return {"in": (self.width, pixels), "out": (self.classes, self.width)}

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        features = activation(self.activation)(linear(flatten(x), params["in"]))
        return linear(features, params["out"])


def clients(
    model, count: int, scheme: str = "uniform", data: Dataset = GLYPHS
) -> list[tuple[Client, Truth]]:
    """Clients of one image each, every one with weights of its own."""
    return [
        simulate(model, *data.batch([index]), seed=index, init=scheme) for index in range(count)
    ]


def batch_client(model, size: int, seed: int, scheme: str) -> tuple[Client, Truth]:
    images = np.random.default_rng([seed, size]).integers(len(GLYPHS), size=size)
    return simulate(model, *GLYPHS.batch(images), seed=seed, init=scheme)


def read(client: Client, **options):
    assert client.last_layer is not None
    return infer_labels(client.last_layer, **options)


# One image.


@pytest.mark.parametrize("scheme", init.SCHEMES)
@pytest.mark.parametrize("squash", ["sigmoid", "tanh", "softplus", "relu"])
def test_the_bias_gives_the_label_away_whatever_the_activation(
    squash: str, scheme: str, mnist_directory: Path
):
    model = LeNet(activation=squash)
    for client, truth in clients(model, 60, scheme, load_mnist(mnist_directory)):
        found = read(client)
        assert found.labels.tolist() == truth.labels.tolist()
        assert (found.rule, found.trusted, found.warning) == ("bias", True, None)


def test_a_network_that_is_certain_gives_the_label_away_or_the_rule_says_that_it_guesses():
    # Probabilities round to 1 and 0, in float32 sooner, until no entry is left that is negative.
    trusted = 0
    for dtype in ("float64", "float32"):
        for label in range(10):
            params = LeNet().init(np.random.default_rng(label))
            for certainty in (10, 30, 60, 300):
                params["fc.0.bias"][label] = certainty
                client, _ = share(LeNet(), params, GLYPHS.images[:1], [label], dtype=dtype)
                found = read(client)
                trusted += found.trusted
                assert found.labels.tolist() == [label] or not found.trusted
    assert trusted >= 40


def test_without_a_bias_the_weight_rule_serves_features_that_cannot_be_negative():
    for squash in ("sigmoid", "softplus", "relu"):
        model = WithoutBias(activation=squash)
        for client, truth in clients(model, 30):
            found = read(client)
            assert found.labels.tolist() == truth.labels.tolist()
            assert (found.rule, found.trusted) == ("weight", True)


def test_the_weight_rule_is_wrong_where_features_can_be_negative_and_the_rows_are_not():
    model = WithoutBias(activation="tanh")
    sums_right = 0
    for client, truth in clients(model, 60):
        sums_right += int(np.argmin(client.gradients["out"].sum(axis=1))) == truth.labels[0]
        found = read(client)
        assert found.labels.tolist() == truth.labels.tolist()
        assert (found.rule, found.trusted) == ("rows", True)
    assert sums_right < 50


def test_two_classes_without_bias_and_sign_are_not_told_apart_and_it_says_so():
    model = WithoutBias(classes=2, activation="tanh")
    client, _ = simulate(model, GLYPHS.images[:1], [1])
    found = read(client)
    assert not found.trusted
    assert found.warning is not None
    assert "is a guess" in found.warning
    # With a sign that is known the same two classes are told apart.
    model = WithoutBias(classes=2)
    for label in (0, 1):
        client, _ = simulate(model, GLYPHS.images[:1], [label])
        assert read(client).labels.tolist() == [label]


def test_a_gradient_that_is_not_one_images_is_not_trusted():
    model = LeNet()
    client, _ = clients(model, 1)[0]
    rng = np.random.default_rng(0)
    noisy = {k: g + rng.normal(0, 0.3, g.shape) for k, g in client.gradients.items()}
    assert not infer_labels(LayerGradient.last(model, client.params, noisy)).trusted
    zero = {name: np.zeros_like(g) for name, g in client.gradients.items()}
    assert not infer_labels(LayerGradient.last(model, client.params, zero)).trusted
    for squash in ("sigmoid", "tanh"):
        bare = WithoutBias(activation=squash)
        client, _ = clients(bare, 1)[0]
        zero = {name: np.zeros_like(g) for name, g in client.gradients.items()}
        assert not infer_labels(LayerGradient.last(bare, client.params, zero)).trusted


# Batches.


@pytest.mark.parametrize("size", [2, 8, 64])
@pytest.mark.parametrize("squash", ["sigmoid", "tanh", "softplus"])
def test_counts_are_exact_where_predictions_hardly_depend_on_the_image(squash: str, size: int):
    model = LeNet(activation=squash)
    for seed in range(3):
        client, truth = batch_client(model, size, seed, "default")
        found = read(client)
        assert found.labels.tolist() == sorted(truth.labels.tolist())
        assert found.counts.tolist() == np.bincount(truth.labels, minlength=10).tolist()
        assert found.trusted
        assert found.rule in ("counts", "signs")


def test_signs_alone_tell_different_labels():
    model = LeNet(activation="tanh")
    for seed in range(3):
        client, truth = batch_client(model, 3, seed, "default")
        found = read(share(model, client.params, truth.images, [1, 4, 8])[0])
        assert (found.labels.tolist(), found.rule, found.trusted) == ([1, 4, 8], "signs", True)


def test_a_label_whose_sign_is_sure_is_never_left_out():
    model = LeNet(activation="tanh")
    for seed in range(3):
        client, truth = batch_client(model, 3, seed, "uniform")
        params = {name: 3 * weight for name, weight in client.params.items()}
        found = read(share(model, params, truth.images, [6, 6, 2])[0])
        assert found.counts.sum() == 3
        assert found.counts[[2, 6]].min() >= 1


def test_counts_are_exact_for_the_papers_weights_and_batches():
    model = LeNet()
    for size in (2, 4, 8):
        for seed in range(3):
            client, truth = batch_client(model, size, seed, "uniform")
            assert read(client).labels.tolist() == sorted(truth.labels.tolist())


def test_probes_like_the_clients_images_make_counts_of_large_batches_exact():
    model = LeNet()
    probes = load_glyphs(400, seed=9).images
    exact = {"smooth noise": 0, "digits": 0}
    for seed in range(6):
        client, truth = batch_client(model, 64, seed, "uniform")
        labels = sorted(truth.labels.tolist())
        exact["smooth noise"] += read(client).labels.tolist() == labels
        exact["digits"] += read(client, probes=probes).labels.tolist() == labels
    assert exact["digits"] >= 4
    assert exact["digits"] > exact["smooth noise"] + 1


def test_counts_that_are_off_are_not_trusted():
    trusted, wrong = 0, 0
    for squash in ("sigmoid", "tanh", "softplus"):
        for scheme in init.SCHEMES:
            for size in (3, 16, 48):
                model = LeNet(activation=squash)
                client, truth = batch_client(model, size, 1, scheme)
                found = read(client)
                exact = found.labels.tolist() == sorted(truth.labels.tolist())
                assert len(found.labels) == found.counts.sum() == size
                assert exact or not found.trusted
                trusted += found.trusted
                wrong += not exact
                if not found.trusted:
                    assert "standard error" in str(found.warning)
    assert trusted >= 9
    assert wrong >= 2


def test_labels_that_are_a_guess_are_those_with_which_features_make_the_gradient(monkeypatch):
    """Of a network whose predictions depend on the image, with two images of one label."""
    model, wrong = MLP((1, 4, 4), 8, "tanh", (12,)), 0
    for seed in (1, 3, 7, 11):
        rng = np.random.default_rng(seed)
        params = {name: 8.0 * array for name, array in model.init(rng).items()}
        client, truth = share(model, params, rng.random((3, 1, 4, 4)), [1, 1, 3])
        assert client.last_layer is not None
        wrong += infer_labels(client.last_layer).labels.tolist() != [1, 1, 3]
        for rule in ("records", "features"):
            found = search_labels(client.last_layer)
            assert found is not None and found.trusted and found.rule == rule
            assert found.labels.tolist() == [1, 1, 3] and found.counts[[1, 3]].tolist() == [2, 1]
            assert client.labels.trusted and client.labels.rule == "records"
            monkeypatch.setattr(label_search, "labels_by_records", lambda layer: None)
        monkeypatch.undo()
    assert wrong == 4
    monkeypatch.setattr(label_search, "labels_by_records", lambda layer: None)
    monkeypatch.setattr(label_search, "ALTOGETHER", 0.0)
    assert search_labels(client.last_layer) is None, (
        "what is inferred is wrong, and no time is left"
    )


@pytest.mark.parametrize("factor", [1.0, 3.0, 0.37])
def test_records_of_the_last_layer_tell_by_how_much_a_gradient_is_multiplied(factor):
    model = MLP((1, 4, 4), 8, "tanh", (12,))
    rng = np.random.default_rng(5)
    params = {name: 8.0 * array for name, array in model.init(rng).items()}
    client, _ = share(model, params, rng.random((3, 1, 4, 4)), [1, 1, 3])
    gradients = {name: factor * g for name, g in client.gradients.items()}
    layer = LayerGradient.last(model, params, gradients, 3)
    assert label_search.factor_by_records(layer) == pytest.approx(factor, rel=1e-9)
    assert label_search.labels_by_records(layer) is None or factor == 1.0


@pytest.mark.parametrize(("seed", "label", "batch"), [(3, 1, 2), (7, 1, 3), (13, 8, 3)])
def test_labels_of_equal_images_are_not_trusted_unseen(seed, label, batch):
    """They leave one direction, which is a feature with any label beside one that is certain."""
    model = MLP((1, 4, 4), 9, "tanh", (12,))
    rng = np.random.default_rng(seed)
    params = {name: 8.0 * array for name, array in model.init(rng).items()}
    images = np.repeat(rng.random((1, 1, 4, 4)), batch, axis=0)
    layer = share(model, params, images, [label] * batch)[0].last_layer
    assert layer is not None and infer_labels(layer).labels.tolist() != [label] * batch
    found = search_labels(layer)
    assert found is not None and found.labels.tolist() == [label] * batch
    wrong = [label] * (batch - 1) + [(label + 1) % 9]
    assert label_search.explanation(layer, wrong) is None
    features = unmix(layer, [label] * batch)
    assert features.misfit < 10.0 and np.isinf(features.errors).all(), "they may be a mean"


def test_features_that_are_zero_are_one_image_for_each_label():
    """No unit is active, so that the gradient is that of the bias alone."""
    rng, model = np.random.default_rng(0), MLP((1, 4, 4), 6, "relu", (12,))
    params = model.init(rng)
    params["0.bias"] = params["0.bias"] - 100.0
    for dtype in ("float64", "float32"):
        client, _ = share(model, params, rng.random((3, 1, 4, 4)), [1, 1, 2], dtype=dtype)
        assert client.last_layer is not None
        found = unmix(client.last_layer, [1, 1, 2])
        assert found.misfit < 10.0 and np.isfinite(found.errors).tolist() == [False, False, True]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_image_under_two_labels_has_both(dtype):
    rng, model = np.random.default_rng(0), MLP((1, 4, 4), 6, "tanh", (12,))
    images = np.repeat(rng.random((1, 1, 4, 4)), 3, axis=0)
    client, _ = share(model, model.init(rng), images, [1, 1, 2], dtype=dtype)
    assert client.labels.labels.tolist() == [1, 1, 2]
    assert client.labels.counts.tolist() == [0, 2, 1, 0, 0, 0]


def test_without_a_bias_and_with_many_classes_counts_are_found_as_well():
    bare = WithoutBias()
    many = MLP((1, 28, 28), classes=100, widths=(20,))
    for model in (bare, many):
        images = GLYPHS.images[:8]
        params = init.draw(model.shapes, np.random.default_rng(0), "default")
        labels = [3, 3, 3, 0, 9, 9, 1, 7]
        client, _ = share(model, params, images, labels)
        assert read(client).labels.tolist() == sorted(labels)


# The attack.


def test_the_attack_uses_inferred_labels_as_known_ones():
    images = np.random.default_rng(0).uniform(size=(2, 1, 8, 8))
    some = [
        simulate(SMALL, images, labels, seed=seed, init="default")[0]
        for seed, labels in enumerate([[3, 1], [2, 2]])
    ]
    settings = Settings(iterations=5)
    told = [
        attack(client, labels=labels, seed=seed, settings=settings)
        for seed, (client, labels) in enumerate(zip(some, [[1, 3], [2, 2]], strict=True))
    ]
    inferred = attack_many(some, labels="infer", settings=settings)
    for one, other in zip(told, inferred, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(one.images, other.images, rtol=1e-9)
    alone = attack(some[0], labels="infer", settings=settings)
    np.testing.assert_array_equal(alone.images, told[0].images)


# Bad requests.


def test_another_word_than_infer_is_refused():
    client, _ = clients(LeNet(), 1)[0]
    with pytest.raises(
        ValueError, match=r"labels 'guess' were given; give N whole numbers, .infer. or"
    ):
        attack(LeNet(), client.params, client.gradients, labels="guess")  # type: ignore[arg-type]


def test_a_batch_below_one_and_probes_of_another_shape_are_refused():
    client, _ = clients(LeNet(), 1)[0]
    with pytest.raises(ValueError, match="a batch of 0; give 1 or more"):
        LayerGradient.last(LeNet(), client.params, client.gradients, 0)
    layer = LayerGradient.last(LeNet(), client.params, client.gradients, 2)
    for shape in ((5, 3, 28, 28), (0, 1, 28, 28), (1, 28, 28)):
        with pytest.raises(ValueError, match=r"probes of shape .* needs \(M, \*\(1, 28, 28\)\)"):
            infer_labels(layer, probes=np.zeros(shape))


def test_gradients_that_do_not_fit_are_refused():
    client, _ = clients(LeNet(), 1)[0]
    with pytest.raises(ValueError, match="the gradients do not fit"):
        LayerGradient.last(LeNet(), client.params, {})
    with pytest.raises(ValueError, match="the weights do not fit"):
        LayerGradient.last(LeNet(), {}, client.gradients)


def test_a_network_without_a_linear_last_layer_is_refused():
    @dataclass(frozen=True)
    class Odd:
        classes: int = 10
        image_shape: tuple[int, int, int] = (1, 2, 2)
        shapes = {"scale": (10,)}

    with pytest.raises(ValueError, match=r"labels can be inferred where the last layer is linear"):
        last_layer_names(Odd())  # type: ignore[arg-type]
    assert not ends_linear(Odd())  # type: ignore[arg-type]


def test_the_last_layer_is_found_by_its_shape():
    assert last_layer_names(LeNet()) == ("fc.0.weight", "fc.0.bias")
    assert last_layer_names(MLP()) == ("4.weight", "4.bias")
    assert last_layer_names(WithoutBias()) == ("out", None)  # type: ignore[arg-type]


def test_a_scale_is_no_bias():
    @dataclass(frozen=True)
    class Normalised:
        shapes = {"1.weight": (6, 4), "2.weight": (6,), "2.bias": (6,), "3.weight": (2, 6)}

    names = [("1.weight", None), ("3.weight", None)]
    assert layer_names(Normalised()) == names  # type: ignore[arg-type]

"""The factor on a client's loss, told from the last layer's gradient."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak.analytic import Premises, read_premises
from tinyleak.client import Client, share, simulate
from tinyleak.data import load_glyphs
from tinyleak.nn import MLP, LeNet

SHAPE = (1, 10, 10)


def client(model, rng, batch, scheme="default"):
    params = model.init(rng, scheme)
    labels = rng.integers(0, model.classes, batch)
    return params, share(model, params, rng.random((batch, *SHAPE)), labels)[0].gradients


def times(gradients, factor):
    return {name: factor * gradient for name, gradient in gradients.items()}


def scale_of(model, params, gradients, batch=1) -> Premises | None:
    """What is read off, if the factor is among it."""
    read = read_premises(model, params, gradients, batch)
    return None if read.factor is None else read


@pytest.mark.parametrize("factor", [1.0, 8.0, 1e-3, -0.05])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softplus"])
@pytest.mark.parametrize("scheme", ["default", "uniform"])
def test_for_one_image_it_is_exact(rng, factor, activation, scheme) -> None:
    for model in (LeNet(SHAPE, 7, activation), MLP(SHAPE, 3, activation, (20,))):
        params, gradients = client(model, rng, 1, scheme)
        found = scale_of(model, params, times(gradients, factor))
        if found is None:  # a network that is certain: two entries fit many factors and labels
            assert (scheme, activation) == ("uniform", "tanh")
            continue
        assert found.factor_exact
        assert found.factor == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("batch", [2, 4, 8])
def test_a_mean_and_a_sum_over_a_batch_are_told_apart(rng, batch) -> None:
    model = LeNet(SHAPE, 10)
    params, gradients = client(model, rng, batch)
    found = scale_of(model, params, gradients, batch)
    assert found is not None
    assert (found.factor, found.factor_exact) == (1.0, True)
    found = scale_of(model, params, times(gradients, batch), batch)
    assert found is not None
    assert (found.factor, found.factor_exact) == (float(batch), True)


def test_another_factor_of_a_batch_is_an_estimate(rng) -> None:
    model = LeNet(SHAPE, 10)
    params, gradients = client(model, rng, 4)
    found = scale_of(model, params, times(gradients, 0.3), 4)
    assert found is not None
    assert not found.factor_exact
    assert found.factor == pytest.approx(0.3, rel=0.05)


def test_where_predictions_depend_on_the_images_nothing_is_said_to_be_exact(rng) -> None:
    model = MLP(SHAPE, 10, "tanh", (30,))
    params, gradients = client(model, rng, 4, "uniform")
    found = scale_of(model, params, gradients, 4)
    assert found is None or not found.factor_exact


def test_noise_on_the_last_layer_is_not_taken_for_a_factor(rng) -> None:
    model = LeNet(SHAPE, 10)
    params, gradients = client(model, rng, 1)
    noisy = {name: g + 0.1 * rng.standard_normal(g.shape) for name, g in gradients.items()}
    assert scale_of(model, params, noisy) is None


def test_a_gradient_of_zeros_says_nothing(rng) -> None:
    model = LeNet(SHAPE, 10)
    params, gradients = client(model, rng, 2)
    assert scale_of(model, params, times(gradients, 0.0), 2) is None
    assert scale_of(model, params, times(gradients, 0.0), 1) is None


@pytest.mark.parametrize("scheme", ["default", "uniform"])
@pytest.mark.parametrize("batch", [2, 4, 8, 16])
def test_a_probable_label_that_images_have_is_not_taken_for_an_absent_one(batch, scheme) -> None:
    model, digits = LeNet(), load_glyphs(32)
    for first in range(0, 8, 2):
        images, labels = digits.consecutive(first, batch)
        shared, _ = simulate(model, images, labels, seed=first, init=scheme)
        for factor in (1.0, float(batch)):
            gradients = times(shared.gradients, factor)
            found = scale_of(model, shared.params, gradients, batch)
            assert found is not None
            if scheme == "default" or found.factor_exact:
                assert (found.factor, found.factor_exact) == (factor, True)
            elif batch <= 8:
                assert found.factor == pytest.approx(factor, rel=0.25 + found.factor_error)


@pytest.mark.parametrize("factor", [1e-170, 1e-30, 0.1, 2.0, 1e170])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_factor_may_be_of_any_size(batch, factor) -> None:
    model = LeNet()
    images, labels = load_glyphs(4).consecutive(1, batch)
    shared, _ = simulate(model, images, labels, init="default")
    client = Client.of(model, shared.params, times(shared.gradients, factor), batch=batch)
    assert client.loss.factor == pytest.approx(factor, rel=0.05)
    if factor == batch:
        assert client.loss.fact.value == "a sum over the batch"
    else:
        assert f"{client.loss.factor:.3g}"[:3] in client.loss.fact.value
    for name, gradient in client.gradients.items():
        stretched = gradient * (client.loss.factor / factor)
        np.testing.assert_allclose(stretched, shared.gradients[name], rtol=1e-10)


@pytest.mark.parametrize(("factor", "exact"), [(0.6, True), (1.3, True), (3.0, False)])
def test_a_rough_estimate_stands_for_a_mean_if_it_is_not_nearer_to_a_sum(
    factor, exact, rng, monkeypatch
) -> None:
    model = LeNet(SHAPE, 7)
    params, gradients = client(model, rng, 4)
    read = Premises(factor=factor, factor_exact=False, factor_error=1.0)
    monkeypatch.setattr("tinyleak.client.reading.read_premises", lambda *given, **more: read)
    loss = Client.of(model, params, gradients, batch=4).loss
    assert loss.exact is exact
    # 1 is within its error: no other factor is said to have been read off.
    assert loss.fact.source == "assumed" and loss.fact.value.startswith("a mean")


def test_no_factor_and_no_labels_are_claimed_of_a_table_that_are_others() -> None:
    """Its rows are no smooth images: with those as probes a sum was said of 3 means in 24."""
    for seed in range(24):
        rng = np.random.default_rng(seed)
        model, batch = MLP((1, 1, 10), 2, "tanh", (32,)), (4, 8)[seed % 2]
        params, labels = model.init(rng, "default"), rng.integers(0, 2, batch)
        shared, _ = share(model, params, rng.standard_normal((batch, 1, 1, 10)), labels)
        table = Client.of(model, params, shared.gradients, batch=batch)
        assert table.loss.factor == 1.0 or not table.loss.exact
        assert not table.labels.trusted or table.labels.labels.tolist() == sorted(labels)


def test_no_factor_is_told_where_images_have_every_label() -> None:
    """Then no class shows the probabilities alone: 0.16 ± 0.006 was said of means over 32."""
    model, digits = MLP((1, 28, 28), 10, "leaky_relu", (128, 64)), load_glyphs(32)
    for seed in range(6):
        params = model.init(np.random.default_rng(seed), "default")
        gradients = share(model, params, digits.images, digits.labels)[0].gradients
        found = scale_of(model, params, gradients, 32)
        assert found is None or abs(found.factor - 1.0) <= found.factor_error

"""The input of a fully connected layer, alone and in a batch."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak.analytic import LayerGradient, first_layer_input, separate_inputs
from tinyleak.client import Client, Truth, simulate
from tinyleak.data import load_glyphs
from tinyleak.nn import MLP

DIGITS = load_glyphs(64)


def simulated(
    count: int, model: MLP, scheme: str = "uniform", seed: int = 0
) -> tuple[Client, Truth]:
    first = 5 * seed
    return simulate(
        model,
        DIGITS.images[first : first + count],
        DIGITS.labels[first : first + count],
        seed=seed,
        init=scheme,
    )


def first_layer(client: Client) -> LayerGradient:
    return LayerGradient(client.gradients["0.weight"], client.gradients["0.bias"])


@pytest.mark.parametrize("scheme", ["uniform", "default"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softplus", "relu"])
def test_one_image_is_exact(activation: str, scheme: str):
    for seed in range(5):
        client, truth = simulated(1, MLP(activation=activation), scheme, seed)
        found = first_layer_input(first_layer(client))
        np.testing.assert_allclose(found, truth.images[0].ravel(), rtol=0, atol=1e-10)


def test_one_image_is_exact_however_small_the_gradient_and_in_colour():
    model = MLP((3, 4, 5), classes=3, widths=(7,))
    image = np.random.default_rng(0).uniform(size=(1, 3, 4, 5))
    gradients = simulate(model, image, [1])[0].gradients
    for scale in (1.0, 1e-200, 1e200):
        scaled = LayerGradient(gradients["0.weight"] * scale, gradients["0.bias"] * scale)
        found = first_layer_input(scaled)
        np.testing.assert_allclose(found.reshape(3, 4, 5), image[0], rtol=0, atol=1e-10)


def test_rows_count_by_how_large_they_are():
    x = np.array([0.2, 0.7, 0.1])
    bias = np.array([1.0, 1e-8, 0.0])
    weight = np.outer(bias, x)
    weight[1:] += 1e-6  # noise that a plain mean of the ratios would blow up
    np.testing.assert_allclose(first_layer_input(LayerGradient(weight, bias)), x, atol=1e-12)


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        ((3, 4), (4,), r"gradients of shapes \(3, 4\) and \(4,\) were given"),
        ((3, 4, 1), (3,), r"\(3, 4, 1\)"),
        ((3,), (3,), r"\(O, F\) for the weight"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(weight, bias, message):
    with pytest.raises(ValueError, match=message):
        LayerGradient(np.ones(weight), np.ones(bias))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_bias_gradient_that_cannot_be_divided_by_is_refused(value):
    message = "NaN or infinity" if value else "the bias gradient is zero"
    for read in (first_layer_input, separate_inputs):
        with pytest.raises(ValueError, match=message):
            read(LayerGradient(np.ones((2, 3)), np.full(2, value)))


def alone(client: Client, truth: Truth) -> dict[int, list[int]]:
    """By image, the rows of the first layer that it alone switches on, computed from the truth."""
    pixels = truth.images.reshape(len(truth.images), -1)
    on = pixels @ client.params["0.weight"].T + client.params["0.bias"] > 0
    # A unit that reaches the loss through no unit of the next layer has no gradient at all.
    rows = np.flatnonzero((on.sum(axis=0) == 1) & (client.gradients["0.bias"] != 0))
    found: dict[int, list[int]] = {}
    for row in rows.tolist():
        found.setdefault(int(np.argmax(on[:, row])), []).append(row)
    return found


@pytest.mark.parametrize("scheme", ["uniform", "default"])
@pytest.mark.parametrize("count", [2, 3, 4, 8, 16])
def test_an_image_of_a_batch_is_separated_exactly_if_two_rows_are_its_own(count: int, scheme: str):
    for seed in range(3):
        client, truth = simulated(count, MLP(activation="relu", widths=(256, 32)), scheme, seed)
        expected = {image: rows for image, rows in alone(client, truth).items() if len(rows) > 1}
        found = separate_inputs(first_layer(client))
        assert len(found) == len(expected)
        sizes = [len(one.rows) for one in found]
        assert sizes == sorted(sizes, reverse=True)
        for one in found:
            errors = np.abs(truth.images.reshape(count, -1) - one.x).max(axis=1)
            image = int(np.argmin(errors))
            assert errors[image] < 1e-10
            # A row so small that it was not divided by may be missing.
            assert set(one.rows.tolist()) <= set(expected.pop(image))


def test_batches_are_separated_at_all():
    client, _ = simulated(4, MLP(activation="relu", widths=(256, 32)))
    assert len(separate_inputs(first_layer(client))) == 4


def test_smooth_activations_mix_a_batch_beyond_separation():
    for activation in ("sigmoid", "tanh", "softplus"):
        client, _ = simulated(3, MLP(activation=activation))
        assert separate_inputs(first_layer(client)) == []


def test_a_batch_of_one_is_one_input_with_all_rows():
    client, truth = simulated(1, MLP())
    (one,) = separate_inputs(first_layer(client))
    assert len(one.rows) == 128
    np.testing.assert_allclose(one.x, truth.images[0].ravel(), rtol=0, atol=1e-10)


def test_one_row_alone_says_nothing():
    assert separate_inputs(LayerGradient(np.ones((1, 3)), np.ones(1))) == []

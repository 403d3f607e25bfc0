"""The gradient of one linear layer: its rank, its noise, and the spaces that it shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tinyleak.analytic import LayerGradient, infer_labels, probes, unmix
from tinyleak.analytic.layer_gradient import TableGradient
from tinyleak.attacks import Settings, attack
from tinyleak.client import share, simulate
from tinyleak.nn import MLP, LeNet, ResNet

MODEL = MLP((1, 4, 4), 6, "tanh", (20,))


def layer_of(rng: np.random.Generator, deviation: float = 0.0) -> LayerGradient:
    """Five inputs of 20 numbers into 30 outputs, with noise."""
    deltas, inputs = rng.standard_normal((30, 5)), rng.standard_normal((5, 20))
    noise = deviation * rng.standard_normal((30, 20))
    return LayerGradient(deltas @ inputs + noise, None, 5)


def last_of(rng: np.random.Generator, deviation: float = 0.0, dtype: str = "float64"):
    params, images = MODEL.init(rng), rng.random((3, 1, 4, 4))
    client, _ = share(MODEL, params, images, [0, 2, 5], dtype=dtype)
    gradients = {
        name: gradient + deviation * rng.standard_normal(gradient.shape)
        for name, gradient in client.gradients.items()
    }
    return LayerGradient.last(MODEL, params, gradients, 3)


def test_it_is_held_in_float64_and_apart_from_what_was_given(rng: np.random.Generator) -> None:
    given = rng.random((3, 4)).astype(np.float32)
    layer = LayerGradient(given, given[:, 0])
    assert layer.weight_gradient.dtype == layer.matrix.dtype == np.float64
    kept = layer.matrix.copy()
    given *= 0.0
    np.testing.assert_array_equal(layer.matrix, kept)


def test_two_are_never_equal_and_say_little(rng: np.random.Generator) -> None:
    one, other = (LayerGradient(np.eye(300), np.ones(300), 2) for _ in range(2))
    assert one != other
    assert len({one, other}) == 2
    assert repr(one) == "LayerGradient(300 x 300, bias, records=2)"
    assert repr(layer_of(rng).row_space) == "Subspace(5 of 20 dimensions)"
    assert repr(last_of(rng)) == "LastLayerGradient(6 x 20, bias, records=3)"


@pytest.mark.parametrize("deviation", [1e-6, 1e-3])
def test_noise_is_told_from_the_singular_values_that_no_input_explains(
    deviation: float, rng: np.random.Generator
) -> None:
    layer = layer_of(rng, deviation)
    assert layer.noise == pytest.approx(deviation**2, rel=0.3)
    assert layer.rank == 5


@pytest.mark.parametrize("deviation", [1e-9, 1e-6])
def test_noise_on_the_last_layer_is_what_its_rows_add_up_to(
    deviation: float, rng: np.random.Generator
) -> None:
    layer = last_of(rng, deviation)
    assert layer.noise == pytest.approx(deviation**2, rel=0.9)
    assert layer.rank == 3


@pytest.mark.parametrize(("dtype", "least"), [("float64", 1e-16), ("float32", 1e-8)])
def test_rounding_is_noise_too(dtype: str, least: float, rng: np.random.Generator) -> None:
    layer = last_of(rng, dtype=dtype)
    assert layer.noise is not None
    relative = np.sqrt(layer.noise / np.mean(layer.matrix**2))
    assert relative < 30 * least
    assert layer.rank == 3


def test_without_a_number_of_inputs_noise_cannot_be_told_but_on_the_last_layer() -> None:
    layer = LayerGradient(np.eye(4))
    assert layer.noise is None
    assert LayerGradient(np.eye(4), None, 4).noise is None
    assert layer.rank == 4, "rounding alone is taken for noise"
    with pytest.raises(ValueError, match="give a smaller batch, or shorter sentences"):
        _ = layer.row_space


def test_its_row_space_holds_what_it_was_made_of_and_nothing_else(rng: np.random.Generator) -> None:
    deltas, inputs = rng.standard_normal((30, 5)), rng.standard_normal((5, 20))
    layer = LayerGradient(deltas @ inputs, None, 5)
    assert layer.row_space.holds(inputs).all()
    assert not layer.row_space.holds(rng.standard_normal((50, 20))).any()


def test_a_bias_adds_a_one_to_every_input(rng: np.random.Generator) -> None:
    deltas, inputs = rng.standard_normal((30, 5)), rng.standard_normal((5, 20))
    layer = LayerGradient(deltas @ inputs, deltas.sum(axis=1), 5)
    ones, zeros = np.ones((5, 1)), np.zeros((5, 1))
    assert layer.row_space.holds(np.hstack([inputs, ones])).all()
    assert not layer.row_space.holds(np.hstack([inputs, zeros])).any()


def test_layers_of_the_same_inputs_are_stacked_whatever_their_lengths(
    rng: np.random.Generator,
) -> None:
    inputs = rng.standard_normal((8, 20))
    small = [1e-9 * rng.standard_normal((30, 8)) @ inputs, np.zeros((7, 20))]
    large = [rng.standard_normal((10, 5)) @ inputs[:5]]
    layer = LayerGradient.stacked([*large, *small], 9)
    assert layer.weight_gradient.shape == (40, 20), "one of zeros says nothing"
    assert layer.rank == 8, "of nine inputs two were the same"
    assert layer.row_space.holds(inputs).all()
    with pytest.raises(ValueError, match="is zero, so it has no row space"):
        LayerGradient.stacked([np.zeros((3, 4))], 1)


def test_a_client_is_decomposed_and_shown_probes_only_once(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, shown, decomposed, svd = last_of(rng), [], [], np.linalg.svd
    monkeypatch.setattr(probes, "smooth_noise", lambda shape: shown.append(shape) or IMAGES)
    monkeypatch.setattr(probes, "_kept", {})

    def counting(matrix, **options):
        decomposed.append(matrix.shape == layer.matrix.shape)
        return svd(matrix, **options)

    monkeypatch.setattr(np.linalg, "svd", counting)
    labels = infer_labels(layer).labels
    assert len(layer.probe_logits) == len(layer.probe_logits) == len(IMAGES)
    unmix(layer, labels)
    unmix(layer, labels)
    assert shown == [MODEL.image_shape]
    assert np.sum(decomposed) == 1


def test_the_logits_of_probes_are_kept_of_one_network_with_its_weights(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that are equal but for the statistics of their batch norm are not taken for one."""
    shown, logits_of = [], probes.logits_of
    monkeypatch.setattr(
        probes, "logits_of", lambda *given: shown.append(given) or logits_of(*given)
    )
    monkeypatch.setattr(probes, "_kept", {})
    plain = ResNet((1, 4, 4), 3, width=2, blocks=1)
    other = replace(plain, statistics={"bn1.running_mean": np.array([0.5, -0.5])})
    params = plain.init(rng)
    for model, weights in ((plain, params), (other, params), (plain, plain.init(rng))):
        first = probes.probe_logits(model, weights)
        copied = {name: weight.copy() for name, weight in weights.items()}
        assert probes.probe_logits(model, copied) is first
        np.testing.assert_array_equal(
            first, logits_of(model, weights, probes.smooth_noise(model.image_shape))
        )
    assert (plain == other, len(shown)) == (True, 3)
    for _ in range(probes.KEPT):
        probes.probe_logits(plain, plain.init(rng))
    assert len(probes._kept) == probes.KEPT


IMAGES = np.random.default_rng(0).random((40, 1, 4, 4))


def test_a_number_of_labels_that_is_not_the_batchs_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="2 labels were given for the gradient of 3 images"):
        unmix(last_of(rng), [0, 1])


def test_what_does_not_fit_the_network_is_refused(rng: np.random.Generator) -> None:
    params = MODEL.init(rng)
    with pytest.raises(ValueError, match="the weights do not fit"):
        LayerGradient.last(LeNet(), params, params)
    with pytest.raises(ValueError, match="the gradients do not fit"):
        LayerGradient.last(MODEL, params, {})


def test_arrays_of_any_library_are_taken_and_copied() -> None:
    for give in (np.array, torch.tensor, lambda a: np.asarray(a).tolist()):
        layer = LayerGradient(give([[1.0, 2.0]]), give([0.5]))
        np.testing.assert_array_equal(layer.matrix, [[1.0, 2.0, 0.5]])
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        LayerGradient(np.array([[1.0, np.nan]]))


@pytest.mark.parametrize("options", [{"method": "levenberg-marquardt"}, {"start": "recursion"}])
def test_an_attack_decomposes_the_last_layers_gradient_once(options, monkeypatch) -> None:
    model = MLP((1, 3, 3), 5, "tanh", (12,))
    images = np.random.default_rng(0).random((2, 1, 3, 3))
    client, _ = simulate(model, images, [1, 3])
    shapes, decompose = [], np.linalg.svd

    def count(matrix, *arguments, **options):
        shapes.append(np.shape(matrix))
        return decompose(matrix, *arguments, **options)

    monkeypatch.setattr(np.linalg, "svd", count)
    attack(client, labels="infer", settings=Settings(iterations=3), **options)
    assert shapes.count(client.last_layer.matrix.shape) <= 2, "as it is, and balanced"


def test_a_table_shows_its_noise_where_nothing_was_looked_up() -> None:
    rng = np.random.default_rng(0)
    looked_up = np.arange(200) < 7
    rows = rng.standard_normal((200, 16)) * looked_up[:, np.newaxis]
    assert TableGradient(rows, looked_up=looked_up).noise == 0.0
    noisy = rows + 1e-3 * rng.standard_normal(rows.shape)
    found = TableGradient(noisy, looked_up=looked_up)
    assert found.unused.shape == (193 * 16,)
    assert found.noise == pytest.approx(1e-6, rel=0.1)
    assert TableGradient(rows, looked_up=np.ones(200, bool)).noise is None


def test_rounding_stands_out_from_itself_but_is_no_record() -> None:
    """Entries of very different sizes, whose rounding is therefore uneven."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((4, 64))
    outputs = rng.standard_normal((192, 4)) * 10.0 ** rng.uniform(-3, 0, (192, 1))
    rounded = (outputs @ inputs).astype(np.float32)
    assert LayerGradient.stacked([rounded], 9).rank == 4

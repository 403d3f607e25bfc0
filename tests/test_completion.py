"""Pruned gradients: what their rank fills in, and what it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinyleak import attack, data, nn
from tinyleak.analytic import LayerGradient, completion
from tinyleak.analytic.completion import completed
from tinyleak.analytic.records import find_records
from tinyleak.client import Client, simulate
from tinyleak.client.certificates import certify_images
from tinyleak.defenses import Prune
from tinyleak.nn.split import split

GLYPHS = data.load("glyphs")


def batch(rng: np.random.Generator, count: int):
    """Different digits with some noise, so that no pixel is black in all of them."""
    images, labels = GLYPHS.batch(rng.choice(len(GLYPHS.labels), count, replace=False).tolist())
    return np.clip(images + 0.2 * rng.random(images.shape), 0.0, 1.0), np.asarray(labels)


def pruned(share: float, act: str, images, labels, dtype: str = "float64"):
    """A client's layer before and after pruning, its network cut there, and the layer's weight."""
    model = nn.MLP((1, 28, 28), 10, act, (100,))
    client, _ = simulate(model, images, labels, seed=3, dtype=dtype, init="default")
    shared = Prune(share)(client.gradients, np.random.default_rng(0))
    eps = float(np.finfo(dtype).eps)
    layers = [
        LayerGradient(g["0.weight"], g["0.bias"], len(images), eps)
        for g in (client.gradients, shared)
    ]
    params = {name: array.astype(float) for name, array in client.params.items()}
    return *layers, split(client.model, params, "0.weight"), params["0.weight"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("act", ["tanh", "relu"])
def test_records_come_apart_behind_pruning_that_is_known(act: str, dtype: str, rng) -> None:
    images, labels = batch(rng, 6)
    before, shared, cut, weight = pruned(0.2, act, images, labels, dtype)
    filled = completed(shared, weight)
    assert np.abs(filled.matrix - before.matrix).max() < 1e-4 * np.abs(before.matrix).max()
    found = find_records(filled, cut, bounds=(0.0, 1.0))
    rows = images.reshape(6, -1)
    errors = np.square(found.inputs[:, None] - rows).mean(axis=2).min(axis=1)
    assert found.missing == 0
    assert errors.max() < (1e-8 if dtype == "float64" else 1e-6)


def test_a_pixel_that_lost_too_much_is_left_black_and_records_that_have_it_are_not_certified(
    rng,
) -> None:
    images, labels = batch(rng, 6)
    images[:, 0, 0, :2] = 0.0  # a dead pixel, and one that a single record has, faintly
    images[2, 0, 0, 1] = 1e-3
    before, shared, cut, weight = pruned(0.2, "tanh", images, labels)
    assert before.matrix[:, 1].any() and not shared.matrix[:, 1].any()
    filled = completed(shared, weight)
    assert not filled.matrix[:, :2].any() and filled.rank == 6
    found = find_records(filled, cut, bounds=(0.0, 1.0), seconds=2.0)
    nearest = np.square(found.inputs[:, None] - images.reshape(6, -1)).mean(axis=2)
    assert sorted(nearest.argmin(axis=1)) == [0, 1, 3, 4, 5]
    assert nearest.min(axis=1).max() < 1e-20


def test_what_the_rank_does_not_explain_is_not_filled_in(rng) -> None:
    images, labels = batch(rng, 6)
    _, shared, _, weight = pruned(0.2, "tanh", images, labels)
    noisy = shared.matrix * (1.0 + 1e-6 * rng.standard_normal(shared.matrix.shape))
    fewer = LayerGradient(shared.weight_gradient, shared.bias_gradient, 5)
    more = LayerGradient(shared.weight_gradient, shared.bias_gradient, 7)
    for layer in (LayerGradient(noisy[:, :-1], noisy[:, -1], 6), fewer, more):
        assert completed(layer, weight) is layer
    blind = weight.copy()
    blind[:, 5] = 0.0
    _, shared, _, _ = pruned(0.2, "tanh", images * (np.arange(784) != 5).reshape(28, 28), labels)
    assert completed(shared, weight) is not shared
    assert completed(shared, blind) is shared, "nothing tells whether that pixel is black"


def test_copies_are_not_counted_in_what_is_filled_in(rng) -> None:
    images, labels = batch(rng, 6)
    images[3], labels[3] = images[2], labels[2]
    _, shared, _, weight = pruned(0.2, "tanh", images, labels)
    assert completed(shared, weight) is shared


@pytest.mark.parametrize("said", [False, True])
def test_an_attack_fills_in_once_what_was_pruned_as_it_shows_or_is_said(
    said: bool, rng, monkeypatch
) -> None:
    filled, times = completion._filled, []
    monkeypatch.setattr(completion, "_filled", lambda *a: times.append(1) or filled(*a))
    images, labels = batch(rng, 4)
    model = nn.MLP((1, 28, 28), 10, "tanh", (60,))
    client, truth = simulate(model, images, labels, seed=3, init="default")
    shared = Prune(0.1)(client.gradients, rng)
    client = Client.of(client.model, client.params, shared, batch=4, reduction="mean")
    assert client.premises.pruned > 0.09
    found = attack(client, method="auto", defenses=[Prune(0.1)] if said else [])
    assert len(times) == 1
    assert truth.judge(found).succeeded


def test_pruning_refuses_no_record(rng) -> None:
    """What the last layer lost looked as if records had no share in it."""
    images, labels = GLYPHS.batch([0, 1, 2, 3])
    model = nn.MLP((1, 28, 28), 10, "sigmoid", (60,))
    client, _ = simulate(model, images, labels, seed=0, init="default")
    shared = Prune(0.3)(client.gradients, rng)
    client = Client.of(client.model, client.params, shared, batch=4, reduction="mean")
    assert False not in certify_images(client, images, np.asarray(labels)).verdicts


def test_where_a_lost_pixel_s_weights_are_small_nothing_is_filled_in(rng) -> None:
    """No δ would show that a record has something there, in float32."""
    images, labels = batch(rng, 6)
    images[:, 0, 0, 1] = 0.0
    images[2, 0, 0, 1] = 0.02
    _, shared, _, weight = pruned(0.3, "tanh", images, labels, "float32")
    assert not shared.matrix[:, 1].any()
    assert completed(shared, weight) is not shared
    weight[:, 1] *= 0.05
    assert completed(shared, weight) is shared


def test_a_gradient_may_be_too_small_to_be_squared(rng) -> None:
    images, labels = batch(rng, 6)
    _, shared, _, weight = pruned(0.2, "tanh", images, labels)
    whole = completed(shared, weight).matrix
    tiny = replace(
        shared,
        weight_gradient=1e-200 * shared.weight_gradient,
        bias_gradient=1e-200 * shared.bias_gradient,
    )
    np.testing.assert_allclose(completed(tiny, weight).matrix, 1e-200 * whole, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("act", ["sigmoid", "tanh"])
@pytest.mark.parametrize("share", [0.0005, 0.002])
def test_a_few_zeros_of_a_last_layer_are_not_taken_for_another_loss(
    share: float, act: str, dtype: str, rng
) -> None:
    """One to five: all others of the smallest entries are those of black pixels, zeros before."""
    images, labels = GLYPHS.batch(rng.choice(len(GLYPHS.labels), 16, replace=False).tolist())
    model = nn.MLP((1, 28, 28), 10, act, (256,))
    client, _ = simulate(model, images, labels, seed=5, dtype=dtype, init="default")
    shared = Prune(share)(client.gradients, rng)
    assert 1 <= int((shared["2.weight"] == 0).sum()) <= 5
    client = Client.of(client.model, client.params, shared, batch=16)
    assert client.loss.kind == "cross-entropy"
    assert client.premises.pruned > 0.0
    assert False not in certify_images(client, images, np.asarray(labels)).verdicts

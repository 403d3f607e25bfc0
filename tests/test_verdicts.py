"""Verdicts: what the shared gradient says of what was found, held against the truth.

The candidates are made, not searched for: the truth, the truth a little off, other images, noise.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinyleak import data
from tinyleak.attacks import Settings, attack
from tinyleak.client import RECOVERED_MSE, Client, Truth, simulate
from tinyleak.client.explanation import MOST, PIXEL_VARIANCE
from tinyleak.defenses import parse
from tinyleak.nn.criteria import one_hot
from tinyleak.nn.models import MLP, LeNet

GLYPHS = data.load("glyphs")
DEFENCES = ("", "", "float16", "gaussian:1e-10", "gaussian:1e-6", "gaussian:1e-2")


def candidate(images: Any, labels: Any, classes: int = 10) -> Any:
    """What an attack would have found."""
    soft = one_hot(np.asarray(labels), classes)
    return SimpleNamespace(images=images, labels=np.asarray(labels), soft_labels=soft)


def clients(count: int, seed: int) -> list[tuple[str, Client, Truth]]:
    """Clients drawn from all kinds: networks, initialisations, precisions, defences, batches."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        kind, activation = rng.choice([LeNet, MLP]), str(rng.choice(["sigmoid", "tanh", "silu"]))
        shape = (1, 8, 8)
        model = kind(shape, 10, activation) if kind is LeNet else MLP(shape, 10, activation, (32,))
        batch = int(rng.choice([1, 1, 2]))
        init, dtype = (
            str(rng.choice(["uniform", "default"])),
            str(rng.choice(["float64", "float32"])),
        )
        defence = str(rng.choice(DEFENCES))
        images, labels = rng.random((batch, *shape)), rng.permutation(10)[:batch]
        told = [parse(defence)] if defence else []
        client, truth = simulate(
            model, images, labels, seed=number, init=init, dtype=dtype, defenses=told
        )
        found.append((f"{model}, {init}, {dtype}, {defence}, {batch}", client, truth))
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_the_verdict_agrees_with_the_truth(seed: int) -> None:
    rng, kept = np.random.default_rng(seed), 0
    for what, client, truth in clients(60, seed):
        right = client.explain(candidate(truth.images, truth.labels))
        assert right.verdict != "not explained" or right.tolerance == MOST, what
        kept += right.succeeded
        noisy = "gaussian" in what
        if not noisy:
            assert right.verdict == "exact" or right.expected_mse > RECOVERED_MSE, (what, right)
        away = rng.standard_normal(truth.images.shape)
        for size in (0.1, 0.3):  # mean squared errors of 1e-2 and 9e-2
            outcome = client.explain(candidate(truth.images + size * away, truth.labels))
            assert not outcome.succeeded, (what, size, outcome)
        other = client.explain(candidate(rng.random(truth.images.shape), truth.labels))
        assert not other.succeeded, (what, other)
        wrong = client.explain(candidate(truth.images, (truth.labels + 1) % 10))
        assert wrong.verdict != "exact", (what, wrong)
    assert kept >= 36, "only noise of 1e-2 and images that a gradient leaves open are not told"


def test_what_is_allowed_is_bounded_before_anything_is_found() -> None:
    """The tolerance is the same for every answer, and never near 1."""
    rng = np.random.default_rng(0)
    for what, client, truth in clients(30, 2):
        found = [
            candidate(truth.images, truth.labels),
            candidate(1e9 * rng.standard_normal(truth.images.shape), truth.labels),
            candidate(np.full_like(truth.images, np.nan), truth.labels),
        ]
        outcomes = [client.explain(one) for one in found]
        assert len({outcome.tolerance for outcome in outcomes}) == 1, what
        assert outcomes[0].tolerance <= MOST < 1
        assert [outcome.succeeded for outcome in outcomes[1:]] == [False, False]


def test_noise_leaves_as_much_as_is_expected() -> None:
    """What an attack on a noisy gradient is off by, and what was expected of it."""
    ratios = []
    for seed in range(8):
        client, truth = simulate(
            MLP((1, 8, 8), 10, "tanh", (48,)),
            np.random.default_rng(seed).random((1, 1, 8, 8)),
            [3],
            seed=seed,
            init="default",
            defenses=[parse("gaussian:1e-6")],
        )
        found = attack(client, labels=[3])
        outcome = client.explain(found)
        assert outcome.verdict == "consistent"
        assert outcome.noisy
        ratios.append(float(truth.judge(found).mse[0]) / outcome.expected_mse)
    assert 0.25 < np.median(ratios) < 1.0, ratios


def test_a_search_that_ended_early_is_expected_to_be_as_far_off_as_it_is() -> None:
    client, truth = simulate(
        MLP((1, 8, 8), 10, "tanh", (48,)), GLYPHS.images[:1, :, 10:18, 10:18], [4]
    )
    for iterations in (20, 60):
        settings = Settings(dtype="float32", iterations=iterations)
        found = attack(client, labels=[4], settings=settings)
        outcome, error = client.explain(found), float(truth.judge(found).mse[0])
        if outcome.expected_mse is not None and error > 1e-8:
            assert 0.1 < error / outcome.expected_mse < 10.0, iterations


def test_two_copies_of_an_image_may_not_be_told_from_two_images_near_it() -> None:
    """What is 1e-3 away on either side makes the gradient of two copies, to float32's rounding."""
    rng, told = np.random.default_rng(0), []
    image = GLYPHS.images[:1, :, 8:20, 8:20]
    copies = np.concatenate([image, image])
    client, _ = simulate(LeNet((1, 12, 12), 10), copies, [0, 0], init="default", dtype="float32")
    away = rng.standard_normal(image.shape)
    for size in (0.2, 0.1, 0.05, 0.02):
        outcome = client.explain(candidate(copies + size * np.concatenate([away, -away]), [0, 0]))
        if outcome.expected_mse is not None:
            error = size**2 * float(np.mean(away**2))
            assert outcome.expected_mse >= 0.99 * min(error, PIXEL_VARIANCE)
            assert outcome.succeeded == (error < RECOVERED_MSE)
            told.append(size)
    assert max(told, default=0.0) >= 0.05, "at 0.05 the error is 2.5e-3, which is no success"


def test_copies_that_are_certified_are_exact() -> None:
    """To first order the gradient shows their sum alone, but its row space shows what each is."""
    images, labels = GLYPHS.batch([3, 4, 5])
    model, order = MLP((1, 28, 28), 10, "relu", (60,)), [0, 0, 1, 1, 2, 2]
    client, truth = simulate(model, images[order], labels[order], init="default", dtype="float32")
    outcome = client.explain(found := attack(client, method="auto"))
    assert truth.judge(found).succeeded
    assert all(outcome.certified or ())
    assert outcome.succeeded and outcome.verdict == "exact"
    assert outcome.expected_mse is not None and outcome.expected_mse < 1e-8


def test_an_image_that_hardly_changes_the_gradient_is_not_called_found() -> None:
    """Units that are flat pass nothing on: the gradient is reproduced by many images."""
    model = MLP((1, 6, 6), 4, "sigmoid", (16,))
    params = model.init(np.random.default_rng(0))
    params["0.bias"] += 60.0
    images = np.random.default_rng(1).random((1, 1, 6, 6))
    from tinyleak.client import share

    client, _ = share(model, params, images, [1])
    outcome = client.explain(candidate(1.0 - images, [1], 4))
    assert outcome.verdict == "consistent"
    assert outcome.expected_mse == pytest.approx(PIXEL_VARIANCE, rel=0.3)
    assert not outcome.succeeded

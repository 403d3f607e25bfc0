"""Gradient matching by Levenberg–Marquardt: its Jacobian, batches to the rounding error, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tinyleak.attacks import Matching, Settings, attack, attack_many
from tinyleak.attacks.least_squares.residual import GradientResidual
from tinyleak.client import Client, Truth, share
from tinyleak.metrics import match_batch, mse
from tinyleak.nn import LeNet, one_hot
from tinyleak.tensor import Tensor

SMALL = LeNet((1, 8, 8), classes=4, hidden=6)


def simulated(
    labels: Sequence[int], scheme: str = "uniform", seed: int = 0
) -> tuple[Client, Truth]:
    rng = np.random.default_rng(100 + seed)
    images = rng.random((len(labels), *SMALL.image_shape))
    return share(SMALL, SMALL.init(np.random.default_rng(seed), scheme), images, labels)


def matching_of(client: Client, **changes: Any) -> Matching:
    scale = 1 / np.sqrt(sum(float(np.square(g).sum()) for g in client.gradients.values()))
    shared = {name: scale * gradient for name, gradient in client.gradients.items()}
    return Matching(SMALL, client.params, shared, client.batch, np.asarray(scale), **changes)


def slopes(residual: GradientResidual, x: np.ndarray, step: float) -> np.ndarray:
    """The Jacobian, by differences."""
    steps = step * np.eye(len(x))
    return np.stack([residual.value(x + s) - residual.value(x - s) for s in steps], 1) / (2 * step)


def error(images: np.ndarray, truth: Truth) -> float:
    return float(mse(images[match_batch(images, truth.images)], truth.images).max())


@pytest.mark.parametrize("weighted", [False, True])
def test_the_residual_is_the_distance_and_its_jacobian_the_derivative(
    weighted: bool, rng: np.random.Generator
) -> None:
    client, _ = simulated([0, 2, 2])
    precision = {name: rng.random(shape) for name, shape in SMALL.shapes.items()}
    matching = matching_of(client, precision=precision if weighted else None)
    # The second image's label is fixed, the others' are unknowns.
    targets = one_hot(np.array([1, 2, 3]), 4)
    residual = GradientResidual(matching, targets, np.array([0, 2]))
    x = rng.standard_normal(3 * 64 + 2 * 4)
    r = residual.value(x)
    logits = np.stack([x[-8:-4], [0, 0, 800, 0], x[-4:]])
    z = np.concatenate([x[: 3 * 64], logits.ravel()])[np.newaxis]
    assert r @ r == pytest.approx(float(matching.distances(Tensor(z)).data[0]), rel=1e-12)

    jacobian = slopes(residual, x, step=1e-6)
    np.testing.assert_allclose(residual.slope(x, r), jacobian.T @ r, rtol=1e-5, atol=1e-8)
    gram = jacobian.T @ jacobian
    allowed = 1e-7 * np.abs(gram).max()
    np.testing.assert_allclose(residual.gram(x), gram, rtol=0, atol=allowed)


@pytest.mark.parametrize("scheme", ["uniform", "default"])
def test_a_batch_comes_back_to_the_rounding_error(scheme: str) -> None:
    client, truth = simulated([0, 1, 2], scheme)
    found = attack(
        client,
        labels="infer",
        method="levenberg-marquardt",
    )
    assert found.reason == "converged"
    assert found.distance <= 1e-20
    assert found.iterations < 60
    assert truth.judge(found).succeeded
    assert error(found.images, truth) < 1e-13
    assert found.distances[0] > found.distances[-1] == found.distance
    assert len(found.distances) == found.iterations + 1
    assert (found.images >= 0).all()
    assert (found.images <= 1).all()


def test_labels_that_are_not_known_settle_and_are_fixed() -> None:
    client, truth = simulated([3])
    found = attack(client, method="levenberg-marquardt")
    assert found.reason == "converged"
    assert found.labels.tolist() == [3]
    assert found.soft_labels[0, 3] == pytest.approx(1, abs=1e-12)
    assert error(found.images, truth) < 1e-13


def test_it_finishes_what_lbfgs_began() -> None:
    client, truth = simulated([1, 3])
    settings = Settings(iterations=80)
    begun = attack(client, settings=settings)
    assert begun.reason == "out of iterations"
    seen = []
    found = attack(
        client,
        settings=settings,
        method="lbfgs+levenberg-marquardt",
        on_progress=lambda progress: seen.append(progress.iteration),
    )
    assert found.distances[:81] == pytest.approx(begun.distances, rel=1e-3)
    assert found.iterations > 80
    assert found.evaluations > begun.evaluations
    assert found.reason == "converged"
    assert error(found.images, truth) < 1e-13
    assert seen == sorted(seen)


def test_what_lbfgs_has_finished_is_left_alone() -> None:
    client, _ = simulated([2])
    settings = Settings(goal=1e-6)
    one, other = (
        attack(client, settings=settings, method=method)
        for method in ("lbfgs", "lbfgs+levenberg-marquardt")
    )
    assert one.reason == other.reason == "converged"
    np.testing.assert_allclose(one.images, other.images, atol=1e-9)


def test_many_clients_are_attacked_as_each_would_be_alone() -> None:
    some = [simulated([0], seed=0)[0], simulated([3], seed=1)[0]]
    method = "levenberg-marquardt"
    together = attack_many(some, seeds=[5, 6], restarts=2, method=method)
    for seed, client, found in zip((5, 6), some, together, strict=True):
        alone = attack(client, seed=seed, restarts=2, method=method)
        assert found.reason == "converged"
        np.testing.assert_allclose(found.images, alone.images, atol=1e-9)
        assert found.iterations == alone.iterations


def test_restarts_end_with_the_first_that_converges() -> None:
    client, _ = simulated([1])
    runs = [
        attack(
            client,
            labels=[1],
            restarts=restarts,
            method="levenberg-marquardt",
        )
        for restarts in (1, 3)
    ]
    assert runs[0].reason == "converged"
    assert runs[0].evaluations == runs[1].evaluations


def test_what_pruning_removed_is_not_matched() -> None:
    client, truth = simulated([0])
    kept = {name: (np.abs(g) > 1e-3).astype(float) for name, g in client.gradients.items()}
    pruned = {name: g * kept[name] for name, g in client.gradients.items()}
    assert 0.02 < 1 - np.mean(np.concatenate([k.ravel() for k in kept.values()])) < 0.9
    found = attack(
        replace(client, gradients=pruned), labels=[0], precision=kept, method="levenberg-marquardt"
    )
    assert error(found.images, truth) < 1e-13


def test_fewer_iterations_are_an_end_too() -> None:
    client, _ = simulated([0, 1])
    found = attack(
        client,
        settings=Settings(iterations=2),
        method="levenberg-marquardt",
    )
    assert (found.iterations, found.reason) == (2, "out of iterations")


def test_a_gradient_that_is_no_sum_of_squares_is_refused() -> None:
    client, _ = simulated([0])
    for changes in ({"direction": True}, {"smoothness": 1.0}):
        with pytest.raises(ValueError, match="minimises the distance between two gradients alone"):
            attack(client, method="levenberg-marquardt", settings=Settings(**changes))


def test_an_unknown_method_is_refused_and_so_is_a_gpu() -> None:
    client, _ = simulated([0])
    with pytest.raises(ValueError, match=r"method 'newton' is unknown; choose one of lbfgs, leven"):
        attack(client, method="newton")
    with pytest.raises(ValueError, match="levenberg-marquardt runs on the cpu alone, not on 'cud"):
        attack(client, method="levenberg-marquardt", device="cuda")

"""The client: what it shares, what a seed decides, and how an attack on it is judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinyleak.attack import Reconstruction
from tinyleak.nn import MLP, LeNet
from tinyleak.nn.losses import cross_entropy
from tinyleak.tensor import Tensor
from tinyleak.victim import RECOVERED_MSE, Victim, judge, share, simulate

MODEL = LeNet((1, 8, 8), classes=4, hidden=3)


def client(images: int = 3, dtype: str = "float64", model: LeNet | MLP = MODEL) -> Victim:
    pixels = np.random.default_rng(5).uniform(size=(images, *model.image_shape))
    return simulate(model, pixels, np.arange(images), seed=1, dtype=dtype)


def found(images: np.ndarray, labels: list[int]) -> Reconstruction:
    """A reconstruction that holds these images and labels."""
    soft = np.eye(MODEL.classes)[labels]
    return Reconstruction(images, np.array(labels), soft, 0.0, [0.0], [], 0, 1, 0.0, "converged")


def test_a_client_shares_the_gradient_of_its_mean_loss():
    victim = client(model=MLP((1, 2, 2), classes=4, widths=(3,)))
    name, place, step = "2.bias", 1, 1e-6
    targets = Tensor(np.eye(4)[victim.labels])

    def loss(change: float) -> float:
        moved = {key: value.copy() for key, value in victim.params.items()}
        moved[name][place] += change
        params = {key: Tensor(value) for key, value in moved.items()}
        model = MLP((1, 2, 2), classes=4, widths=(3,))
        return float(cross_entropy(model(params, Tensor(victim.images)), targets).numpy())

    slope = (loss(step) - loss(-step)) / (2 * step)
    assert victim.gradients[name][place] == pytest.approx(slope, rel=1e-6)
    assert {key: value.shape for key, value in victim.gradients.items()} == {
        key: value.shape for key, value in victim.params.items()
    }


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_client_computes_in_its_dtype(dtype):
    victim = client(dtype=dtype)
    for arrays in (victim.params, victim.gradients):
        assert {str(array.dtype) for array in arrays.values()} == {dtype}


def test_a_seed_decides_the_weights_whatever_the_images():
    images = np.zeros((1, 1, 8, 8))
    one, other = simulate(MODEL, images, [0], seed=1), simulate(MODEL, images + 1, [2], seed=1)
    expected = MODEL.init(np.random.default_rng([1, 0]))
    for name, weights in expected.items():
        np.testing.assert_array_equal(one.params[name], weights)
        np.testing.assert_array_equal(other.params[name], weights)
    another = simulate(MODEL, images, [0], seed=2)
    assert not np.array_equal(another.params["fc.0.weight"], expected["fc.0.weight"])


def test_a_client_s_weights_follow_the_scheme():
    victim = simulate(MODEL, np.zeros((1, 1, 8, 8)), [0], seed=1, scheme="default")
    expected = MODEL.init(np.random.default_rng([1, 0]), "default")
    np.testing.assert_array_equal(victim.params["body.2.weight"], expected["body.2.weight"])


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="initialisation 'zeros' is unknown; choose from uniform"):
        simulate(MODEL, np.zeros((1, 1, 8, 8)), [0], scheme="zeros")


def test_images_that_do_not_fit_the_network_are_refused():
    message = r"images of shape \(2, 1, 9, 9\) and 2 labels; .* needs \(N, \*\(1, 8, 8\)\)"
    with pytest.raises(ValueError, match=message):
        simulate(MODEL, np.zeros((2, 1, 9, 9)), [0, 1])
    with pytest.raises(ValueError, match=r"images of shape \(2, 1, 8, 8\) and 1 labels"):
        share(MODEL, client().params, np.zeros((2, 1, 8, 8)), [0])


def test_a_label_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"label 4 was given; with 4 classes labels are in \[0, 4"):
        simulate(MODEL, np.zeros((1, 1, 8, 8)), [4])


def test_images_are_judged_beside_the_ones_they_came_from():
    victim = client()
    order = [2, 0, 1]
    shuffled = found(victim.images[order] + 0.01, [int(victim.labels[i]) for i in order])
    outcome = judge(victim, shuffled)
    assert outcome.order.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(outcome.images, victim.images + 0.01)
    np.testing.assert_array_equal(outcome.labels, victim.labels)
    np.testing.assert_array_equal(outcome.soft_labels, np.eye(4)[victim.labels])
    np.testing.assert_allclose(outcome.mse, 1e-4)
    np.testing.assert_allclose(outcome.psnr, 40)
    assert outcome.succeeded


def test_success_takes_every_image_and_every_label():
    victim = client()
    labels = victim.labels.tolist()
    assert judge(victim, found(victim.images, labels)).succeeded

    poor = victim.images.copy()
    poor[1] += np.sqrt(RECOVERED_MSE) * 1.01
    outcome = judge(victim, found(poor, labels))
    assert outcome.recovered.tolist() == [True, False, True]
    assert not outcome.succeeded

    outcome = judge(victim, found(victim.images, [*labels[:2], 3]))
    assert outcome.recovered.tolist() == [True, True, False]
    assert not outcome.succeeded


def test_an_image_that_is_not_finite_is_not_recovered():
    victim = client(images=1)
    outcome = judge(victim, found(np.full_like(victim.images, np.nan), [0]))
    assert np.isnan(outcome.mse).all()
    assert not outcome.succeeded


def test_another_number_of_images_is_refused():
    victim = client()
    two = found(victim.images[:2], [0, 1])
    with pytest.raises(ValueError, match="two arrays of one shape"):
        judge(victim, two)
    with pytest.raises(ValueError, match="two arrays of one shape"):
        judge(victim, replace(two, images=victim.images[:1]))

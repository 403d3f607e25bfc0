"""The client: what it shares, what a seed decides, and how an attack on it is judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tinyleak.attacks import Reconstruction
from tinyleak.client.simulated import RECOVERED_MSE, Victim, judge, share, simulate
from tinyleak.nn import MLP, LeNet
from tinyleak.nn.losses import cross_entropy
from tinyleak.tensor import Tensor

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


@pytest.mark.parametrize("squash", ["sigmoid", "tanh"])
@pytest.mark.parametrize("labels", [[3], [1, 0, 1, 9]], ids=str)
def test_what_a_client_shares_is_pytorchs(labels: list[int], squash: str):
    model = LeNet(activation=squash)
    rng = np.random.default_rng(3)
    images = rng.uniform(size=(len(labels), 1, 28, 28))
    victim = share(model, model.init(rng), images, labels)

    layers: list[torch.nn.Module] = []
    for channels, stride in [(1, 2), (12, 2), (12, 1)]:
        layers.append(torch.nn.Conv2d(channels, 12, 5, padding=2, stride=stride))
        layers.append({"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh}[squash]())
    reference = torch.nn.ModuleDict(
        {
            "body": torch.nn.Sequential(*layers),
            "fc": torch.nn.Sequential(torch.nn.Linear(588, 10)),
        }
    ).double()
    reference.load_state_dict({name: torch.tensor(w) for name, w in victim.params.items()})
    logits = reference["fc"](reference["body"](torch.tensor(images)).flatten(1))
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
    for name, weight in reference.named_parameters():
        expected = weight.grad.numpy()
        tolerance = 1e-10 * np.abs(expected).max()
        np.testing.assert_allclose(victim.gradients[name], expected, rtol=0, atol=tolerance)


def test_a_client_shares_what_it_was_given():
    images = np.random.default_rng(5).uniform(size=(1, 1, 8, 8))
    params = MODEL.init(np.random.default_rng(1))
    before = {name: weight.copy() for name, weight in params.items()}
    victim = share(MODEL, params, images, np.array([2]))
    assert victim.images is images
    assert victim.labels.tolist() == [2]
    for name, weight in before.items():
        np.testing.assert_array_equal(victim.params[name], weight)
        np.testing.assert_array_equal(params[name], weight)


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


def test_a_client_without_images_or_with_a_bare_label_is_refused():
    params = client().params
    with pytest.raises(ValueError, match=r"shape \(0, 1, 8, 8\) and 0 labels; .* N at least 1"):
        share(MODEL, params, np.zeros((0, 1, 8, 8)), [])
    with pytest.raises(ValueError, match="needs .* and N labels"):
        share(MODEL, params, np.zeros((1, 1, 8, 8)), np.array(2))
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\)"):
        share(MODEL, params, np.zeros((1, 8, 8)), [2])


def test_weights_that_are_not_the_model_s_are_refused():
    params, images = client().params, np.zeros((1, 1, 8, 8))
    fewer = {name: weight for name, weight in params.items() if name != "fc.0.bias"}
    with pytest.raises(ValueError, match=r"weights do not fit LeNet.*missing \['fc.0.bias'\]"):
        share(MODEL, fewer, images, [0])
    with pytest.raises(ValueError, match=r"fc.0.bias has shape \(5,\), the model's is \(4,\)"):
        share(MODEL, {**params, "fc.0.bias": np.zeros(5)}, images, [0])
    with pytest.raises(ValueError, match="weights hold NaN or infinity in fc.0.bias"):
        share(MODEL, {**params, "fc.0.bias": np.full(4, np.nan)}, images, [0])


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="dtype 'float16' is unknown; choose float64 or float32"):
        share(MODEL, client().params, np.zeros((1, 1, 8, 8)), [0], dtype="float16")


def test_a_label_that_is_no_whole_number_is_refused():
    with pytest.raises(ValueError, match="labels of dtype float64 were given; whole numbers"):
        share(MODEL, client().params, np.zeros((1, 1, 8, 8)), [1.5])


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

"""Images out of a gradient layer by layer: the matrices, the separation of a batch, the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyleak.analytic import LayerGradient, unmix
from tinyleak.analytic.mixture import _Equations
from tinyleak.analytic.probes import logits_of
from tinyleak.attacks import attack
from tinyleak.attacks.recursion import layers_of
from tinyleak.attacks.recursion import recursion as recurse
from tinyleak.client import Client, Truth, share
from tinyleak.metrics import mse
from tinyleak.nn import MLP, LeNet, one_hot, softmax
from tinyleak.nn.models import ResNet
from tinyleak.tensor import Tensor

CONVOLUTIONS = LeNet((1, 8, 8), 5, "tanh", hidden=4)
LINEAR = MLP((1, 5, 5), 6, "relu", (40, 12))


def simulated(
    model: LeNet | MLP, labels: list[int], rng: np.random.Generator, scale: float = 1.0
) -> tuple[Client, Truth]:
    params = {name: scale * weight for name, weight in model.init(rng).items()}
    return share(model, params, rng.random((len(labels), *model.image_shape)), labels)


def residuals(model: LeNet | MLP, client: Client, truth: Truth) -> np.ndarray:
    probable = softmax(Tensor(logits_of(model, client.params, truth.images))).data
    return np.asarray(probable - one_hot(truth.labels, model.classes))


def recursion(model, params, shared, labels, **options: Any) -> np.ndarray:
    layer = LayerGradient.last(model, params, shared, len(labels))
    return recurse(layer, shared, labels, **options)


# Layers


@pytest.mark.parametrize("stride", [1, 2])
def test_a_layers_matrix_is_its_linear_map(stride: int, rng: np.random.Generator) -> None:
    """Of a network whose activation does not matter: the last layer sums what the first gives."""
    model = LeNet((2, 5, 4), 3, "relu", hidden=2, kernel=3, strides=(stride,))
    params = model.init(rng)
    params["body.0.bias"] = params["body.0.bias"] + 100.0  # so that relu does nothing
    first, last = layers_of(model, params)
    images = rng.random((3, 2, 5, 4))
    outputs = np.einsum("pon,in->ipo", first.forward(), images.reshape(3, -1)) + first.bias
    features = outputs.transpose(0, 2, 1).reshape(3, -1)
    logits = features @ last.weight.T + last.bias
    np.testing.assert_allclose(logits, logits_of(model, params, images), rtol=1e-12)


def test_a_layers_matrices_belong_together(rng: np.random.Generator) -> None:
    """Both matrices and `back` are derivatives of ⟨forward(a), δ⟩."""
    layer = layers_of(CONVOLUTIONS, CONVOLUTIONS.init(rng))[1]
    forward = layer.forward()
    inputs, deltas = rng.random(layer.inputs), rng.random(forward.shape[:2])
    along = np.sum((forward @ inputs) * deltas)
    assert layer.back(deltas[None])[0] @ inputs == pytest.approx(along)
    assert layer.gradient(deltas) @ inputs @ layer.weight.ravel() == pytest.approx(along)


# The last layer


@pytest.mark.parametrize("labels", [[3], [0, 2], [4, 1, 2], [1, 1], [2, 0, 2]])
def test_a_batch_is_unmixed(labels: list[int], rng: np.random.Generator) -> None:
    client, truth = simulated(CONVOLUTIONS, labels, rng)
    layer = LayerGradient.last(CONVOLUTIONS, client.params, client.gradients, len(labels))
    found = unmix(layer, truth.labels)
    expected = residuals(CONVOLUTIONS, client, truth)
    # Of one label they come in any order.
    by_size = [np.lexsort((np.linalg.norm(r, axis=1), labels)) for r in (found.residuals, expected)]
    np.testing.assert_allclose(found.residuals[by_size[0]], expected[by_size[1]], rtol=0, atol=1e-5)
    again = softmax(
        Tensor(found.features @ client.params["fc.0.weight"].T + client.params["fc.0.bias"])
    ).data - one_hot(truth.labels, 5)
    np.testing.assert_allclose(again, found.residuals, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.error_norms, np.linalg.norm(found.residuals, axis=1))


def test_the_jacobian_of_the_mixture_is_that_of_differences(rng: np.random.Generator) -> None:
    size, labels = 7, np.array([0, 2, 2])
    gradient = rng.standard_normal((5, size + 1))
    weight, bias = rng.standard_normal((5, size)), rng.standard_normal(5)
    model = MLP((1, 1, size), 5, widths=())
    params = {"0.weight": weight, "0.bias": bias}
    gradients = {"0.weight": gradient[:, :-1], "0.bias": gradient[:, -1]}
    layer = LayerGradient.last(model, params, gradients, 3)
    mixture = _Equations(
        layer, bias, one_hot(labels, 5), rng.uniform(0.5, 2.0, 5), np.array([1.0, 2.0, 1.0])
    )
    unknowns = rng.standard_normal(6)
    steps = 1e-6 * np.eye(6)
    moved = [mixture.misfits(unknowns + s) - mixture.misfits(unknowns - s) for s in steps]
    np.testing.assert_allclose(mixture.jacobian(unknowns), np.array(moved).T / 2e-6, atol=1e-7)


def test_an_image_that_noise_hides_has_no_doubt(rng: np.random.Generator) -> None:
    client, truth = simulated(CONVOLUTIONS, [0, 2], rng)
    alone, alone_truth = share(CONVOLUTIONS, client.params, truth.images[1:], truth.labels[1:])
    # The other image counts for nothing, as where the network is sure of it.
    halved = {name: gradient / 2 for name, gradient in alone.gradients.items()}
    layer = LayerGradient.last(CONVOLUTIONS, client.params, halved, 2)
    found = unmix(layer, truth.labels, variance=1e-12)
    np.testing.assert_allclose(found.error_norms[0], 0.0)
    np.testing.assert_allclose(found.residuals[1], residuals(CONVOLUTIONS, alone, alone_truth)[0])


# Layer by layer


@pytest.mark.parametrize("labels", [[3], [0, 2]])
@pytest.mark.parametrize(
    "model",
    [
        CONVOLUTIONS,
        LeNet((1, 8, 8), 5, "sigmoid", hidden=4),
        LeNet((1, 8, 8), 5, "softplus", hidden=4),
        LINEAR,
        MLP((1, 5, 5), 6, "tanh", (40, 12)),
        MLP((1, 5, 5), 6, "tanh", ()),
    ],
)
def test_images_come_out(model: LeNet | MLP, labels: list[int], rng: np.random.Generator) -> None:
    client, truth = simulated(model, labels, rng)
    found = recursion(model, client.params, client.gradients, truth.labels)
    assert found.shape == truth.images.shape
    assert mse(found, truth.images).max() < 1e-6


def test_images_that_are_hidden_do_not_stop_the_others(rng: np.random.Generator) -> None:
    """Of units that are all off nothing is known, nor of an image without doubt."""
    client, truth = simulated(LINEAR, [0, 2], rng)
    alone, _ = share(LINEAR, client.params, truth.images[1:], truth.labels[1:])
    halved = {name: gradient / 2 for name, gradient in alone.gradients.items()}
    found = recursion(LINEAR, client.params, halved, truth.labels, variance=1e-14)
    assert mse(found[1:], truth.images[1:]).max() < 1e-6
    off = {name: -np.abs(weight) for name, weight in client.params.items()}
    gradients = share(LINEAR, off, truth.images, truth.labels)[0].gradients
    assert np.isfinite(recursion(LINEAR, off, gradients, truth.labels)).all()


def test_noise_blurs_them(rng: np.random.Generator) -> None:
    client, truth = simulated(CONVOLUTIONS, [0, 2], rng)
    errors = []
    for variance in (1e-12, 1e-8, 1e-4):
        noisy = {
            name: gradient + np.sqrt(variance) * rng.standard_normal(gradient.shape)
            for name, gradient in client.gradients.items()
        }
        found = recursion(CONVOLUTIONS, client.params, noisy, truth.labels, variance=variance)
        errors.append(float(mse(found, truth.images).mean()))
    assert errors == sorted(errors)
    assert errors[0] < 1e-4 < errors[-1] < 0.5


def test_noise_that_nobody_told_of_is_seen_by_the_last_layer(rng: np.random.Generator) -> None:
    client, truth = simulated(CONVOLUTIONS, [0, 2], rng)
    noisy = {
        name: gradient + 1e-2 * rng.standard_normal(gradient.shape)
        for name, gradient in client.gradients.items()
    }

    def error(variance: float | None) -> float:
        found = recursion(CONVOLUTIONS, client.params, noisy, truth.labels, variance=variance)
        return float(mse(found, truth.images).mean())

    assert error(None) < 1.5 * error(1e-4) < error(0.0)


def test_from_there_an_attack_does_not_get_stuck(rng: np.random.Generator) -> None:
    """Of a network that is saturated, as by training."""
    client, truth = simulated(CONVOLUTIONS, [0, 2], rng, scale=5.0)
    labels = truth.labels.tolist()
    errors = []
    for start in ("noise", "recursion"):
        found = attack(
            client,
            labels=labels,
            start=start,
            method="levenberg-marquardt",
        )
        errors.append(float(mse(found.images, truth.images).max()))
    assert errors[0] > 1e-2
    assert errors[1] < 1e-9


def test_the_first_start_is_the_one_that_is_given(rng: np.random.Generator) -> None:
    client, truth = simulated(CONVOLUTIONS, [0, 2], rng)
    for method in ("lbfgs", "levenberg-marquardt"):
        found = attack(
            client,
            labels=[0, 2],
            start=truth.images,
            restarts=2,
            method=method,  # type: ignore[arg-type]
        )
        assert found.reason == "converged"
        assert found.iterations == 0
        np.testing.assert_array_equal(found.images, truth.images)
    with pytest.raises(ValueError, match="images that are not finite were given"):
        attack(client, start=truth.images * np.nan)
    with pytest.raises(ValueError, match=r"images of shape \(1, 1, 8, 8\) were given"):
        attack(
            client,
            start=truth.images[:1],
        )


# What cannot be done


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1, 2, 3, 4]}, "5 images were to be unmixed by a last layer of 5 classes"),
        ({"labels": [0, 9]}, r"label 9 was given; with 5 classes labels are in \[0, 5\)"),
        ({"variance": -1.0}, "give 0 or more"),
        ({"shared": None}, "is zero, so it shows no image"),
        ({"model": LeNet((1, 64, 64), 5, hidden=4)}, "fewer or smaller images"),
        ({"model": ResNet((1, 8, 8), 5)}, "a LeNet or an MLP can be inverted"),
        ({"model": MLP((1, 8, 8), 5, "silu")}, "activation is one of sigmoid, tanh"),
    ],
)
def test_what_cannot_be_inverted(change: Any, message: str, rng: np.random.Generator) -> None:
    model = change.get("model", CONVOLUTIONS)
    params = model.init(rng)
    shared = {name: np.ones(shape) for name, shape in model.shapes.items()}
    if "shared" in change:
        shared = {name: 0 * gradient for name, gradient in shared.items()}
    with pytest.raises(ValueError, match=message):
        recursion(
            model,
            params,
            shared,
            change.get("labels", [0, 1]),
            variance=change.get("variance", 0.0),
        )


def test_a_last_layer_without_a_bias_unmixes_nothing(rng: np.random.Generator) -> None:
    class Biasless:
        image_shape, classes, shapes = (1, 2, 2), 3, {"weight": (3, 4)}

    params = {"weight": rng.random((3, 4))}
    with pytest.raises(ValueError, match="has none"):
        unmix(LayerGradient.last(Biasless(), params, params), [1])  # type: ignore[arg-type]

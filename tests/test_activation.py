"""The activation, told from the features that the last layer's gradient shows."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak.analytic import LayerGradient, infer_activation
from tinyleak.client import share
from tinyleak.nn import MLP, LeNet

SHAPE = (1, 12, 12)
TOLD = {"sigmoid": {None}, "tanh": {"tanh"}, "softplus": {None, "softplus"}, "relu": {None, "relu"}}


def told(model, gradients):
    """What the gradient tells; the weights do not matter."""
    return infer_activation(LayerGradient.last(model, gradients, gradients))


def gradients(model, rng, batch, scheme="default", dtype="float32"):
    params = model.init(rng, scheme)
    labels = rng.integers(0, model.classes, batch)
    images = rng.random((batch, *SHAPE))
    return share(model, params, images, labels, dtype=dtype)[0].gradients


@pytest.mark.parametrize("factor", [1.0, -0.1])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("activation", TOLD)
def test_it_is_right_or_says_nothing(rng, activation, batch, factor) -> None:
    for scheme in ("default", "uniform"):
        for model in (LeNet(SHAPE, 10, activation), MLP(SHAPE, 10, activation, (40, 30))):
            shared = gradients(model, rng, batch, scheme)
            scaled = {name: factor * gradient for name, gradient in shared.items()}
            assert told(model, scaled) in TOLD[activation]


@pytest.mark.parametrize("activation", ["softplus", "relu"])
def test_large_features_tell_softplus_and_relu_apart(rng, activation) -> None:
    model = MLP(SHAPE, 10, activation, (40,))
    assert told(model, gradients(model, rng, 1, "uniform")) == activation


def test_the_model_s_own_activation_does_not_matter(rng) -> None:
    shared = gradients(LeNet(SHAPE, 10, "tanh"), rng, 1)
    assert told(LeNet(SHAPE, 10, "sigmoid"), shared) == "tanh"


def test_noise_tells_nothing(rng) -> None:
    model = LeNet(SHAPE, 10)
    shared = gradients(model, rng, 1)
    noisy = {name: g + 0.1 * rng.standard_normal(g.shape) for name, g in shared.items()}
    assert told(model, noisy) is None
    assert told(model, {name: np.zeros_like(g) for name, g in shared.items()}) is None

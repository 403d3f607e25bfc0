"""An image by the largest elements of its windows, where it is sure which these are."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak import nn
from tinyleak.attacks.by_largest import by_largest
from tinyleak.attacks.shown import Below
from tinyleak.nn import init
from tinyleak.ops import relu
from tinyleak.tensor import Tensor

SHAPE = (1, 2, 10, 10)


def below(seed: int) -> Below:
    """A convolution of 20 channels, ReLU and windows of 2 x 2: 500 values of 200 pixels."""
    rng = np.random.default_rng(seed)
    weight, bias = init.draw({"w": (20, 2, 3, 3), "b": (20,)}, rng, "default").values()

    def values(x: Tensor) -> Tensor:
        x = nn.conv2d(x, Tensor(weight), Tensor(bias), padding=(1, 1))
        return nn.flatten(nn.max_pool2d(relu(x), (2, 2)))

    return values


def values_of(network: Below, x: np.ndarray) -> np.ndarray:
    found = network(Tensor(x.reshape(SHAPE)))
    assert found is not None
    return found.data.ravel()


@pytest.mark.parametrize("seed", range(4))
def test_the_image_near_by_is_found_though_some_values_are_wrong(seed: int) -> None:
    network, rng = below(seed), np.random.default_rng(seed + 100)
    image = rng.random(SHAPE)
    values = values_of(network, image)
    wrong = rng.random(values.size) < 0.02
    untold = rng.random(values.size) < 0.02
    values = values + wrong * rng.random(values.size) + untold * 10.0
    start = np.clip(image + 0.05 * rng.standard_normal(SHAPE), 0.0, 1.0)
    found = by_largest(network, values, ~untold, start, 0.0, 1.0)
    assert found is not None
    assert np.square(start - image).mean() > 1e-3
    assert np.square(found - image.ravel()).mean() < 1e-8


def test_values_that_no_windows_come_before_are_not_searched_by() -> None:
    def flat(x: Tensor) -> Tensor:
        return nn.flatten(x * 2.0)

    image = np.random.default_rng(0).random(SHAPE)
    values, told = 2.0 * image.ravel(), np.ones(image.size, bool)
    assert by_largest(flat, values, told, image, 0.0, 1.0) is None

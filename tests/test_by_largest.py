"""An image by the largest elements of its windows, where it is sure which these are."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak import nn
from tinyleak.attacks.by_largest import by_largest, exactly_by_largest
from tinyleak.attacks.distances import objective_of, search_in_range
from tinyleak.attacks.shown import Below, Shown
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
    assert exactly_by_largest(flat, values, image, 0.0, 1.0, 0.0) is None


def twice(seed: int) -> Below:
    """Two convolutions with ReLU, and windows of 2 x 2: 400 values of 196 pixels."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (8, 1, 3, 3), "b": (8,), "v": (16, 8, 3, 3), "c": (16,)}
    w, b, v, c = (Tensor(p) for p in init.draw(shapes, rng, "default").values())

    def values(x: Tensor) -> Tensor:
        x = relu(nn.conv2d(relu(nn.conv2d(x, w, b)), v, c))
        return nn.flatten(nn.max_pool2d(x, (2, 2)))

    return values


@pytest.mark.parametrize("seed", [1, 4, 12])
def test_exact_steps_lead_out_of_a_valley_that_bends(seed: int) -> None:
    """Of an image that is black but for a patch, at which L-BFGS ends beside the values."""
    network, rng, shape = twice(seed), np.random.default_rng(seed + 100), (1, 1, 14, 14)
    image = np.zeros(shape)
    image[:, :, 4:10, 5:9] = rng.random((6, 4))
    values = network(Tensor(image))
    assert values is not None
    shown = Shown("", values.data, np.zeros(values.shape), network, {})
    distance = objective_of(shape, shown, None)
    near = image.ravel() + 0.02 * rng.standard_normal(image.size)
    end = search_in_range(distance, near, 1e-24, iterations=1500)
    assert end.value > 1e-9
    there = near.reshape(shape)
    exactly = exactly_by_largest(network, values.data.ravel(), there, 0.0, 1.0, 1e-24)
    assert exactly is not None
    assert distance(exactly(end.x))[0] < 1e-20

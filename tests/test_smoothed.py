"""Kinks made smooth: the way past ReLU and max pooling where a search by features stalls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from scipy.optimize import least_squares

from tinyleak import nn, share
from tinyleak.attacks.distances import objective_of
from tinyleak.attacks.features_first import features_first, search
from tinyleak.attacks.kinks import Kinks
from tinyleak.attacks.shown import shown_layer
from tinyleak.attacks.smoothed import (
    CYCLES,
    JOLT,
    POOLING,
    SHARP,
    _Corrected,
    _jolted,
    _soft,
    past_kinks,
)
from tinyleak.client import Client
from tinyleak.nn import MLP, init
from tinyleak.ops import concatenate, largest_of_windows, relu
from tinyleak.ops.winners import Windows
from tinyleak.optim.truncated import Traced, truncated_gauss_newton
from tinyleak.tensor import Tensor


@dataclass(frozen=True)
class TwoHeads:
    """Two convolutions with ReLU, and two answers that read the same features."""

    classes: int = 5
    image_shape: tuple[int, int, int] = (1, 8, 8)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            **{"one.weight": (8, 1, 3, 3), "one.bias": (8,)},
            **{"two.weight": (16, 8, 3, 3), "two.bias": (16,)},
            **{"digit.weight": (3, 256), "digit.bias": (3,)},
            **{"odd.weight": (2, 256), "odd.bias": (2,)},
        }

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = relu(nn.conv2d(x, params["one.weight"], params["one.bias"], padding=(1, 1)))
        x = nn.conv2d(x, params["two.weight"], params["two.bias"], stride=(2, 2), padding=(1, 1))
        x = nn.flatten(relu(x))
        heads = [nn.linear(x, params[f"{n}.weight"], params[f"{n}.bias"]) for n in ("digit", "odd")]
        return concatenate(heads, axis=-1)


def client_of(seed: int) -> tuple[Client, np.ndarray]:
    model, rng = TwoHeads(), np.random.default_rng(seed)
    image = np.where(rng.random((1, 1, 8, 8)) < 0.4, rng.random((1, 1, 8, 8)), 0.0)
    params = init.draw(model.shapes, rng, "default", dtype="float32")
    client, _ = share(model, params, image, [int(rng.integers(0, 5))], dtype="float32")
    return client, image


def found_from(client: Client, start: np.ndarray) -> np.ndarray:
    shown = shown_layer(client.model, client.params, client.gradients)
    assert shown is not None and shown.features is not None
    found = past_kinks(shown, client.gradients, start, 0.0, 1.0, 1e-13)
    assert found is not None
    return found.x.reshape(start.shape)


def test_an_image_is_found_where_the_search_by_features_stalls() -> None:
    client, image = client_of(5)
    start = 0.5 + 0.1 * np.random.default_rng(0).standard_normal(image.shape)
    assert np.mean((found_from(client, start) - image) ** 2) < 1e-10
    shown = shown_layer(client.model, client.params, client.gradients)
    assert shown is not None
    stalled = search(objective_of(start.shape, shown, None), start.ravel(), 1e-13)
    assert stalled.value > 1e-3
    reached = features_first(client)
    assert reached is not None and np.mean((reached - image) ** 2) < 1e-10


def test_the_slopes_of_features_that_two_layers_read_are_of_both() -> None:
    client, image = client_of(0)
    shown = shown_layer(client.model, client.params, client.gradients)
    assert shown is not None
    assert objective_of(image.shape, shown, client.gradients)(image.ravel())[0] < 1e-12


def test_slopes_that_something_else_adds_to_are_not_used() -> None:
    @dataclass(frozen=True)
    class Squared(MLP):
        def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
            hidden = relu(nn.linear(nn.flatten(x), params["0.weight"], params["0.bias"]))
            return nn.linear(hidden, params["2.weight"], params["2.bias"]) + hidden * hidden

    model = Squared((1, 3, 3), 4, widths=(4,))
    params = model.init(np.random.default_rng(0))
    client, _ = share(model, params, np.full((1, 1, 3, 3), 0.3), [1])
    gradients = {**client.gradients, "0.bias": np.zeros(4)}  # so that the second layer is asked
    shown = shown_layer(model, client.params, gradients)
    assert shown is not None and shown.layer == "2.weight" and not shown.lower


@pytest.mark.parametrize(
    "windows",
    [
        (Windows(2, 2, 2, 0, 1), Windows(3, 2, 2, 0, 1)),
        (Windows(3, 3, 2, 1, 1), Windows(4, 3, 2, 1, 1)),
    ],
)
def test_a_soft_largest_lies_between_the_mean_and_the_largest(
    windows: tuple[Windows, Windows], rng: np.random.Generator
) -> None:
    down, across = windows
    x = Tensor(rng.standard_normal((1, 5, 7, 2)) - 3.0)  # below the zeros of any padding
    largest = largest_of_windows(x, *windows).numpy().ravel()
    (choices,), _ = Kinks(lambda x: largest_of_windows(x, *windows)).at(x)
    cold, hot = (_soft([Tensor(np.array(t / POOLING))], 0, choices).numpy() for t in (1e-9, 1e9))
    np.testing.assert_allclose(cold, largest, rtol=1e-12)
    image = x.numpy()[0]
    means = [
        image[_inside(down, i, 5)][:, _inside(across, j, 7)].mean(axis=(0, 1))
        for i in range(down.number)
        for j in range(across.number)
    ]
    np.testing.assert_allclose(hot, np.ravel(means), rtol=1e-6)


def _inside(windows: Windows, index: int, length: int) -> slice:
    begin = index * windows.stride - windows.padding
    return slice(max(0, begin), min(length, begin + windows.size))


def test_a_smoothed_network_becomes_the_network_as_it_cools() -> None:
    client, image = client_of(1)
    shown = shown_layer(client.model, client.params, client.gradients)
    assert shown is not None and shown.features is not None
    kinks = Kinks(shown.below)
    (choices,), opens = kinks.at(Tensor(image))  # the uppermost ReLU is not among them
    assert opens

    def smoothed(t: float, *, open_top: bool = False) -> np.ndarray:
        heats = [Tensor(np.array(t * choices.spread))]
        return kinks.replay(Tensor(image), partial(_soft, heats), open_top=open_top).numpy()

    apart = [np.abs(smoothed(t) - shown.features).max() for t in (1.0, 0.1, SHARP)]
    assert apart[0] > apart[1] > apart[2] and apart[2] < 1e-6
    opened = smoothed(SHARP, open_top=True)
    np.testing.assert_allclose(np.maximum(opened, 0.0), shown.features, atol=1e-6)


def test_a_network_without_kinks_is_left_alone(rng: np.random.Generator) -> None:
    model = MLP((1, 3, 3), 4, widths=(4,), activation="tanh")
    params = model.init(rng)
    client, _ = share(model, params, rng.random((1, 1, 3, 3)), [1])
    shown = shown_layer(model, client.params, {**client.gradients, "0.bias": np.zeros(4)})
    assert shown is not None and shown.features is not None
    assert past_kinks(shown, client.gradients, np.zeros((1, 1, 3, 3)), 0.0, 1.0, 0.0) is None


def test_nothing_is_cooled_where_the_only_kinks_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rng = MLP((1, 3, 3), 4, widths=(8, 6), activation="relu"), np.random.default_rng(2)
    client, _ = share(model, model.init(rng), rng.random((1, 1, 3, 3)), [1])
    gradients = {**client.gradients, "0.bias": np.zeros(8)}  # the second layer shows 8 features
    shown = shown_layer(model, client.params, gradients)
    assert shown is not None and shown.features is not None and shown.count == 8
    other = replace(shown, features=shown.features + 0.1)  # of no image
    cooled: list[float] = []
    monkeypatch.setattr(_Corrected, "cool", lambda self, t, at: cooled.append(t))
    start = np.full((1, 1, 3, 3), 0.5)
    assert past_kinks(other, client.gradients, start, 0.0, 1.0, 1e-26) is not None
    assert len(cooled) == CYCLES


class Quadratic:
    """r(x) = (x², A x − b): nonlinear, and overdetermined."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.A = rng.standard_normal((6, 4))
        self.b = self.A @ np.array([0.5, 2.0, -1.0, 0.0])

    def value(self, x: np.ndarray) -> np.ndarray:
        return np.concatenate([0.1 * x * x, self.A @ x - self.b])

    def back(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        return 0.2 * x * u[:4] + self.A.T @ u[4:]

    def along(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.concatenate([0.2 * x * v, self.A @ v])


@pytest.mark.parametrize("bound", [np.inf, 1.0])
def test_conjugate_gradients_end_where_a_bounded_minimum_is(
    bound: float, rng: np.random.Generator
) -> None:
    problem = Quadratic(rng)
    found = truncated_gauss_newton(problem, np.zeros(4), lowest=-bound, highest=bound, steps=60)
    expected = least_squares(problem.value, np.zeros(4), bounds=(-bound, bound), xtol=1e-15)
    np.testing.assert_allclose(found.value, 2 * expected.cost, rtol=1e-6)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-4)
    assert found.value == pytest.approx(float(np.sum(problem.value(found.x) ** 2)))


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_outliers_hardly_pull_at_a_finite_scale(scale: float, rng: np.random.Generator) -> None:
    problem = Quadratic(rng)
    problem.b[0] += 100.0
    near = np.array([0.5, 2.0, -1.0, 0.0]) + 0.01
    found = truncated_gauss_newton(problem, near, steps=200, rough=1e-6, scales=[scale])
    expected = least_squares(problem.value, near, loss="cauchy", f_scale=scale, xtol=1e-15)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-4)
    assert found.value == pytest.approx(float(np.sum(problem.value(found.x) ** 2)))
    squares = truncated_gauss_newton(problem, near, steps=60)
    assert np.abs(squares.x - near).max() > 10 * np.abs(found.x - near).max()


def test_a_search_goes_on_from_noise_where_features_are_off() -> None:
    rng, x = np.random.default_rng(0), np.zeros(400)
    wanted = np.where(np.arange(600) % 50 == 0, 1.0, 1e-3)
    residual = Traced(lambda z: concatenate([z, 5.0 * z[:200]], axis=0) - Tensor(wanted), 400)
    noise = _jolted(residual, x, 400, rng)
    assert 0.3 * JOLT < np.sqrt(np.mean(noise**2)) < 3.0 * JOLT
    off = wanted[:400] == 1.0
    assert np.abs(noise[off]).min() > 1e3 * np.abs(noise[~off]).max()
    residual = Traced(lambda z: z * 1.0, 400)  # all fit: it may be anywhere
    assert np.abs(_jolted(residual, x, 400, rng)).min() > 0.0

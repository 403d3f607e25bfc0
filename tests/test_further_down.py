"""Where features are too few: values farther down the network first."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from tinyleak import nn, share
from tinyleak.attacks import further_down
from tinyleak.attacks.distances import StoppedError
from tinyleak.attacks.features_first import features_first
from tinyleak.attacks.further_down import shown_further_down
from tinyleak.attacks.shown import Shown, shown_layer
from tinyleak.client import Client
from tinyleak.nn import init
from tinyleak.ops import relu
from tinyleak.tensor import Tensor


@dataclass(frozen=True)
class Narrowing:
    """Three convolutions: 200 values after the first, 144 or fewer after the second, 8 features."""

    classes: int = 5
    image_shape: tuple[int, int, int] = (1, 8, 8)
    second: int = 16

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            **{"one.weight": (8, 1, 4, 4), "one.bias": (8,)},
            **{"two.weight": (self.second, 8, 3, 3), "two.bias": (self.second,)},
            **{"three.weight": (8, self.second, 3, 3), "three.bias": (8,)},
            **{"last.weight": (5, 8), "last.bias": (5,)},
        }

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return nn.linear(nn.flatten(self.hidden(params, x)[-1]), *self.last(params))

    def hidden(self, params: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
        values = [x]
        for name in ("one", "two", "three"):
            weights = params[f"{name}.weight"], params[f"{name}.bias"]
            values.append(relu(nn.conv2d(values[-1], *weights)))
        return values

    def last(self, params: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return params["last.weight"], params["last.bias"]


def client_of(seed: int, second: int = 16) -> tuple[Client, np.ndarray, Shown]:
    model, rng = Narrowing(second=second), np.random.default_rng(seed)
    image = rng.random((1, 1, 8, 8))
    params = init.draw(model.shapes, rng, "default", dtype="float32")
    client, _ = share(model, params, image, [int(rng.integers(0, 5))], dtype="float32")
    shown = shown_layer(model, client.params, client.gradients)
    assert shown is not None and shown.features is not None and shown.features.size == 8
    return client, image, shown


@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_values_that_the_gradients_above_determine_are_found(seed: int) -> None:
    client, image, shown = client_of(seed)
    start = 0.5 + 0.1 * np.random.default_rng(9).standard_normal(image.shape)
    found = shown_further_down(shown, client.gradients, start, 1e-13, seed)
    assert found is not None and found.features is not None and found.features.size == 144
    params = {name: Tensor(array.astype(float)) for name, array in client.params.items()}
    second, truth = client.model.hidden(params, Tensor(image))[2], found.below(Tensor(image))  # type: ignore[attr-defined]
    assert truth is not None and np.array_equal(
        np.sort(truth.data.ravel()), np.sort(second.data.ravel())
    )
    assert np.allclose(found.features, truth.data, atol=1e-4 * second.data.max())
    assert np.array_equal(found.features > 0, truth.data > 0)  # who is active shows
    assert sorted(found.lower) == ["one.bias", "one.weight", "two.bias", "two.weight"]


@pytest.mark.parametrize("seed", range(4))
def test_values_are_found_layer_by_layer_until_there_are_as_many_as_pixels(seed: int) -> None:
    client, image, shown = client_of(seed, second=6)  # 54 values of 64 pixels, and then 200
    start = 0.5 + 0.1 * np.random.default_rng(9).standard_normal(image.shape)
    found = shown_further_down(shown, client.gradients, start, 1e-13, seed)
    assert found is not None and found.features is not None and found.features.size == 200
    truth = found.below(Tensor(image))
    assert truth is not None and np.allclose(found.features, truth.data, atol=1e-5)
    assert sorted(found.lower) == ["one.bias", "one.weight"]


def test_an_image_is_found_by_them() -> None:
    client, image, _ = client_of(1)
    reached = features_first(client)
    assert reached is not None and np.mean((reached - image) ** 2) < 1e-8


def test_ctrl_c_on_the_way_has_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    client, image, shown = client_of(0)

    def interrupted(*_: object, **__: object) -> None:
        raise StoppedError(np.zeros(144))

    monkeypatch.setattr(further_down, "past_kinks", interrupted)
    with pytest.raises(StoppedError) as stopped:
        shown_further_down(shown, client.gradients, image, 1e-13, 0)
    assert np.array_equal(stopped.value.x, image.ravel())


@pytest.mark.parametrize("work", ["shown_further_down", "rounded_objective_of"])
def test_ctrl_c_between_searches_has_an_image(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client, image, _ = client_of(1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[features_first.__module__], work, interrupted)
    with pytest.raises(StoppedError) as stopped:
        features_first(client)
    assert stopped.value.x.shape == (image.size,)


def test_noise_lets_no_search_arrive_so_that_none_goes_further_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, image, _ = client_of(1)
    rng = np.random.default_rng(0)
    noisy = {k: g + 1e-3 * rng.standard_normal(g.shape) for k, g in client.gradients.items()}
    asked: list[object] = []
    room = sys.modules[features_first.__module__]
    monkeypatch.setattr(room, "shown_further_down", lambda *args: asked.append(args))
    monkeypatch.setattr(room, "past_kinks", lambda *_, **__: None)
    for gradients, times in ((client.gradients, 1), (noisy, 0)):
        asked.clear()
        features_first(Client.of(client.model, client.params, gradients, reduction="mean"))
        assert len(asked) == times

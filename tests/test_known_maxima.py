"""Windows whose largest element is known: which one it was is a further unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from tinyleak import nn, share
from tinyleak.attacks import smoothed
from tinyleak.attacks.kinks import Choices, Kinks
from tinyleak.attacks.known_maxima import known_maxima
from tinyleak.attacks.shown import Shown, shown_layer
from tinyleak.nn import init
from tinyleak.ops import relu
from tinyleak.tensor import Tensor

Kind = Literal["relu, then windows", "windows, then relu", "overlapping", "averages", "two relus"]


@dataclass(frozen=True)
class Pooled:
    """A convolution with windows of 2 x 2 or 3 x 3, and a linear layer."""

    kind: Kind
    classes: int = 5
    image_shape: tuple[int, int, int] = (6, 8, 8)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            **{"one.weight": (16, 6, 3, 3), "one.bias": (16,)},
            **{"top.weight": (5, 256), "top.bias": (5,)},
        }

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = relu(x - 0.1) if self.kind == "two relus" else x
        x = nn.conv2d(x, params["one.weight"], params["one.bias"], padding=(1, 1))
        if self.kind == "windows, then relu":
            x = relu(nn.max_pool2d(x, (2, 2)))
        elif self.kind == "overlapping":
            x = nn.max_pool2d(relu(x), (3, 3), stride=(2, 2), padding=(1, 1))
        elif self.kind == "averages":
            x = nn.avg_pool2d(relu(x), (2, 2))
        else:
            x = nn.max_pool2d(relu(x), (2, 2))
        return nn.linear(nn.flatten(x), params["top.weight"], params["top.bias"])


def shown_by(kind: Kind, seed: int) -> tuple[Shown, Mapping[str, np.ndarray], np.ndarray]:
    model, rng = Pooled(kind), np.random.default_rng(seed)
    values = np.maximum(rng.standard_normal((1, *model.image_shape)), 0.0)
    params = init.draw(model.shapes, rng, "default", dtype="float32")
    client, _ = share(model, params, values, [int(rng.integers(0, 5))], dtype="float32")
    shown = shown_layer(model, client.params, client.gradients)
    assert shown is not None
    return shown, client.gradients, values


@pytest.mark.parametrize("kind", ["relu, then windows", "windows, then relu", "overlapping"])
def test_all_is_zero_at_the_client_s_values_with_its_winners(kind: Kind) -> None:
    shown, _, values = shown_by(kind, 0)
    assert shown.features is not None
    kinks, image = Kinks(shown.below), Tensor(values)
    maxima = known_maxima(
        kinks, Tensor(np.random.default_rng(1).random(values.shape)), shown.features
    )
    assert maxima is not None
    np.testing.assert_array_equal(np.sort(maxima.largest), np.sort(shown.features.ravel()))
    assert 0 < maxima.active.mean() < 1
    seen = []

    def at_kink(_: int, choices: Choices) -> Tensor:
        elements = np.stack([e.data for e in choices.elements])
        inside = np.stack(choices.inside)
        first = np.where(inside > 0, elements, -np.inf).argmax(axis=0)
        winners = (np.arange(len(elements))[:, None] == first) * 1.0
        value, zeros = maxima.mixed(Tensor(winners.ravel()), choices)
        _, off = maxima.mixed(Tensor(np.roll(winners, 1, axis=0).ravel()), choices)
        seen.append((zeros, off))
        return value

    opened = kinks.replay(image, at_kink, open_top=True)
    np.testing.assert_allclose(relu(opened).data, shown.features, atol=1e-5)
    [(zeros, off)] = seen
    assert max(float(np.abs(part.data).max()) for part in zeros) < 1e-6
    assert max(float(np.abs(part.data).max()) for part in off) > 1e-3


def test_none_is_known_of_averages() -> None:
    shown, _, values = shown_by("averages", 0)
    assert shown.features is not None
    assert known_maxima(Kinks(shown.below), Tensor(values), shown.features) is None


def test_above_other_kinks_they_are_known_and_not_searched_by_shares() -> None:
    shown, gradients, values = shown_by("two relus", 0)
    assert shown.features is not None
    maxima = known_maxima(Kinks(shown.below), Tensor(values), shown.features)
    assert maxima is not None
    np.testing.assert_array_equal(maxima.largest, shown.features.ravel()[maxima.order])
    made = smoothed._softened(shown, gradients, values)
    assert made is not None
    _, _, shares = made
    assert len(shares) == 0


@pytest.mark.parametrize("seed", [1, 4])
def test_values_are_found_where_a_smoothed_search_ends_at_wrong_winners(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, gradients, values = shown_by("relu, then windows", seed)
    start = 0.4 * np.abs(np.random.default_rng(seed + 99).standard_normal(values.shape))

    def error() -> float:
        found = smoothed.past_kinks(shown, gradients, start, 0.0, np.inf, 1e-13, cycles=1)
        assert found is not None
        return float(np.mean((found.x - values.ravel()) ** 2))

    assert error() < 1e-12
    monkeypatch.setattr(smoothed, "known_maxima", lambda *_: None)
    assert error() > 1e-2

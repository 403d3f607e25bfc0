"""Values within a network by the gradients above them, and the image that has them, in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tinyleak import nn, share
from tinyleak.attacks import by_halves as module
from tinyleak.attacks.by_halves import by_halves
from tinyleak.attacks.distances import StoppedError
from tinyleak.attacks.further_down import cut_of
from tinyleak.attacks.shown import Shown, shown_layer
from tinyleak.nn import init
from tinyleak.ops import relu
from tinyleak.optim.truncated import Reached
from tinyleak.tensor import Tensor


@dataclass(frozen=True)
class TwoPools:
    """Two convolutions, each with ReLU and windows of 2 x 2: 864 values, then 288 features."""

    classes: int = 5
    image_shape: tuple[int, int, int] = (1, 12, 12)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            **{"one.weight": (24, 1, 3, 3), "one.bias": (24,)},
            **{"two.weight": (32, 24, 3, 3), "two.bias": (32,)},
            **{"top.weight": (5, 288), "top.bias": (5,)},
        }

    def values(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = nn.conv2d(x, params["one.weight"], params["one.bias"], padding=(1, 1))
        return nn.max_pool2d(relu(x), (2, 2))

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = self.values(params, x)
        x = nn.conv2d(x, params["two.weight"], params["two.bias"], padding=(1, 1))
        x = nn.max_pool2d(relu(x), (2, 2))
        return nn.linear(nn.flatten(x), params["top.weight"], params["top.bias"])


def shown_by(seed: int) -> tuple[Shown, Mapping[str, np.ndarray], np.ndarray, np.ndarray]:
    model, rng = TwoPools(), np.random.default_rng(seed)
    image = rng.random((1, *model.image_shape))
    params = init.draw(model.shapes, rng, "default", dtype="float32")
    client, _ = share(model, params, image, [int(rng.integers(0, 5))], dtype="float32")
    shown = shown_layer(model, client.params, client.gradients)
    assert shown is not None
    values = model.values(
        {k: Tensor(p.astype(float)) for k, p in client.params.items()}, Tensor(image)
    )
    return shown, client.gradients, image, values.data


GREY = 0.5 + 0.1 * np.random.default_rng(9).standard_normal((1, 1, 12, 12))


def test_an_image_is_found_past_the_kinks_of_two_pools() -> None:
    shown, gradients, image, _ = shown_by(9)
    pixels = by_halves(shown, gradients, GREY, 0.0, 1.0, 1e-13)
    assert pixels is not None and np.square(pixels - image.ravel()).mean() < 1e-9


def test_nothing_differs_at_the_client_s_values() -> None:
    shown, gradients, image, values = shown_by(0)
    cut = cut_of(shown, gradients, GREY)
    assert cut is not None and cut.values.size == values.size == 864
    assert sorted(cut.above.lower) == ["two.bias", "two.weight"]
    found = cut.below(Tensor(image))
    assert found is not None
    np.testing.assert_array_equal(np.sort(found.data.ravel()), np.sort(values.ravel()))
    residual = module._residual(cut.above, gradients, (1, 1, 1, values.size))
    x = found.data.ravel()
    assert float(np.sum(residual.value(x) ** 2)) < 1e-12
    assert float(np.sum(residual.value(x[::-1].copy()) ** 2)) > 1e-2
    told = module._seen(residual, np.zeros_like(x))
    assert told.any()


def test_each_row_of_a_gradient_that_is_not_zero_has_one_weight() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 1e-9]])
    weighed = rows * module._of_rows(rows)
    np.testing.assert_allclose(np.linalg.norm(weighed, axis=1), np.sqrt(12.5) * np.array([1, 0, 1]))
    np.testing.assert_array_equal(module._of_rows(rows[0]), [1.0, 1.0])


def test_a_network_without_gradients_below_its_features_is_not_cut() -> None:
    shown, gradients, _, _ = shown_by(0)
    assert by_halves(replace(shown, lower={}), gradients, GREY, 0.0, 1.0, 1e-13) is None


def test_ctrl_c_keeps_the_pixels_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, gradients, _, _ = shown_by(0)
    real, calls = module.without_outliers, []

    def stopped(*args: Any, **others: Any) -> Reached:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **others)

    monkeypatch.setattr(module, "without_outliers", stopped)
    with pytest.raises(StoppedError) as caught:
        by_halves(shown, gradients, GREY, 0.0, 1.0, 1e-13)
    assert caught.value.x.shape == (144,)
    assert not np.array_equal(caught.value.x, GREY.ravel())

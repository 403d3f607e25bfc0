"""Weights and gradients that no client can have, and the sentences that turn them down."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak.client import Client, simulate
from tinyleak.nn import LeNet


@pytest.fixture
def shared() -> tuple[LeNet, dict[str, np.ndarray], dict[str, np.ndarray]]:
    model = LeNet((1, 8, 8), classes=3, hidden=2)
    client, _ = simulate(model, np.zeros((1, 1, 8, 8)), [1])
    return model, dict(client.params), dict(client.gradients)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["weights", "gradients"])
def test_numbers_that_are_not_finite(what: str, value: float, shared) -> None:
    model, params, gradients = shared
    spoilt = params if what == "weights" else gradients
    spoilt["fc.0.bias"] = np.array([0.0, value, 0.0])
    message = f"the {what} hold NaN or infinity in fc.0.bias; the attack needs finite numbers"
    with pytest.raises(ValueError, match=message):
        Client.of(model, params, gradients)


@pytest.mark.parametrize("what", ["weights", "gradients"])
def test_names_that_do_not_fit_the_model(what: str, shared) -> None:
    model, params, gradients = shared
    wrong = params if what == "weights" else gradients
    wrong["fc.weight"] = wrong.pop("fc.0.weight")
    message = rf"the {what} do not fit LeNet.*missing \['fc.0.weight'\], not known \['fc.weight'\]"
    with pytest.raises(ValueError, match=message):
        Client.of(model, params, gradients)


@pytest.mark.parametrize("what", ["weights", "gradients"])
def test_shapes_that_do_not_fit_the_model(what: str, shared) -> None:
    model, params, gradients = shared
    wrong = params if what == "weights" else gradients
    wrong["fc.0.bias"] = np.zeros(4)
    message = rf"the {what} do not fit LeNet.*fc.0.bias has shape \(4,\), the model's is \(3,\)"
    with pytest.raises(ValueError, match=message):
        Client.of(model, params, gradients)


def test_a_gradient_of_zeros(shared) -> None:
    model, params, gradients = shared
    zeros = {name: np.zeros_like(gradient) for name, gradient in gradients.items()}
    with pytest.raises(ValueError, match="every shared gradient is zero"):
        Client.of(model, params, zeros)

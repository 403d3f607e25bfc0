"""Several local steps: what a client's weights give away after it has trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tinyleak.attacks import ExtendedMatching, Settings, attack
from tinyleak.check import check_gradients
from tinyleak.client import Client, LocalSteps, Truth, share
from tinyleak.metrics import mse
from tinyleak.nn import MLP, LeNet
from tinyleak.tensor import Tensor

SHAPE = (1, 6, 6)
MODEL = MLP(SHAPE, 4, "tanh", (12,))
RATE = 0.5


def trained(rng, steps, batch=1, model=MODEL) -> tuple[Client, Truth]:
    params = model.init(rng, "default")
    images, labels = rng.random((batch, *model.image_shape)), np.arange(batch) % model.classes
    return share(model, params, images, labels, local=LocalSteps(steps, RATE))


def test_one_step_is_the_gradient(rng) -> None:
    client, truth = trained(rng, 1, batch=2)
    plain, _ = share(MODEL, client.params, truth.images, truth.labels)
    for name, gradient in plain.gradients.items():
        np.testing.assert_array_equal(client.gradients[name], gradient)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_steps_are_pytorchs(rng, steps) -> None:
    client, truth = trained(rng, steps, batch=3)
    network = torch.nn.Sequential(
        *(torch.nn.Flatten(), torch.nn.Linear(36, 12), torch.nn.Tanh(), torch.nn.Linear(12, 4))
    ).double()
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), client.params.values(), strict=True):
            parameter.copy_(torch.tensor(value))
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            network(torch.tensor(truth.images)), torch.tensor(truth.labels)
        )
        loss.backward()
        optimiser.step()
    for parameter, name in zip(network.parameters(), client.params, strict=True):
        after = client.params[name] - RATE * client.gradients[name]
        np.testing.assert_allclose(after, parameter.detach().numpy(), atol=1e-14)


@pytest.mark.parametrize("steps", [2, 3])
def test_the_objective_s_gradient_goes_through_the_steps(rng, steps) -> None:
    model = MLP((1, 2, 2), 3, "tanh", (4,))
    client, _ = trained(rng, steps, model=model)
    matching = ExtendedMatching(
        model, client.params, client.gradients, 1, np.ones(()), local=client.local
    )
    check_gradients(matching.distances, [Tensor(rng.standard_normal((2, 7)))], order=1)
    z = Tensor(rng.standard_normal((2, 7)))
    value, gradient = matching.value_and_gradient(z)
    np.testing.assert_allclose(value.data, matching.distances(z).data)
    assert gradient.shape == (2, 7)


def test_at_the_truth_the_distance_is_zero(rng) -> None:
    client, truth = trained(rng, 4, batch=2)
    matching = ExtendedMatching(
        MODEL,
        client.params,
        client.gradients,
        2,
        np.ones(()),
        targets=np.eye(4)[truth.labels],
        local=client.local,
    )
    assert matching.distances(Tensor(truth.images.ravel())).data < 1e-28


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_an_image_comes_back_through_the_steps(rng, steps) -> None:
    client, truth = trained(rng, steps)
    found = attack(client, seed=1)
    assert found.labels.tolist() == truth.labels.tolist()
    assert mse(found.images, truth.images).max() < 1e-10


def test_who_takes_them_for_one_gradient_gets_less(rng) -> None:
    client, truth = trained(rng, 5)
    average = {name: g / 5 for name, g in client.gradients.items()}
    found = attack(MODEL, client.params, average, settings=Settings(iterations=300))
    assert mse(found.images, truth.images).max() > 1e-6


def test_a_lenet_s_image_comes_back_through_two_steps(rng) -> None:
    model = LeNet((1, 8, 8), 3, hidden=4, kernel=3)
    client, truth = trained(rng, 2, model=model)
    found = attack(client)
    assert mse(found.images, truth.images).max() < 1e-6


@pytest.mark.parametrize(("count", "rate"), [(0, 0.1), (2, 0.0), (2, -1.0), (2, np.inf)])
def test_steps_that_are_none_are_refused(count, rate) -> None:
    with pytest.raises(ValueError, match="give 1 step or more, and a learning rate above 0"):
        LocalSteps(count, rate)


def test_levenberg_marquardt_refuses_local_steps(rng) -> None:
    client, _ = trained(rng, 2)
    with pytest.raises(ValueError, match="to go through local steps, choose method lbfgs"):
        attack(client, method="levenberg-marquardt")

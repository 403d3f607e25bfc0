"""Several local steps: what a client's weights give away after it has trained."""

from __future__ import annotations

import itertools

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
SUMMED = {"batch": 2, "reduction": "sum"}


def trained(rng, steps, many=1, model=MODEL, **said) -> tuple[Client, Truth]:
    params = model.init(rng, "default")
    images, labels = rng.random((many, *model.image_shape)), np.arange(many) % model.classes
    return share(model, params, images, labels, local=LocalSteps(steps, RATE, **said))


def test_one_step_is_the_gradient(rng) -> None:
    client, truth = trained(rng, 1, many=2)
    plain, _ = share(MODEL, client.params, truth.images, truth.labels)
    for name, gradient in plain.gradients.items():
        np.testing.assert_array_equal(client.gradients[name], gradient)


@pytest.mark.parametrize(
    ("steps", "batch", "momentum"),
    [(1, 3, 0.0), (5, 3, 0.0), (4, 3, 0.9), (3, 1, 0.0), (7, 2, 0.5), (6, 2, 0.9)],
)
def test_the_steps_are_pytorchs(rng, steps, batch, momentum) -> None:
    """Mini-batches and momentum too; the last of an epoch may have fewer images."""
    client, truth = trained(rng, steps, 3, batch=batch, momentum=momentum)
    network = torch.nn.Sequential(
        *(torch.nn.Flatten(), torch.nn.Linear(36, 12), torch.nn.Tanh(), torch.nn.Linear(12, 4))
    ).double()
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), client.params.values(), strict=True):
            parameter.copy_(torch.tensor(value))
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE, momentum=momentum)
    data = torch.utils.data.TensorDataset(torch.tensor(truth.images), torch.tensor(truth.labels))
    epochs = itertools.cycle(torch.utils.data.DataLoader(data, batch))
    for images, labels in itertools.islice(epochs, steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
    for parameter, name in zip(network.parameters(), client.params, strict=True):
        after = client.params[name] - RATE * client.gradients[name]
        np.testing.assert_allclose(after, parameter.detach().numpy(), atol=1e-14)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_short_steps_are_so_many_times_the_gradient(rng, momentum) -> None:
    params, image = MODEL.init(rng, "default"), rng.random((1, *SHAPE))
    steps = LocalSteps(5, 1e-9, momentum=momentum)
    one, many = (share(MODEL, params, image, [2], local=local)[0] for local in (None, steps))
    assert many.multiple == pytest.approx(sum((5 - k) * momentum**k for k in range(5)))
    for name, gradient in one.gradients.items():
        np.testing.assert_allclose(many.gradients[name] / many.multiple, gradient, rtol=1e-6)


def test_what_is_said_of_steps_comes_to_their_number() -> None:
    of = LocalSteps.of
    assert of(5, 0.1) == LocalSteps(1, 0.1)
    assert of(5, 0.1, epochs=2, local_batch=2, momentum=0.9) == LocalSteps(6, 0.1, 2, 0.9)
    assert of(5, 0.1, epochs=3) == of(5, 0.1, local_steps=3)
    assert of(5, 0.1, local_steps=6, local_batch=2).parts(5)[2:4] == [slice(4, 5), slice(0, 2)]
    assert of(2, 0.1, epochs=3, local_batch=8) == LocalSteps(3, 0.1)
    assert of(4, 0.1, epochs=1, local_batch=2, momentum=0.9).said == (
        "2 of SGD, each with a mini-batch of 2, the next in an order that stays, with momentum 0.9 "
        "and no decay"
    )


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


def test_the_objective_s_gradient_goes_through_mini_batches(rng) -> None:
    model = MLP((1, 2, 2), 3, "tanh", (4,))
    client, _ = trained(rng, 3, 3, model, batch=2, momentum=0.9)
    matching = ExtendedMatching(
        model, client.params, client.gradients, 3, np.ones(()), local=client.local
    )
    z = Tensor(rng.standard_normal((2, 21)))
    check_gradients(matching.distances, [z], order=1)
    np.testing.assert_allclose(matching.value_and_gradient(z)[0].data, matching.distances(z).data)


def test_at_the_truth_the_distance_is_zero(rng) -> None:
    client, truth = trained(rng, 4, many=2)
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


def test_a_batch_comes_back_through_mini_batches(rng) -> None:
    """Two epochs of mini-batches, whose images come back in their order."""
    model = MLP(SHAPE, 4, "sigmoid", (40,))
    client, truth = trained(rng, 6, 3, model, batch=1, momentum=0.9)
    found = attack(client, seed=1, labels=truth.labels)
    assert mse(found.images, truth.images).max() < 1e-10
    assert client.explain(found).verdict == "exact"


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


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"local_batch": 0}, "mini-batches of 0 were given; give them 1 image or more"),
        ({"momentum": 1.0}, r"momentum 1.0 was given; give one in \[0, 1\)"),
        ({"momentum": np.nan}, "momentum nan was given"),
        ({"local_steps": 2, "epochs": 1}, "2 local steps and 1 epochs were given; give one of the"),
        ({"epochs": 26, "local_batch": 1}, "104 local steps were given, and 100 at most can be un"),
        ({"local_steps": 3, "local_batch": 1}, "3 local steps with 1 images each do not see all"),
    ],
)
def test_steps_that_cannot_be(said, message) -> None:
    with pytest.raises(ValueError, match=message):
        LocalSteps.of(4, 0.1, **said)


def test_what_mini_batches_leave_open_is_refused(rng) -> None:
    client, _ = trained(rng, 2, 2, batch=1)
    with pytest.raises(ValueError, match="not which mini-batch each was in; choose optimise"):
        attack(client, labels="infer")
    with pytest.raises(ValueError, match=r"say a mean \(--reduction mean\), and the learning rate"):
        Client.of(MODEL, client.params, client.gradients, **SUMMED, local=client.local)
    with pytest.raises(ValueError, match="2 local steps with 1 images each do not see all of a"):
        Client(MODEL, client.params, client.gradients, 3, local=client.local)


def test_levenberg_marquardt_refuses_local_steps(rng) -> None:
    client, _ = trained(rng, 2)
    with pytest.raises(ValueError, match="to go through local steps, choose method lbfgs"):
        attack(client, method="levenberg-marquardt")

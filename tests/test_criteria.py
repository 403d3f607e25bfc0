"""The losses beside cross-entropy, and a network with its loss and normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tinyleak import Tensor
from tinyleak.client import Client, Notes, share
from tinyleak.client.notes import parse_normalize
from tinyleak.gradient import grad
from tinyleak.nn import MLP, LeNet, cross_entropy
from tinyleak.nn.criteria import LOSSES, dummies_of, loss_of, targets_of
from tinyleak.nn.model import parameter_gradients
from tinyleak.nn.models.as_trained import AsTrained, as_trained, network_of

PYTORCHS = {
    "cross-entropy": torch.nn.functional.cross_entropy,
    "bce": torch.nn.functional.binary_cross_entropy_with_logits,
    "mse": torch.nn.functional.mse_loss,
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_pytorchs_with_their_gradients(name: str) -> None:
    rng = np.random.default_rng(0)
    logits, targets = 30.0 * rng.standard_normal((3, 4)), rng.dirichlet(np.ones(4), 3)
    ours, z, y = None, Tensor(logits), Tensor(targets)
    ours = LOSSES[name](z, y)
    theirs_z, theirs_y = (torch.tensor(a, requires_grad=True) for a in (logits, targets))
    theirs = PYTORCHS[name](theirs_z, theirs_y)
    np.testing.assert_allclose(ours.data, theirs.item(), rtol=1e-13)
    expected = torch.autograd.grad(theirs, [theirs_z, theirs_y])
    for found, one in zip(grad(ours, [z, y]), expected, strict=True):
        np.testing.assert_allclose(found.data, one.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_a_client_shares_the_gradient_of_its_own_loss_and_normalised_images(name: str) -> None:
    rng = np.random.default_rng(0)
    network = MLP((2, 3, 3), 4, "tanh", (5,))
    params = network.init(rng)
    model = AsTrained(network, name, (0.1, 0.2), (0.3, 0.4))
    images, labels = rng.random((2, 2, 3, 3)), np.array([1, 3])
    client, _ = share(model, params, images, labels)
    given = torch.tensor((images - [[[0.1]], [[0.2]]]) / [[[0.3]], [[0.4]]]).flatten(1)
    weights = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    hidden = torch.tanh(given @ weights["0.weight"].T + weights["0.bias"])
    logits = hidden @ weights["2.weight"].T + weights["2.bias"]
    loss = PYTORCHS[name](logits, torch.eye(4, dtype=torch.float64)[labels])
    loss.backward()
    for key, weight in weights.items():
        np.testing.assert_allclose(
            client.gradients[key], weight.grad.numpy(), rtol=1e-12, atol=1e-15
        )


def test_what_is_usual_is_not_wrapped() -> None:
    network = LeNet()
    assert as_trained(network) is network
    assert as_trained(network, "cross-entropy", ((0.0,), (1.0,))) is network
    wrapped = as_trained(network, "mse")
    assert (network_of(wrapped), network_of(network)) == (network, network)
    assert (loss_of(wrapped), loss_of(network)) == (LOSSES["mse"], cross_entropy)
    assert wrapped.activation == "sigmoid"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss_name": "hinge"}, "loss 'hinge' is unknown; choose from cross-entropy, bce, mse"),
        ({"mean": (0.1, 0.2)}, "one for each of 1 channels"),
        ({"std": (0.0,)}, "standard deviations above 0"),
        ({"mean": (float("nan"),)}, "standard deviations above 0"),
    ],
)
def test_what_cannot_be_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AsTrained(LeNet(), **given)


@pytest.mark.parametrize("text", ["", "0.5", "1,2,3", "0.5,0", "a,b", "nan,1"])
def test_a_normalisation_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write what images were normalised by as MEAN,STD"):
        parse_normalize(text)


def test_a_normalisation_is_written_as_it_is_read() -> None:
    assert parse_normalize("0.1307,0.3081") == ((0.1307,), (0.3081,))
    assert Notes(normalize=((0.1, 0.2), (0.3, 0.4))).normalize == ((0.1, 0.2), (0.3, 0.4))


@pytest.mark.parametrize("name", LOSSES)
def test_targets_come_back_from_what_stands_for_them(name: str) -> None:
    rows = np.random.default_rng(1).dirichlet(np.ones(4), 3)
    np.testing.assert_allclose(targets_of(name, Tensor(dummies_of(name, rows))).data, rows)
    certain = targets_of(name, Tensor(dummies_of(name, np.eye(4)))).data
    np.testing.assert_allclose(certain, np.eye(4), atol=1e-11)


def test_how_many_classes_images_have_is_not_taken_for_granted_by_another_loss() -> None:
    rng = np.random.default_rng(0)
    network = MLP((1, 6, 6), 5, "tanh", widths=(20,))
    weights = network.init(rng, "default")
    several = np.array([[1.0, 0, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1]])
    images = Tensor(rng.random((3, 1, 6, 6)))
    trained = as_trained(network, "bce")
    params = {name: Tensor(array) for name, array in weights.items()}
    shared = parameter_gradients(trained, params, images, Tensor(several))
    gradients = {name: g.data for name, g in shared.items()}
    client = Client.of(network, weights, gradients, batch=3, loss="bce")
    assert client.loss.exact and client.loss.factor == 1.0
    assert client.loss.fact.source == "assumed"

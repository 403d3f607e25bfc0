"""The attack that takes a batch apart: each image by its features, and what Ctrl-C leaves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tinyleak import Attacker, attack, attack_many, nn, share
from tinyleak.analytic.search import Search
from tinyleak.attacks import by_records, problem_of
from tinyleak.attacks.advice import likely_causes
from tinyleak.attacks.distances import StoppedError
from tinyleak.client import Client, Truth
from tinyleak.nn import MLP, init
from tinyleak.nn.split import linear_layers
from tinyleak.ops import relu, tanh
from tinyleak.tensor import Tensor


@dataclass(frozen=True)
class Pooled:
    """A convolution, ReLU and max pooling, and two linear layers."""

    image_shape: tuple[int, int, int] = (1, 8, 8)
    classes: int = 5
    activation: str = "relu"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            **{"conv.weight": (8, 1, 3, 3), "conv.bias": (8,)},
            **{"hidden.weight": (24, 128), "hidden.bias": (24,)},
            **{"out.weight": (5, 24), "out.bias": (5,)},
        }

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = relu(nn.conv2d(x, params["conv.weight"], params["conv.bias"], padding=(1, 1)))
        x = nn.flatten(nn.max_pool2d(x, (2, 2)))
        hidden = tanh(nn.linear(x, params["hidden.weight"], params["hidden.bias"]))
        return nn.linear(hidden, params["out.weight"], params["out.bias"])


def client_of(model: Any, seed: int, count: int = 2) -> tuple[Client, Truth]:
    rng = np.random.default_rng(seed)
    images = rng.random((count, *model.image_shape))
    params = init.draw(model.shapes, rng, "default", dtype="float32")
    return share(model, params, images, list(range(count)), dtype="float32")


def test_a_certified_image_is_searched_for_past_kinks() -> None:
    client, truth = client_of(Pooled(), 2)
    cut = linear_layers(client.model, client.params)[0]
    features = cut.below(Tensor(truth.images[:1])).data
    errors = []
    for exact in (False, True):
        image = by_records.images_with(cut, features, client, np.random.default_rng(0), exact=exact)
        errors.append(np.mean((image - truth.images[0].ravel()) ** 2))
    assert errors[0] > 1e-3 and errors[1] < 1e-12


def test_where_kinks_stopped_the_search_for_an_image_another_seed_is_advised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, _ = client_of(Pooled(), 2)
    monkeypatch.setattr(by_records, "images_with", lambda *_, **__: np.full(64, 0.5))
    problem = problem_of(client, Attacker(method="records"))
    found = attack(problem)
    causes = likely_causes(problem, found, client.explain(found))
    assert "--seed 1" in [cause.advice for cause in causes]


@pytest.mark.parametrize("method", ["auto", "records"])
def test_labels_that_the_records_contradict_are_named_and_kept_out(method) -> None:
    client, truth = client_of(MLP((1, 4, 4), 5, widths=(24,), activation="tanh"), 0, 3)
    with pytest.warns(UserWarning, match="^labels 0 1 1 were given, .* have labels 0 1 2"):
        found = attack(client, method=method, labels=[0, 1, 1])
    assert truth.judge(found).succeeded
    with pytest.raises(ValueError, match="2 labels were given for a batch of 3"):
        attack(client, method=method, labels=[0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(client, method=method, labels=[2, 1, 0])


def twins(activation: str, seed: int, apart: float) -> tuple[Client, Truth]:
    """A client of five images, of which two of one label are alike."""
    model = MLP((1, 4, 4), 5, widths=(40, 20), activation=activation)
    plain, truth = client_of(model, seed, 5)
    images, rng = truth.images.copy(), np.random.default_rng(seed + 1)
    images[1] = np.clip(images[0] + apart * rng.standard_normal(images[0].shape), 0.0, 1.0)
    return share(model, plain.params, images, [0, 0, 1, 2, 3], dtype="float32")


def test_a_batch_whose_images_are_alike_is_not_advised_to_be_smaller() -> None:
    """Of the others each counts one part in as many as were said."""
    client, _ = twins("sigmoid", 0, 1e-2)
    problem = problem_of(client, Attacker(method="records"))
    found = attack(problem)
    outcome = client.explain(found)
    assert sum(one is True for one in outcome.certified or ()) == 3
    (cause,) = [c for c in likely_causes(problem, found, outcome) if c.name == "batch size"]
    assert "some are nearly alike" in cause.text and not cause.advice


def test_a_mean_of_twins_is_not_certified_by_a_layer_to_which_they_are_copies() -> None:
    client, truth = twins("relu", 1, 3e-3)
    found = attack(client, method="records")
    errors = np.square(found.images[:, None] - truth.images).mean(axis=(2, 3, 4)).min(axis=1)
    verdicts = np.array([one is True for one in client.explain(found).certified or ()])
    assert verdicts.tolist() == (errors < 1e-6).tolist() == [True, True, True, False, False]


def noisy(seed: int) -> tuple[Client, Truth]:
    """A client of four images with noise of a relative variance of 1e-10 on its gradient."""
    model, rng = MLP((1, 8, 8), 10, widths=(120,), activation="tanh"), np.random.default_rng(seed)
    params, images = model.init(rng, "default"), rng.random((4, *model.image_shape))
    plain, truth = share(model, params, images, [0, 1, 1, 2])
    size = np.mean(np.concatenate([g.ravel() ** 2 for g in plain.gradients.values()]))
    shared = {
        name: g + np.sqrt(1e-10 * size) * rng.standard_normal(g.shape)
        for name, g in plain.gradients.items()
    }
    return Client.of(model, params, shared, batch=4), truth


@pytest.mark.parametrize("seed", [0, 3])
def test_under_noise_images_are_fitted_to_all_of_the_gradient(seed: int) -> None:
    """What one layer tells does not make the others' gradients as nearly as noise allows."""
    client, truth = noisy(seed)
    found = attack(client, method="records")
    outcome = client.explain(found)
    assert outcome.succeeded and outcome.certified == (True,) * 4
    assert truth.judge(found).mse.max() < min(1e-9, 2 * outcome.expected_mse)


def test_ctrl_c_while_images_are_fitted_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(by_records, "refit", interrupted)
    client, truth = noisy(0)
    found = attack(client, method="records")
    assert found.reason == "interrupted" and truth.judge(found).succeeded


def test_ctrl_c_keeps_the_records_that_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    client, truth = client_of(MLP((1, 4, 4), 5, widths=(24,), activation="tanh"), 0, 3)
    run = Search.run

    def stopped(search: Search) -> None:
        run(search)
        search.inputs.append(search.inputs[0])  # as if one were just being kept
        raise KeyboardInterrupt

    monkeypatch.setattr(Search, "run", stopped)
    found = attack(client, method="records")
    assert found.reason == "interrupted"
    assert max(truth.judge(found).mse) < 1e-9
    with pytest.raises(KeyboardInterrupt):  # of several clients, not only the first ends
        attack_many([client, client], method="records")


def test_ctrl_c_keeps_the_images_that_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = client_of(Pooled(), 2)
    first, best = np.full(64, 0.25), np.full(64, 0.75)

    def images_with(*_: object, **__: object) -> np.ndarray:
        if asked.pop():
            raise StoppedError(best)
        return first

    asked = [True, False]
    monkeypatch.setattr(by_records, "images_with", images_with)
    found = attack(client, method="records")
    assert found.reason == "interrupted"
    assert np.array_equal(found.images.reshape(2, -1), [first, best])


def test_ctrl_c_between_searches_for_an_image_has_its_best(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = client_of(Pooled(), 2)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(by_records, "past_kinks", interrupted)
    found = attack(client, method="records")
    assert found.reason == "interrupted" and np.ptp(found.images[0]) > 0.5


@dataclass(frozen=True)
class Smooth(Pooled):
    """The same without kinks."""

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = tanh(nn.conv2d(x, params["conv.weight"], params["conv.bias"], padding=(1, 1)))
        x = nn.flatten(nn.avg_pool2d(x, (2, 2)))
        hidden = tanh(nn.linear(x, params["hidden.weight"], params["hidden.bias"]))
        return nn.linear(hidden, params["out.weight"], params["out.bias"])


@dataclass(frozen=True)
class OfASeries(Smooth):
    """The same of what is no image, and has no bounds."""

    input_shape: tuple[int, int, int] = (1, 1, 64)


@pytest.mark.parametrize("model", [Smooth(), OfASeries()])
def test_numbers_beyond_those_of_pixels_are_found(model: Pooled) -> None:
    rng = np.random.default_rng(3)
    params = init.draw(model.shapes, rng, "default", dtype="float32")
    images = np.where(rng.random((2, 1, 8, 8)) < 0.3, 2.8, -0.42)
    client, truth = share(model, params, images, [0, 1], dtype="float32")
    assert max(truth.judge(attack(client, method="records")).mse) < 1e-9

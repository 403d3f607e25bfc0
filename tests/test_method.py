"""The method that suits a client, and the one that takes a batch apart record by record."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinyleak import attack, data, nn, simulate
from tinyleak.analytic import label_search
from tinyleak.attacks import Attacker, Settings, first_layer, problem_of
from tinyleak.attacks.method import one_label_each
from tinyleak.client import Client, Fact, LocalSteps, share, worked_out
from tinyleak.client.loss import Loss
from tinyleak.nn.model import parameter_gradients
from tinyleak.nn.models.as_trained import as_trained
from tinyleak.tensor import Tensor

GLYPHS = data.load("glyphs")
MLP, LENET = nn.MLP((1, 28, 28), 10, "tanh", (60,)), nn.LeNet()
AUTO = Attacker(method="auto")


def client_of(model, count: int, **how):
    images, labels = GLYPHS.batch(list(range(20, 20 + count)))
    return simulate(model, images, labels, **how)


@pytest.mark.parametrize(
    ("model", "count", "attacker", "method"),
    [
        (MLP, 1, AUTO, "lbfgs"),
        (MLP, 2, AUTO, "records"),
        (MLP, 30, AUTO, "records"),
        (MLP, 40, AUTO, "lbfgs"),
        (LENET, 2, AUTO, "levenberg-marquardt"),
        (LENET, 10, AUTO, "lbfgs"),
        (MLP, 2, replace(AUTO, restarts=2), "lbfgs"),
        (MLP, 2, replace(AUTO, settings=Settings(direction=True)), "lbfgs"),
        (MLP, 2, replace(AUTO, start=np.zeros((2, 1, 28, 28))), "lbfgs"),
        (MLP, 2, Attacker(), "lbfgs"),
    ],
)
def test_the_method_is_chosen_by_what_the_gradient_shows(model, count, attacker, method) -> None:
    client, _ = client_of(model, count)
    problem = problem_of(client, attacker)
    assert problem.attacker.method == method
    told = problem.client.facts.get("method")
    too_many = (model, count) == (MLP, 40)
    assert (told is None) is (method == "lbfgs" and not too_many)
    assert told is None or (told.value, told.source) == (method, "read off")
    assert not too_many or "its 60 outputs tell 30 records apart at most" in told.detail


def test_a_batch_whose_last_layer_was_not_sent_is_attacked_by_lbfgs() -> None:
    client, _ = client_of(LENET, 2)
    unsent = replace(client, frozen=("fc.0.weight",))
    assert problem_of(unsent, AUTO).attacker.method == "lbfgs"


def test_features_that_rounding_hides_are_matched_first_and_then_squared() -> None:
    images, labels = GLYPHS.batch([20, 21, 22, 23])
    client, _ = simulate(LENET, images, [labels[0]] * 4, dtype="float32", init="default")
    problem = problem_of(client, AUTO)
    assert problem.attacker.method == "lbfgs+levenberg-marquardt"
    assert "rounding hides" in problem.client.facts["method"].detail
    noisy = {n: g + 1e-4 * np.abs(g).max() for n, g in client.gradients.items()}
    assert problem_of(replace(client, gradients=noisy), AUTO).attacker.method == "lbfgs"


@pytest.mark.parametrize("labels", [None, "trusted", "infer"])
def test_labels_that_the_gradient_tells_count_however_they_are_asked_for(labels) -> None:
    """The command asks for trusted ones of a client's files."""
    images, _ = GLYPHS.batch([20, 21, 22])
    client, _ = simulate(LENET, images, [1, 1, 5], dtype="float32", init="default")
    problem = problem_of(client, replace(AUTO, labels=labels))
    assert problem.attacker.method == "levenberg-marquardt"
    assert "whose label no other has" in problem.client.facts["method"].detail


@pytest.mark.parametrize(("weight", "method"), [(1.0, "levenberg-marquardt"), (0.6, "lbfgs")])
def test_mixed_labels_are_searched_for_by_lbfgs(weight, method, monkeypatch) -> None:
    """Least squares with labels that are free, of which none is one class, does not end."""
    monkeypatch.setattr(label_search, "ALTOGETHER", 0.0)  # which takes the longest
    images, labels = GLYPHS.batch([20, 21])
    params, hard = LENET.init(np.random.default_rng(0), "uniform"), nn.one_hot(labels, 10)
    soft = weight * hard + (1.0 - weight) * np.roll(hard, 4, axis=1)
    leaves = {name: Tensor(one) for name, one in params.items()}
    shared = parameter_gradients(LENET, leaves, Tensor(images), Tensor(soft))
    gradients = {name: gradient.data for name, gradient in shared.items()}
    client = Client.of(LENET, params, gradients, batch=2, reduction="mean")
    problem = problem_of(client, AUTO)
    told = problem.client.facts["method"]
    assert problem.attacker.method == told.value == method
    assert ("may be mixed" in told.detail) is (method == "lbfgs")


def test_more_records_than_were_said_are_no_reason_to_stop() -> None:
    client, _ = client_of(MLP, 4, init="default")
    said = replace(client, batch=2)
    assert problem_of(said, AUTO).attacker.method == "lbfgs"
    with pytest.raises(
        ValueError, match="shows 4 records or more, but the batch was said to have 2"
    ):
        attack(said, method="records")


def test_several_local_steps_are_matched(rng) -> None:
    client, _ = client_of(MLP, 2, local=LocalSteps(2, 0.1))
    assert problem_of(client, AUTO).attacker.method == "lbfgs"


@pytest.mark.parametrize("act", ["sigmoid", "relu"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_batch_is_taken_apart(act: str, dtype: str) -> None:
    model = nn.MLP((1, 28, 28), 10, act, (60,))
    client, truth = client_of(model, 8, dtype=dtype, init="default")
    found = attack(client, method="auto")
    outcome = truth.judge(found)
    assert outcome.succeeded
    assert outcome.mse.max() < (1e-8 if dtype == "float64" else 1e-6)
    assert found.reason == "converged"
    assert found.distance < 1e-11


def test_a_network_whose_first_layer_is_none_is_refused() -> None:
    client, _ = client_of(LENET, 2)
    with pytest.raises(ValueError, match="network whose first linear layer has .* LeNet"):
        attack(client, method="records")


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_a_loss_read_off_roughly_is_told_by_the_features_that_it_leads_to(factor: float) -> None:
    client, _ = client_of(LENET, 4, dtype="float32")
    rough = Loss(0.75 * factor, False, Fact("about", "read off", ""))
    shared = {name: gradient / 0.75 for name, gradient in client.gradients.items()}
    problem = problem_of(Client(LENET, client.params, shared, 4, rough, "float32"), AUTO)
    assert problem.client.loss.exact
    assert problem.client.loss.factor == factor
    assert problem.attacker.method == "levenberg-marquardt"
    for name, gradient in problem.client.gradients.items():
        np.testing.assert_allclose(gradient, client.gradients[name], rtol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_batch_of_a_squared_error_comes_apart_too(activation) -> None:
    """Under a ReLU δ is m ∘ Wᵀ e, and of a squared error e does not add up to zero."""
    model = replace(MLP, activation=activation)
    plain, truth = client_of(model, 4, init="default")
    trained = as_trained(model, "mse")
    gradients = share(trained, plain.params, truth.images, truth.labels)[0].gradients
    client = Client.of(model, plain.params, gradients, batch=4, loss="mse", reduction="mean")
    found = attack(client, method="auto")
    assert truth.judge(found).succeeded and all(client.explain(found).certified or ())


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_targets_that_are_no_labels_are_matched(loss: str) -> None:
    """Records have one label each; the targets of a squared error may be any numbers."""
    model, rng = nn.MLP((1, 6, 6), 5, "sigmoid", (60,)), np.random.default_rng(1)
    images, targets = rng.random((3, 1, 6, 6)), rng.random((3, 5))
    trained = as_trained(model, loss)
    params = model.init(rng, "default")
    leaves = {name: Tensor(one) for name, one in params.items()}
    aims = Tensor(targets if loss == "mse" else np.array([[1, 1, 0, 1, 0]] * 3, float))
    shared = parameter_gradients(trained, leaves, Tensor(images), aims)
    gradients = {name: gradient.data for name, gradient in shared.items()}
    client = Client.of(model, params, gradients, batch=3, loss=loss, reduction="mean")
    problem = problem_of(client, Attacker(method="auto", settings=Settings(iterations=2000)))
    assert problem.attacker.method == "lbfgs"
    assert client.explain(attack(problem)).verdict == "exact"


def test_records_are_not_searched_for_twice(monkeypatch) -> None:
    """Where labels were not told by records, the method is chosen without another search."""
    calls, search = [], label_search.find_records

    def counted(*args, **known):
        calls.append(known)
        return search(*args, **known)

    monkeypatch.setattr(label_search, "find_records", counted)
    monkeypatch.setattr(label_search, "ALONE", 0.0)
    monkeypatch.setattr(label_search, "ALTOGETHER", 0.0)
    params = {name: 8.0 * one for name, one in LENET.init(np.random.default_rng(5)).items()}
    client, _ = share(LENET, params, GLYPHS.batch([20, 21, 22])[0], [1, 1, 3])
    assert not client.labels.trusted
    problem_of(client, AUTO)
    assert len(calls) == 1


def counted(monkeypatch, module, name: str) -> list[str]:
    """Return a list that grows with each call of a function."""
    calls, function = [], getattr(module, name)

    def count(*args, **known):
        calls.append(name)
        return function(*args, **known)

    monkeypatch.setattr(module, name, count)
    return calls


def test_labels_are_searched_for_once_by_the_attack_and_by_the_advice_on_it(monkeypatch) -> None:
    """Also where they are what tells the loss's factor, and where they are sought in vain."""
    client, _ = client_of(LENET, 4, dtype="float32")
    rough = Loss(0.75, False, Fact("about", "read off", ""))
    shared = {name: gradient / 0.75 for name, gradient in client.gradients.items()}
    soft = {name: gradient * (1.0 + 1e-3 * (gradient > 0)) for name, gradient in shared.items()}
    calls = counted(monkeypatch, worked_out, "search_labels")
    monkeypatch.setattr(label_search, "ALTOGETHER", 0.0)
    for gradients, told in ((shared, True), (soft, False)):
        monkeypatch.setattr(label_search, "ALONE", 10.0 if told else 0.0)
        calls.clear()
        problem = problem_of(Client(LENET, client.params, gradients, 4, rough, "float32"), AUTO)
        assert problem.client.loss.exact is told
        tried = len(calls)
        assert one_label_each(problem.client) is not False or not told
        assert len(calls) == tried > 0


def test_records_of_another_loss_are_searched_for_once(monkeypatch) -> None:
    plain, truth = client_of(MLP, 4, init="default")
    gradients = share(as_trained(MLP, "mse"), plain.params, truth.images, truth.labels)[0].gradients
    client = Client.of(MLP, plain.params, gradients, batch=4, loss="mse", reduction="mean")
    calls = counted(monkeypatch, first_layer, "find_records")
    found = attack(client, method="auto")
    assert calls == ["find_records"] and truth.judge(found).succeeded

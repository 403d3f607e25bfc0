"""What a failed attack names as likely causes, and that every command it advises can be run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run

from tinyleak import nn, ops
from tinyleak.attacks import Attacker, Settings, attack, problem_of
from tinyleak.attacks.advice import likely_causes
from tinyleak.attacks.method import one_label_each
from tinyleak.client import Client, LocalSteps, share, simulate
from tinyleak.defenses import parse
from tinyleak.gradient import grad
from tinyleak.nn import MLP, LeNet, init
from tinyleak.nn.losses import cross_entropy
from tinyleak.nn.models.as_trained import AsTrained
from tinyleak.tensor import Tensor

COMMAND = ()
NETWORK = MLP((1, 8, 8), 10, "tanh", (40, 20))
Gradients = Mapping[str, Any]
Change = Callable[[Gradients, Gradients, np.random.Generator], Gradients]


def noisy(g: Gradients, w: Gradients, rng: np.random.Generator) -> Gradients:
    return {k: v + 1e-2 * rng.standard_normal(v.shape) for k, v in g.items()}


def decayed(g: Gradients, w: Gradients, rng: np.random.Generator) -> Gradients:
    return {k: v + 1e-2 * w[k] for k, v in g.items()}


def pruned(g: Gradients, w: Gradients, rng: np.random.Generator) -> Gradients:
    return parse("prune:0.8")(g, rng)


def signs(g: Gradients, w: Gradients, rng: np.random.Generator) -> Gradients:
    return {k: v / (np.abs(v) + 1e-8) for k, v in g.items()}


def as_it_is(g: Gradients, w: Gradients, rng: np.random.Generator) -> Gradients:
    return g


SITUATIONS: dict[str, tuple[Any, int, Change]] = {
    "noise": (NETWORK, 1, noisy),
    "weight decay": (NETWORK, 1, decayed),
    "pruning": (NETWORK, 1, pruned),
    "rounding": (NETWORK, 1, signs),
    "loss": (AsTrained(NETWORK, "bce"), 1, as_it_is),
    "normalisation": (AsTrained(NETWORK, mean=(0.1307,), std=(0.3081,)), 1, as_it_is),
    "batch size": (NETWORK, 3, as_it_is),
    "kinks": (LeNet((1, 8, 8), 10, "relu", hidden=4), 1, as_it_is),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_cause_is_named_and_what_is_advised_can_be_run(
    name: str, tmp_path: Path, run: Run
) -> None:
    model, images, change = SITUATIONS[name]
    rng = np.random.default_rng(0)
    params = {k: v.astype(np.float32) for k, v in NETWORK.init(rng, "default").items()}
    if name == "kinks":
        params = {k: v.astype(np.float32) for k, v in model.init(rng, "default").items()}
    client, _ = share(model, params, rng.random((images, 1, 8, 8)), range(images), dtype="float32")
    np.savez(tmp_path / "w.npz", **params)
    shared = change(client.gradients, client.params, rng)
    np.savez(tmp_path / "g.npz", **{k: np.asarray(v, np.float32) for k, v in shared.items()})
    arguments = ["--weights", tmp_path / "w.npz", "--gradients", tmp_path / "g.npz"]
    arguments += ["--shape", "1,8,8", "--iterations", 2, "--start", "noise", "--quiet"]
    arguments += ["--model", "lenet" if name == "kinks" else "mlp"]
    answer = run("attack", *arguments, "--out", tmp_path / "out")
    assert answer.code in (0, 1), answer.err
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    causes = {cause["name"]: cause for cause in result["causes"]}
    assert name in causes
    if name not in ("kinks", "rounding"):
        assert causes[name]["sure"], causes[name]
    for cause in causes.values():
        if cause["advice"]:
            more = cause["advice"].split()
            assert run("attack", *arguments, *more).code in (0, 1), cause


def test_where_kinks_stopped_a_search_another_kind_is_advised_and_then_another_start() -> None:
    client, _ = simulate(LeNet((1, 8, 8), 10, "relu", hidden=4), np.full((1, 1, 8, 8), 0.3), [1])
    for start, advice in (("noise", "--start features"), ("features", "--seed 1")):
        problem = problem_of(client, Attacker(start=start, settings=Settings(iterations=2)))  # type: ignore[arg-type]
        found = attack(problem)
        outcome = replace(client.explain(found), verdict="not explained")
        assert advice in [cause.advice for cause in likely_causes(problem, found, outcome)]


@dataclass(frozen=True)
class Convolution:
    """A network without linear layers: one convolution, ReLU, and the mean of each channel."""

    image_shape: tuple[int, int, int] = (1, 6, 6)
    classes: int = 3
    activation: str = "relu"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"conv.weight": (3, 1, 3, 3), "conv.bias": (3,)}

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        values = ops.relu(nn.conv2d(x, params["conv.weight"], params["conv.bias"]))
        return ops.mean(ops.reshape(values, (*values.shape[:-2], -1)), axes=-1)


def test_features_are_not_advised_where_no_layer_shows_any(rng: np.random.Generator) -> None:
    model = Convolution()
    client, _ = share(model, init.draw(model.shapes, rng), rng.random((1, 1, 6, 6)), [1])
    problem = problem_of(client, Attacker(settings=Settings(iterations=2)))
    found = attack(problem)
    outcome = replace(client.explain(found), verdict="not explained")
    kinks = next(c for c in likely_causes(problem, found, outcome) if c.name == "kinks")
    assert "features" not in kinks.text + kinks.advice


@pytest.mark.parametrize("start", ["noise", "features"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_what_was_interrupted_is_told_nothing_but_that_and_what_is_sure(
    activation: str, start: Any
) -> None:
    model = LeNet((1, 8, 8), 10, activation, hidden=4)
    client, _ = simulate(model, np.random.default_rng(0).random((1, 1, 8, 8)), [1])
    problem = problem_of(client, Attacker(start=start, settings=Settings(iterations=2)))
    found = replace(attack(problem), reason="interrupted")
    outcome = replace(client.explain(found), verdict="not explained")
    causes = likely_causes(problem, found, outcome)
    assert causes[0].name == "iterations"
    assert {cause.advice for cause in causes} == {""}


def test_nothing_is_advised_that_cannot_be_combined() -> None:
    """After local steps, or where a direction is matched, least squares is none of the ways."""
    images = np.random.default_rng(0).random((2, 1, 8, 8))
    for local, direction in ((LocalSteps(2, 0.1), False), (None, True)):
        client, _ = simulate(NETWORK, images, [1, 2], local=local)
        settings = Settings(iterations=2, direction=direction)
        problem = problem_of(client, Attacker(settings=settings))
        found = attack(problem)
        causes = likely_causes(problem, found, client.explain(found))
        advice = " ".join(cause.advice for cause in causes)
        assert "levenberg" not in advice
        assert "--restarts 8" in advice


def test_a_clean_gradient_has_nothing_against_it() -> None:
    for model in (NETWORK, LeNet((1, 8, 8))):
        for dtype in ("float32", "float64"):
            client, _ = simulate(model, np.full((1, 1, 8, 8), 0.3), [1], dtype=dtype)
            assert client.premises.causes == ()


def test_what_an_attacker_was_given_is_listed(tmp_path: Path, run: Run) -> None:
    assert run("victim", "--out", tmp_path / "made", "--quiet").code == 0
    files = ["--weights", tmp_path / "made" / "weights.safetensors"]
    files += ["--gradients", tmp_path / "made" / "gradients.safetensors"]
    answer = run("attack", *files, "--iterations", 1, "--out", tmp_path / "out")
    said = " ".join(answer.out.split())
    assert "knows said: weights, architecture" in said
    for command, name in (("attack", "result.json"), ("audit", "audit.json")):
        if command == "audit":
            run("audit", *files, "--examples", 1, "--quiet", "--out", tmp_path / "audit")
        folder = "out" if command == "attack" else "audit"
        known = json.loads((tmp_path / folder / name).read_text(encoding="utf-8"))["knows"]
        assert set(known) == {
            *("weights", "architecture", "activation", "batch_size", "labels", "loss"),
            *("steps", "pixels", "defences"),
        }
        assert {one["source"] for one in known.values()} <= {"said", "read off", "assumed"}
        assert known["batch_size"]["value"] == 1


def test_labels_are_advised_only_where_they_can_be_inferred() -> None:
    """Of a batch the last layer's gradient tells the labels of the cross-entropy alone."""
    images = np.random.default_rng(0).random((2, 1, 8, 8))
    for model, options in (
        (NETWORK, "--labels infer --method lbfgs+levenberg-marquardt"),
        (AsTrained(NETWORK, "bce"), "--method lbfgs+levenberg-marquardt"),
    ):
        client, _ = simulate(model, images, [1, 2])
        problem = problem_of(client, Attacker(settings=Settings(iterations=2)))
        found = attack(problem)
        causes = likely_causes(problem, found, client.explain(found))
        assert options in [cause.advice for cause in causes]
    with pytest.raises(ValueError, match="gradient, which is that of bce of a batch"):
        problem_of(client, Attacker(labels="infer"))


def test_soft_labels_are_no_cause_where_labels_are_searched_for() -> None:
    images = np.random.default_rng(0).random((2, 1, 8, 8))
    client, _ = simulate(NETWORK, images, [1, 2])
    client = replace(client, loss=replace(client.loss, exact=False))
    for labels, named in ((None, False), ([1, 2], True)):
        problem = problem_of(client, Attacker(labels=labels, settings=Settings(iterations=2)))
        found = attack(problem)
        causes = likely_causes(problem, found, client.explain(found))
        assert ("soft labels" in [cause.name for cause in causes]) == named


def test_a_defence_that_was_named_is_not_advised_to_be_applied_again(
    tmp_path: Path, run: Run
) -> None:
    start = ["attack", "--defense", "gaussian:1e-2", "--iterations", 1, "--quiet"]
    for more, advice in (([], "--aware"), (["--aware"], "")):
        run(*start, *more, "--out", tmp_path / f"out{advice}")
        result = json.loads((tmp_path / f"out{advice}" / "result.json").read_text("utf-8"))
        assert {c["name"]: c["advice"] for c in result["causes"]}["noise"] == advice


def test_what_is_accounted_for_is_named_last_and_not_advised() -> None:
    """To say what was read off already would be the same attack once more."""
    images = np.random.default_rng(0).random((1, 1, 8, 8))
    usual = ((0.1307,), (0.3081,))
    for name, model, said in (
        ("loss", AsTrained(NETWORK, "bce"), {}),
        ("normalisation", AsTrained(NETWORK, "cross-entropy", *usual), {"normalize": usual}),
    ):
        made, _ = simulate(model, images, [3])
        other = "cross-entropy" if name == "loss" else "bce"
        for known in (said, {"loss": other, "normalize": ((0.5,), (0.5,))}):
            client = Client.of(NETWORK, made.params, made.gradients, **known)
            attacker = Attacker(start="noise", settings=Settings(iterations=1))
            problem = problem_of(client, attacker)
            found = attack(problem)
            causes = likely_causes(problem, found, client.explain(found))
            if known is said:
                assert (causes[-1].name, causes[-1].advice) == (name, "")
            else:
                assert causes[0].name == "loss"


@pytest.mark.parametrize("soft", [False, True])
def test_a_batch_whose_labels_are_soft_has_no_images_with_one_label_each(soft: bool) -> None:
    model, rng = LeNet((1, 8, 8), 10, "sigmoid", hidden=4), np.random.default_rng(0)
    params, images = model.init(rng, "default"), Tensor(rng.random((2, 1, 8, 8)))
    targets = np.eye(10)[[2, 5]] * (0.8 if soft else 1.0) + (0.02 if soft else 0.0)
    weights = {name: Tensor(array) for name, array in params.items()}
    loss = cross_entropy(model(weights, images), Tensor(targets))
    gradients = {name: one.data for name, one in grad(loss, weights).items()}
    assert one_label_each(Client.of(model, params, gradients, batch=2)) == (not soft)


def test_fewer_images_than_were_said_are_counted() -> None:
    model, rng = MLP((1, 8, 8), 10, "relu", (40,)), np.random.default_rng(0)
    client, _ = simulate(model, rng.random((3, 1, 8, 8)), [1, 2, 3], init="default")
    for said in (5, 31):  # 30 images might be each of the 3 ten times
        wrong = Client.of(model, client.params, client.gradients, batch=said)
        problem = problem_of(wrong, Attacker(method="auto", settings=Settings(iterations=3)))
        found = attack(problem)
        causes = likely_causes(problem, found, wrong.explain(found))
        named = {cause.advice: cause.text for cause in causes}
        assert f"shows 3 different images; {said} were said" in named["--batch 3"]


def test_weights_may_be_others_where_no_loss_explains_one_image() -> None:
    model, rng = MLP((1, 8, 8), 4, "tanh", (40,)), np.random.default_rng(0)
    made, _ = simulate(AsTrained(model, "mse"), rng.random((1, 1, 8, 8)), [2], init="default")
    targets = {"2.bias": made.gradients["2.bias"] + 0.3}  # no loss of the library makes it
    others = {
        name: array + 0.1 * rng.standard_normal(array.shape) for name, array in made.params.items()
    }
    client = Client.of(model, others, made.gradients | targets)
    problem = problem_of(client, Attacker(settings=Settings(iterations=3)))
    found = attack(problem)
    causes = likely_causes(problem, found, client.explain(found))
    assert "stale weights" in [cause.name for cause in causes[:2]]


def changed_by(images: int, batch: int | None, count: int) -> Client:
    """Return a client that took steps of SGD, as an attacker who was not told of them takes it."""
    model, rng = MLP((1, 8, 8), 10, "tanh", (40, 20)), np.random.default_rng(0)
    params, pixels = model.init(rng, "default"), rng.random((images, 1, 8, 8))
    local = LocalSteps(count, 0.1, batch)
    client, _ = share(model, params, pixels, range(images), local=local)
    rounding = {name: np.full(g.shape, 1e-30) for name, g in client.gradients.items()}
    told = {"batch": images, "update": True, "rounding": rounding}
    return Client.of(model, client.params, client.gradients, **told)


@pytest.mark.parametrize(("images", "batch", "count"), [(1, None, 5), (4, 1, 4)])
def test_steps_that_were_not_said_are_taken_for_no_other_batch(
    images: int, batch: int | None, count: int
) -> None:
    client = changed_by(images, batch, count)
    problem = problem_of(client, Attacker(method="lbfgs", settings=Settings(iterations=2)))
    found = attack(problem)
    outcome = replace(client.explain(found), verdict="not explained")
    causes = likely_causes(problem, found, outcome)
    assert causes[sum(cause.sure for cause in causes)].name == "local steps"
    assert not any(c.name == "batch size" and (c.sure or c.advice) for c in causes)


def test_pixels_beyond_their_range_may_come_from_steps_that_were_not_said() -> None:
    client = changed_by(1, None, 2)
    problem = problem_of(client, Attacker(settings=Settings(iterations=2)))
    found = replace(attack(problem), images=np.linspace(-3, 3, 64).reshape(1, 1, 8, 8))
    outcome = replace(client.explain(found), verdict="not explained", distance=0.01)
    causes = {cause.name: cause.advice for cause in likely_causes(problem, found, outcome)}
    assert causes["normalisation"] == ""

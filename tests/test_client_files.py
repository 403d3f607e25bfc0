"""A client from its files: what is said, read off and assumed, and that its images come back."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_client import error, save_step, save_training

from tinyleak.attacks import Settings, attack
from tinyleak.client import Client, LocalSteps, simulate, write_client
from tinyleak.nn import MLP, LeNet

cross_entropy = torch.nn.functional.cross_entropy
SMALL = {"shape": (1, 16, 16)}
BATCH = {**SMALL, "batch": 2}


def client(folder: Path, ending: str = "safetensors", **said: Any) -> Client:
    return Client.from_files(folder / f"w.{ending}", folder / f"g.{ending}", **said)


def trained(folder: Path, **said: Any) -> Client:
    after = folder / "after.safetensors"
    network = {"model": "mlp", "shape": (1, 10, 10), "batch": 2}
    return Client.from_files(
        folder / "before.safetensors", weights_after=after, **{**network, **said}
    )


# Images come back


@pytest.mark.parametrize(
    ("steps", "ending"),
    [
        (50, "npz"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in ((0, "safetensors"), (0, "npz"), (50, "safetensors"))
        ),
    ],
)
def test_a_digit_comes_back(tmp_path: Path, ending: str, steps: int) -> None:
    truth = save_step(tmp_path, [3], steps=steps, ending=ending)
    known = client(tmp_path, ending)
    found = attack(known, labels="trusted")
    outcome = known.explain(found)
    assert outcome.succeeded
    assert outcome.distance < outcome.tolerance < 1e-11
    assert found.labels.tolist() == [3]
    assert error(found, truth) < 1e-6
    assert str(known.loss.fact) == "as it is, read off (the last layer's gradient)"


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("steps", [0, 50])
@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_a_batch_of_four_digits_comes_back(
    tmp_path: Path, reduction: str, steps: int, ending: str
) -> None:
    loss = torch.nn.CrossEntropyLoss(reduction=reduction)
    truth = save_step(tmp_path, [3, 4, 5, 6], steps=steps, loss=loss, ending=ending)
    known = client(tmp_path, ending, batch=4)
    found = attack(known, labels="trusted")
    assert known.explain(found).succeeded
    assert error(found, truth) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 50])
@pytest.mark.parametrize("image", range(10))
def test_any_digit_comes_back(tmp_path: Path, image: int, steps: int) -> None:
    truth = save_step(tmp_path, [image], steps=steps)
    known = client(tmp_path)
    found = attack(known, labels="trusted")
    assert known.explain(found).succeeded
    assert error(found, truth) < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "paper"])
def test_an_attack_in_float32_is_judged_by_what_float32_can(tmp_path: Path, dtype: str) -> None:
    truth = save_step(tmp_path, [3], size=16)
    known = client(tmp_path, **SMALL)
    settings = Settings.paper() if dtype == "paper" else Settings(dtype=dtype)
    found = attack(known, labels="trusted", settings=settings)
    outcome = known.explain(found, dtype=settings.dtype)
    assert outcome.succeeded == (error(found, truth) < 1e-5)


def test_what_is_no_image_at_all_explains_nothing(tmp_path: Path) -> None:
    save_step(tmp_path, [3], size=16)
    known = client(tmp_path, **SMALL)
    found = attack(known, settings=Settings(iterations=0))
    for pixel in (np.nan, 1e300):
        lost = replace(found, images=np.full_like(found.images, pixel))
        assert not known.explain(lost).succeeded
        inexact = replace(known, loss=replace(known.loss, exact=False))
        assert not inexact.explain(lost).succeeded


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_what_is_written_is_read_again(tmp_path: Path, ending: str) -> None:
    model = MLP((1, 6, 6), 4, "tanh", (8,))
    images = np.random.default_rng(0).random((2, 1, 6, 6))
    made, truth = simulate(model, images, [1, 3])
    files = write_client(tmp_path, made, truth, ending=ending, reduction="sum")
    assert [path.name for path in files] == [f"weights.{ending}", f"gradients.{ending}"]
    read = Client.from_files(*files)
    assert (read.model, read.batch, read.loss.factor, read.dtype) == (model, 2, 2, "float64")
    for name, gradient in made.gradients.items():
        np.testing.assert_allclose(read.gradients[name], gradient, rtol=1e-12)
    kept = np.load(tmp_path / "truth.npz")
    np.testing.assert_array_equal(kept["images"], images)
    assert kept["labels"].tolist() == [1, 3]
    with pytest.raises(ValueError, match="reduction 'none' was given; choose mean or sum"):
        write_client(tmp_path, made, reduction="none")


# The loss


def test_a_small_batch_comes_back_with_its_loss_added_up(tmp_path: Path) -> None:
    loss = torch.nn.CrossEntropyLoss(reduction="sum")
    truth = save_step(tmp_path, [3, 5], size=16, steps=50, loss=loss)
    known = client(tmp_path, **BATCH)
    assert known.loss.factor == 2
    assert str(known.loss.fact) == "a sum over the batch, read off (the last layer's gradient)"
    found = attack(known, labels="trusted")
    assert known.explain(found).succeeded
    assert error(found, truth) < 1e-6


@pytest.mark.parametrize(("factor", "said"), [(0.3, "0.3 times"), (-0.01, "-0.01 times")])
def test_a_factor_on_the_loss_of_one_image_is_read_off(
    tmp_path: Path, factor: float, said: str
) -> None:
    truth = save_step(tmp_path, [4], size=16, loss=lambda z, y: factor * cross_entropy(z, y))
    known = client(tmp_path, **SMALL)
    assert said in str(known.loss.fact)
    assert known.loss.factor == pytest.approx(factor, rel=1e-5)
    found = attack(known, labels="trusted")
    assert known.explain(found).succeeded
    assert error(found, truth) < 1e-6


def test_an_odd_factor_on_the_loss_of_a_batch_is_found_with_the_images(tmp_path: Path) -> None:
    truth = save_step(tmp_path, [3, 5], size=16, loss=lambda z, y: 0.4 * cross_entropy(z, y))
    known = client(tmp_path, **BATCH)
    assert "about 0.4 times the mean" in str(known.loss.fact)
    assert not known.loss.exact
    found = attack(known, labels="trusted")
    outcome = known.explain(found)
    assert outcome.succeeded
    assert outcome.factor == pytest.approx(0.4, rel=1e-5)
    assert error(found, truth) < 1e-6


# Notes and names


def test_notes_beside_the_files_say_what_they_do_not(tmp_path: Path) -> None:
    save_step(tmp_path, [3, 5], size=16, ending="npz")
    (tmp_path / "w.json").write_text('{"model": "lenet", "shape": [1, 16, 16]}')
    (tmp_path / "g.json").write_text('{"batch": 2, "reduction": "mean", "by": "somebody"}')
    known = client(tmp_path, "npz")
    assert (known.batch, known.model.image_shape) == (2, (1, 16, 16))
    assert str(known.loss.fact) == "a mean over the batch, said"
    assert str(known.facts["notes"]) == (
        "model lenet, shape 1,16,16, batch 2, reduction mean, said (by the notes about the files)"
    )
    assert client(tmp_path, "npz", batch=1).batch == 1, "what is said here goes before them"


def test_an_activation_is_said_read_off_or_assumed(tmp_path: Path) -> None:
    save_step(tmp_path, [3], size=16, ending="npz")
    fact = client(tmp_path, "npz", **SMALL).facts["activation"]
    assert str(fact) == "sigmoid, read off (no other makes such features and gradients)"
    (tmp_path / "g.json").write_text('{"activation": "tanh", "shape": "1,16,16"}')
    noted = client(tmp_path, "npz")
    assert noted.model.activation == "tanh"
    assert "activation" not in noted.facts
    assert client(tmp_path, "npz", activation="sigmoid").model.activation == "sigmoid"
    save_training(tmp_path, 1)
    told = trained(tmp_path, learning_rate=0.1).facts["activation"]
    assert str(told).startswith("tanh, assumed (one of tanh, ")  # a batch mixes what would tell


def test_several_steps_only_make_an_activation_likely(tmp_path: Path) -> None:
    """The mean of their gradients is none, whatever fits it."""
    images = np.random.default_rng(0).random((1, 1, 8, 8))
    for activation in ("softplus", "tanh"):
        for count in (1, 3):
            model, steps = LeNet((1, 8, 8), 10, activation, hidden=4), LocalSteps(count, 0.1)
            made, _ = simulate(model, images, [3], local=steps, dtype="float32", init="default")
            before, after = write_client(tmp_path, made, steps=steps, ending="npz")
            before.with_suffix(".json").write_text('{"model": "lenet", "shape": "1,8,8"}')
            told = Client.from_files(before, weights_after=after).facts["activation"]
            assert told.source == ("read off" if count == 1 else "assumed"), told
            assert count > 1 or told.value == activation


def test_what_nobody_said_is_not_said(tmp_path: Path) -> None:
    bce = torch.nn.BCEWithLogitsLoss()

    def loss(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return bce(z, torch.nn.functional.one_hot(y, 10).to(z))

    save_step(tmp_path, [3], size=16, loss=loss)
    for said, expected in (
        ({}, "bce, as it is, read off (the last layer's gradient)"),
        ({"loss": "bce"}, "bce (said), as it is, read off (the last layer's gradient)"),
        ({"reduction": "mean"}, "bce (read off), a mean over the batch, said"),
        ({"loss": "bce", "reduction": "mean"}, "bce, a mean over the batch, said"),
    ):
        known = client(tmp_path, **SMALL, **said)
        assert str(known.loss.fact) == expected
        assert known.facts["batch"].source == "read off"
    assert "batch" not in client(tmp_path, **SMALL, batch=1).facts


def test_names_are_settled_by_a_rename(tmp_path: Path) -> None:
    save_step(tmp_path, [3], size=16, ending="npz")
    for name in ("w.npz", "g.npz"):
        arrays = dict(np.load(tmp_path / name))
        arrays |= {f"deep.{part}": arrays.pop(f"conv3.{part}") for part in ("weight", "bias")}
        np.savez(tmp_path / name, **arrays)
    with pytest.raises(ValueError, match="--rename from=to") as refusal:
        client(tmp_path, "npz", **SMALL)
    assert re.search(r"the file has +the model expects", "\n".join(refusal.value.__notes__))
    known = client(tmp_path, "npz", **SMALL, rename={"conv2": "body.2", "deep": "body.4"})
    expected = np.load(tmp_path / "g.npz")["deep.weight"]
    np.testing.assert_allclose(known.gradients["body.4.weight"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ('{"batch": "many"}', "say batch 'many': 'many' was given; a whole number of 1 or more"),
        ('{"batch": 0}', "a whole number of 1 or more is needed"),
        ('{"activation": "swish"}', "say activation 'swish': choose from sigmoid, tanh"),
        ('{"reduction": "none"}', "say reduction 'none': choose from mean, sum"),
        ('{"model": "vgg"}', "say model 'vgg': choose from lenet, mlp"),
        ('{"shape": [28]}', "say shape '28': '28' was given; write a shape as C,H,W"),
        ('{"strides": [2, -1]}', "say strides '2,-1': '-1' was given"),
    ],
)
def test_notes_that_cannot_be_are_refused(tmp_path: Path, note: str, message: str) -> None:
    save_step(tmp_path, [3], size=16, ending="npz")
    (tmp_path / "g.json").write_text(note)
    with pytest.raises(ValueError, match=message):
        client(tmp_path, "npz", **SMALL)


# Weights before and after


@pytest.mark.parametrize(
    ("steps", "reduction", "momentum"),
    [(1, "mean", 0.0), (1, "sum", 0.0), (3, "sum", 0.0), (4, "mean", 0.9)],
)
def test_pytorch_s_own_steps_are_undone(
    tmp_path: Path, steps: int, reduction: str, momentum: float
) -> None:
    truth = save_training(tmp_path, steps, reduction, momentum)
    said = {"learning_rate": 0.1, "local_steps": steps, "momentum": momentum}
    said |= {"reduction": reduction} if steps > 1 else {}
    known = trained(tmp_path, **said)
    found = attack(known, labels="trusted")
    assert known.explain(found).succeeded
    assert error(found, truth) < 1e-4
    if steps == 1:
        assert str(known.loss.fact).startswith(f"a {reduction} over the batch, read off")
    elif not momentum:
        assert str(known.facts["steps"]) == (
            "3 of plain SGD, each with the same whole batch, without momentum or decay, assumed"
        )


def test_an_attack_starts_from_what_it_reads_off_the_gradient(tmp_path: Path) -> None:
    """Layer by layer that is the images already, whatever is done after."""
    truth = save_training(tmp_path, 1)
    known = trained(tmp_path, learning_rate=0.1)
    brief = {"start": "recursion", "settings": Settings(iterations=0)}
    assert error(attack(known, labels="infer", **brief), truth) < 1e-4
    with pytest.raises(ValueError, match="for which labels must be known first"):
        attack(known, **brief)
    several = trained(tmp_path, learning_rate=0.1, local_steps=2)
    with pytest.raises(ValueError, match="--start recursion reads the gradient of one step"):
        attack(several, labels="infer", **brief)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "tell a gradient only together with the learning rate"),
        ({"learning_rate": 0.1, "local_steps": 101}, "100 at most can be unrolled"),
        ({"learning_rate": 0.1}, "so nothing can be read from them; check which file is which"),
    ],
)
def test_weights_after_that_say_nothing(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    save_training(tmp_path, 0)
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, **said)


def test_epochs_that_are_said_take_the_place_of_steps_that_are_noted(tmp_path: Path) -> None:
    save_training(tmp_path, 3)
    (tmp_path / "after.json").write_text('{"learning_rate": 0.1, "local_steps": 2, "batch": 2}')
    for said, count in (({}, 2), ({"local_steps": 3}, 3), ({"epochs": 3, "local_batch": 1}, 6)):
        known = Client.from_files(
            tmp_path / "before.safetensors",
            weights_after=tmp_path / "after.safetensors",
            shape=(1, 10, 10),
            model="mlp",
            **said,
        )
        assert known.steps == count


def test_a_gradient_or_weights_after_and_not_both_or_neither(tmp_path: Path) -> None:
    save_training(tmp_path, 1)
    for given in ({}, {"gradients": tmp_path / "g", "weights_after": tmp_path / "a"}):
        with pytest.raises(ValueError, match="give either its gradient with --gradients, or its"):
            Client.from_files(tmp_path / "before.safetensors", **given)
    save_step(tmp_path, [3], size=16)
    with pytest.raises(ValueError, match="--learning-rate speaks of steps between weights"):
        client(tmp_path, **SMALL, learning_rate=0.1)
    with pytest.raises(TypeError, match="colour"):
        client(tmp_path, colour="grey")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"batch": 0}, "batch '0': '0' was given; a whole number of 1 or more"),
        ({"batch": 1.5}, "batch '1.5'"),
        ({"shape": (1, 28)}, "write a shape as C,H,W"),
        ({"learning_rate": -0.1}, "a learning rate is a finite number above 0"),
        ({"local_steps": True}, "local_steps 'True'"),
        ({"momentum": 1}, r"momentum '1': '1' was given; a momentum is a number in \[0, 1\)"),
        ({"epochs": 0}, "epochs '0': '0' was given; a whole number of 1 or more"),
        ({"local_batch": "x"}, "local_batch 'x': 'x' was given; a whole number"),
    ],
)
def test_what_is_said_is_checked_as_notes_are(said, words):
    with pytest.raises(ValueError, match=words):
        Client.from_files("weights.npz", "gradients.npz", **said)

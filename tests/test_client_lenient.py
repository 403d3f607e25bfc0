"""Files that hold more than weights and gradients, or less: used as far as they go, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Run
from pytorch_client import GLYPHS, error, save_step

from tinyleak.attacks import attack
from tinyleak.audit import audit
from tinyleak.client import Client, share
from tinyleak.nn import MLP, LeNet
from tinyleak.nn.models import model_from_shapes

Arrays = dict[str, np.ndarray]
SMALL = {"shape": (1, 16, 16)}
COMMAND = ("attack",)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "truth.npy", save_step(folder, [3], size=16, ending="npz"))
    return folder


def read(
    files: Path, folder: Path, weights: Arrays | None = None, shared: Arrays | None = None
) -> Client:
    """The client of the files with these tensors besides; None takes one away."""
    for name, more in (("w", weights), ("g", shared)):
        tensors = {**np.load(files / f"{name}.npz"), **(more or {})}
        np.savez(folder / f"{name}.npz", **{k: v for k, v in tensors.items() if v is not None})
    return Client.from_files(folder / "w.npz", folder / "g.npz", **SMALL)


def doubled(files: Path, form: str) -> Arrays:
    return {form.format(name): 0.5 * array for name, array in np.load(files / "w.npz").items()}


MORE: dict[str, tuple[Any, Any, str]] = {
    "a counter": (lambda f: {"epoch": np.array(3)}, None, "epoch"),
    "a number": (lambda f: {"lr": np.array(0.1)}, lambda f: {"loss": np.array(2.3)}, "loss, lr"),
    "a table": (lambda f: {"log": np.ones((9, 2))}, None, "log"),
    "the state of a generator": (lambda f: {"rng": np.arange(99, dtype=np.uint8)}, None, "rng"),
    "an average": (lambda f: doubled(f, "ema.{}"), None, "ema.conv1.bias, ema.conv1.weight"),
    "an optimiser": (lambda f: doubled(f, "{}.exp_avg"), None, "conv1.bias.exp_avg"),
    "another average": (lambda f: doubled(f, "shadow/{}"), None, "shadow/conv1.bias"),
}


@pytest.mark.parametrize("name", MORE)
def test_what_is_no_parameter_is_left_alone_and_said(
    files: Path, tmp_path: Path, name: str
) -> None:
    weights, shared, unused = MORE[name]
    plain = read(files, tmp_path)
    more = [None if make is None else make(files) for make in (weights, shared)]
    client = read(files, tmp_path, *more)
    assert client.model == plain.model
    for key, array in plain.params.items():
        np.testing.assert_array_equal(client.params[key], array)
        np.testing.assert_array_equal(client.gradients[key], plain.gradients[key])
    assert str(client.facts["unused"]).startswith(unused)
    assert "unused" not in plain.facts


def test_a_whole_checkpoint_is_told_by_the_names_of_the_gradient(
    files: Path, tmp_path: Path
) -> None:
    weights = dict(np.load(files / "w.npz"))
    checkpoint = {f"model.{name}": array for name, array in weights.items()}
    state = enumerate(weights.values())
    checkpoint |= {f"optimizer.state.{index}.exp_avg": 0.1 * array for index, array in state}
    np.savez(tmp_path / "w.npz", **checkpoint)
    client = Client.from_files(tmp_path / "w.npz", files / "g.npz", **SMALL)
    np.testing.assert_array_equal(client.params["fc.0.weight"], weights["fc.weight"])
    assert "optimizer.state.0.exp_avg" in str(client.facts["unused"])


@pytest.mark.parametrize(
    ("weights", "shared", "message"),
    [
        ({"conv1.bias": np.arange(12)}, None, "'conv1.bias' has dtype <i8; weights and gradients"),
        (None, {"conv1.bias": np.arange(12)}, "'conv1.bias' has dtype <i8; weights and gradients"),
        (
            {"bn.running_mean": np.ones(12), "bn.weight": np.ones(12), "bn.bias": np.ones(12)},
            {"bn.weight": np.ones(12), "bn.bias": np.ones(12)},
            r"batch normalisation \('bn.running_mean'\), and no LeNet has that; give .* net.pt2",
        ),
        (None, {"norms": np.ones(8)}, "the gradients, 9 tensors, cannot be told by name and shape"),
        (
            {"fc2.weight": np.ones((10, 10)), "fc2.bias": np.ones(10)},
            {"fc2.weight": np.ones((10, 10)), "fc2.bias": np.ones(10)},
            "2 linear layers follow .* or give any other network as --model net.pt2",
        ),
    ],
    ids=[
        "whole weights",
        "whole gradients",
        "batch normalisation",
        "more was shared",
        "another layer",
    ],
)
def test_what_is_a_parameter_is_not_left_alone(
    files: Path, tmp_path: Path, weights: Arrays, shared: Arrays, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(files, tmp_path, weights, shared)


# Frozen layers


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("layer", ["conv1", "fc"])
def test_a_layer_without_a_gradient_is_left_out(
    files: Path, tmp_path: Path, layer: str, zero: bool
) -> None:
    names = [f"{layer}.weight", f"{layer}.bias"]
    shared = {n: 0 * np.load(files / "g.npz")[n] if zero else None for n in names}
    client = read(files, tmp_path, None, shared)
    kept = {"conv1": ("body.0.weight", "body.0.bias"), "fc": ("fc.0.weight", "fc.0.bias")}[layer]
    assert client.frozen == kept
    assert str(client.facts["frozen"]) == f"{', '.join(kept)}, read off (no gradient, so left out)"
    found = attack(client, labels="trusted")
    outcome = client.explain(found)
    if layer == "conv1":
        assert outcome.succeeded
        assert error(found, np.load(files / "truth.npy")) < 1e-6
        # What it would have sent is no part of the judgement, and all else is.
        changed = {"conv2.weight": 1.1 * np.load(files / "g.npz")["conv2.weight"]}
        assert not read(files, tmp_path, None, shared | changed).explain(found).succeeded
    else:
        assert client.last_layer is None
        with pytest.raises(ValueError, match="inferred from the last layer's gradient, which was"):
            attack(client, labels="infer")
    with pytest.raises(ValueError, match="recursion goes through every layer, but some sent"):
        attack(client, labels=[3], start="recursion")


def test_a_bias_without_a_gradient_is_not_counted_as_one_of_zero(
    files: Path, tmp_path: Path
) -> None:
    client = read(files, tmp_path, None, {"fc.bias": None})
    assert client.last_layer is not None
    assert client.last_layer.bias_gradient is None
    found = attack(client, labels="trusted")
    assert error(found, np.load(files / "truth.npy")) < 1e-6


def test_a_parameter_of_pytorch_without_a_gradient_is_frozen(files: Path, tmp_path: Path) -> None:
    known = read(files, tmp_path)
    shared = dict(known.gradients) | {"body.0.weight": None, "body.0.bias": None}
    client = Client.of(known.model, known.params, shared)
    assert client.frozen == ("body.0.weight", "body.0.bias")
    assert client.explain(attack(client, labels="trusted")).succeeded


def test_weights_that_did_not_change_are_frozen(files: Path, tmp_path: Path) -> None:
    tensors = {**np.load(files / "w.npz"), "epoch": np.array(1)}
    shared = np.load(files / "g.npz")
    after = {name: array - 0.1 * shared[name] for name, array in tensors.items() if name in shared}
    after |= {"conv1.weight": tensors["conv1.weight"], "conv1.bias": tensors["conv1.bias"]}
    np.savez(tmp_path / "before.npz", **tensors)
    np.savez(tmp_path / "after.npz", **after, epoch=np.array(2))
    known = {**SMALL, "learning_rate": 0.1, "weights_after": tmp_path / "after.npz"}
    client = Client.from_files(tmp_path / "before.npz", **known)
    assert client.frozen == ("body.0.weight", "body.0.bias")
    assert client.explain(attack(client, labels="trusted")).succeeded


def test_an_audit_does_not_count_what_was_not_sent(files: Path, tmp_path: Path, run: Run) -> None:
    rng = np.random.default_rng(0)
    model = MLP((1, 4, 4), 3, widths=(6,))
    params = model.init(rng)
    known, _ = share(model, params, rng.random((1, 1, 4, 4)), [2])
    np.savez(tmp_path / "w.npz", **params)
    np.savez(tmp_path / "g.npz", **{k: v for k, v in known.gradients.items() if k[0] == "2"})
    paths = {"weights": tmp_path / "w.npz", "gradients": tmp_path / "g.npz"}
    client = Client.from_files(**paths, model="mlp", shape=(1, 4, 4))
    found = audit(client, examples=2)
    # Six features tell six directions of 16, and without them all was told.
    assert [spectrum.rank for spectrum in found.spectra] == [6, 6]
    assert found.at(0.0).mse > 0.5 * found.prior
    assert found.counting.parameters == 21
    assert [f.about for f in found.findings] == ["activation", "frozen", "last layer"]
    assert [spectrum.rank for spectrum in audit(known, examples=2).spectra] == [16, 16]
    asked = (a for name, path in paths.items() for a in (f"--{name}", path))
    answer = run(*asked, "--model", "mlp", "--shape", "1,4,4")
    assert answer.code == 1
    assert "0.weight, 0.bias sent no gradient" in " ".join(answer.out.split())


# Layers without a bias


@pytest.mark.parametrize(
    "model",
    [
        MLP(unbiased=("0", "2", "4")),
        MLP(unbiased=("4",)),
        LeNet(unbiased=("body.0", "body.2", "body.4", "fc.0")),
        LeNet(unbiased=("body.2",)),
    ],
    ids=str,
)
def test_a_layer_without_a_bias_is_read_off_the_names(model: LeNet | MLP) -> None:
    kind = type(model).__name__.lower()
    shapes = {f"net.{name}": shape for name, shape in reversed(model.shapes.items())}
    assert model_from_shapes(kind, shapes, model.image_shape) == model


@pytest.mark.usefixtures("without_pictures")
def test_a_network_without_biases_is_attacked(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        *(torch.nn.Flatten(), torch.nn.Linear(784, 20, bias=False), torch.nn.Sigmoid()),
        torch.nn.Linear(20, 10, bias=False),
    )
    pixels, labels = GLYPHS.batch([3])
    images = torch.tensor(pixels, dtype=torch.float32)
    torch.nn.functional.cross_entropy(network(images), torch.tensor(labels)).backward()
    weights = {name: array.numpy() for name, array in network.state_dict().items()}
    np.savez(tmp_path / "w.npz", **weights)
    np.savez(tmp_path / "g.npz", **{k: p.grad.numpy() for k, p in network.named_parameters()})
    asked = ("--weights", tmp_path / "w.npz", "--gradients", tmp_path / "g.npz", "--model", "mlp")
    answer = run(*asked, "--out", tmp_path / "out")
    assert answer.code == 0, answer.out + answer.err
    found = np.load(tmp_path / "out" / "reconstruction.npz")
    np.testing.assert_allclose(found["images"], pixels, atol=1e-2)


def test_what_the_loss_came_to_is_not_which_it_is(files: Path, tmp_path: Path) -> None:
    """Another tool's log beside the weights has keys that notes have, too."""
    (tmp_path / "w.json").write_text('{"loss": 0.53, "epoch": 3, "optimizer": {"lr": 0.1}}')
    assert read(files, tmp_path).loss.kind == "cross-entropy"
    (tmp_path / "w.json").write_text('{"loss": "mse", "epoch": 3}')
    assert read(files, tmp_path).loss.kind == "mse"

"""Networks exported from PyTorch: what they compute, beside PyTorch, and files that mean harm."""

from __future__ import annotations

import functools
import io
import json
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import BYTES, SECONDS
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tinyleak import cross_entropy, load_network, one_hot, ops, trace
from tinyleak.gradient import grad
from tinyleak.nn.models.exported import OPERATIONS, Exported, with_masks
from tinyleak.tensor import Tensor

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from ordinary_networks import (  # noqa: E402  # the benchmarks are scripts, not a package
    NETWORKS,
    build,
    export,
    loss_of,
)

pytestmark = pytest.mark.filterwarnings("ignore")

torch.backends.cuda.enable_flash_sdp(False)


@functools.cache
def saved(name: str) -> bytes:
    """One of the networks, in float64, as its file holds it."""
    file = io.BytesIO()
    export(build(name).double(), NETWORKS[name].shape, file)  # type: ignore[arg-type]
    return file.getvalue()


def load(path: Path, content: bytes) -> Exported:
    path.write_bytes(content)
    return load_network(path)


def assert_close(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """Equal up to `tolerance` of the largest number of all."""
    scale = max(float(np.abs(one).max(initial=0.0)) for one in expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients_of_two_orders_are_pytorchs(
    tmp_path: Path, name: str, batch: int, rng: np.random.Generator
) -> None:
    network, model = build(name).double(), load(tmp_path / "net.pt2", saved(name))
    x, labels = rng.random((batch, *NETWORKS[name].shape)), rng.integers(0, 2, batch)
    images, theirs = x.reshape(batch, *model.image_shape), dict(network.named_parameters())
    assert model.shapes == {key: tuple(p.shape) for key, p in theirs.items()}
    params = {key: Tensor(p.detach().numpy()) for key, p in theirs.items()}

    targets = one_hot(labels, model.classes)
    if name == "two_heads":
        targets = np.concatenate([one_hot(labels, 10), one_hot(labels % 2, 2)], -1)
    aims = {key: 0.01 * rng.standard_normal(p.shape) for key, p in theirs.items()}

    def ours(z: Tensor) -> tuple[Tensor, ...]:
        loss = cross_entropy(model(params, z), Tensor(targets))
        slopes = grad(loss, params)
        apart = [slope - Tensor(aims[key]) for key, slope in slopes.items()]
        distance = functools.reduce(ops.add, [ops.sum(one * one) for one in apart])
        return loss, *slopes.values(), grad(distance, z)

    z = torch.tensor(x, requires_grad=True)
    # Of the fused forms of attention none has a second derivative.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = loss_of(name, network, z, torch.tensor(labels))
        slopes = torch.autograd.grad(loss, list(theirs.values()), create_graph=True)
        distance = sum(
            ((slope - torch.tensor(aims[key])) ** 2).sum()
            for key, slope in zip(theirs, slopes, strict=True)
        )
        (second,) = torch.autograd.grad(distance, z)
    found = [one.numpy() for one in ours(Tensor(images))]
    constant = 2 * np.log(2) if name == "two_heads" else 0.0  # see `Exported.__call__`
    assert_close([found[0] - constant], [loss.item()])
    assert_close(found[1:-1], [slope.detach().numpy() for slope in slopes])
    assert_close([found[-1].reshape(x.shape)], [second.numpy()])

    replayed = trace(ours, images, check=False)(images)
    assert_close(replayed[1:-1], found[1:-1], 1e-14)
    assert_close(replayed[-1:], found[-1:], 1e-14)


def test_several_networks_run_as_one(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("vit", "series", "group_norm"):
        model = load(tmp_path / "net.pt2", saved(name))
        shift = {
            key: a + 0.1 * rng.standard_normal((2, *a.shape)) for key, a in model.weights.items()
        }
        x = rng.random((2, 3, *model.image_shape))
        together = model({key: Tensor(a) for key, a in shift.items()}, Tensor(x)).numpy()
        for place in range(2):
            alone = model({key: Tensor(a[place]) for key, a in shift.items()}, Tensor(x[place]))
            assert_close([together[place]], [alone.numpy()])


def test_training_is_told(tmp_path: Path) -> None:
    assert load(tmp_path / "a.pt2", saved("cifar_cnn_training")).training == ("batch norm",)
    assert load(tmp_path / "b.pt2", saved("mnist_cnn")).training == ()
    network = build("mnist_cnn").train()
    export(network, (1, 28, 28), str(tmp_path / "net.pt2"))
    assert load_network(tmp_path / "net.pt2").training == ("dropout",)


def test_the_masks_of_dropout_are_read_off_the_gradient(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    network = build("mnist_cnn").double().train()
    export(network, (1, 28, 28), str(tmp_path / "net.pt2"))
    x = rng.random((1, 1, 28, 28))
    loss = functional.cross_entropy(network(torch.tensor(x)), torch.tensor([3]))
    names, theirs = zip(*network.named_parameters(), strict=True)
    slopes = [slope.numpy() for slope in torch.autograd.grad(loss, theirs)]
    gradients = dict(zip(names, slopes, strict=True))
    model = with_masks(load_network(tmp_path / "net.pt2"), gradients)
    assert model.training == () and len(model.masks) == 2
    params = {name: Tensor(array) for name, array in model.weights.items()}
    found = grad(cross_entropy(model(params, Tensor(x)), Tensor(one_hot([3], 10))), params)
    assert_close([found[name].numpy() for name in names], slopes)


# Files that mean harm.


def edited(change: Callable[[dict[str, bytes]], object], name: str = "binary") -> bytes:
    """The file of a network after a change to its members, by their names."""
    with zipfile.ZipFile(io.BytesIO(saved(name))) as archive:
        members = {one.partition("/")[2]: archive.read(one) for one in archive.namelist()}
    change(members)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for one, content in members.items():
            archive.writestr(f"net/{one}", content)
    return file.getvalue()


def graph_edited(change: Callable[[dict[str, Any]], object], name: str = "binary") -> bytes:
    """The same after a change to its graph."""

    def edit(members: dict[str, bytes]) -> None:
        program = json.loads(members["models/model.json"])
        change(program)
        members["models/model.json"] = json.dumps(program).encode()

    return edited(edit, name)


def node(program: dict[str, Any], place: int = 0) -> Any:
    return program["graph_module"]["graph"]["nodes"][place]


def bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", b" " * 2**28)
    return file.getvalue()


def with_branch() -> bytes:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x * 3, (x,))

    file = io.BytesIO()
    export(Branch(), (4,), file)  # type: ignore[arg-type]
    return file.getvalue()


def with_dynamic_shapes() -> bytes:
    network, file = nn.Linear(4, 2), io.BytesIO()
    axes = ({1: torch.export.Dim("length")},)
    program = torch.export.export(network, (torch.zeros(1, 9, 4),), dynamic_shapes=axes)
    torch.export.save(program, file)
    return file.getvalue()


def set_size(program: dict[str, Any], value: str, size: int) -> None:
    program["graph_module"]["graph"]["tensor_values"][value]["sizes"][0]["as_int"] = size


def pickled(members: dict[str, bytes]) -> None:
    config = members["data/weights/model_weights_config.json"]
    members["data/weights/model_weights_config.json"] = config.replace(
        b'"use_pickle": false', b'"use_pickle": true'
    )


def old_layout() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/serialized_exported_program.json", b"{}")
        archive.writestr("archive/serialized_state_dict.pt", b"")
    return file.getvalue()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (bytes, "not a whole .pt2 file"),
    "truncated": (lambda: saved("binary")[:-9], "not a whole .pt2 file"),
    "of PyTorch 2.6": (old_layout, "an archive of PyTorch 2.6 or before"),
    "another zip": (lambda: edited(lambda m: m.pop("models/model.json")), "it has no graph"),
    "a zip bomb": (bomb, "may be a zip bomb"),
    "another schema": (
        lambda: graph_edited(lambda p: p["schema_version"].update(major=9)),
        "its schema is version '9', and 8 is read",
    ),
    "no graph": (lambda: graph_edited(lambda p: p.pop("graph_module")), "not what torch.export"),
    "deep JSON": (
        lambda: edited(lambda m: m.update({"models/model.json": b"[" * 10**6})),
        "its JSON is damaged",
    ),
    "an unknown operation": (
        lambda: graph_edited(lambda p: node(p, 1).update(target="torch.ops.aten.fft_fft.default")),
        "its node 'relu' is the operation 'fft_fft', which is not known; known are .*conv2d",
    ),
    "another library": (
        lambda: graph_edited(lambda p: node(p, 1).update(target="torch.ops.evil.conv2d.default")),
        "is the operation 'torch.ops.evil.conv2d.default', which is not known",
    ),
    "a branch": (with_branch, "a loop or a branch that depends on numbers"),
    "dynamic shapes": (with_dynamic_shapes, "export it without dynamic shapes"),
    "out of order": (
        lambda: graph_edited(lambda p: p["graph_module"]["graph"]["nodes"].reverse()),
        "out of order",
    ),
    "weights missing": (
        lambda: edited(lambda m: m.pop("data/weights/weight_0")),
        "it lacks 'data/weights/weight_0'",
    ),
    "weights cut": (
        lambda: edited(lambda m: m.update({"data/weights/weight_0": b"12345678"})),
        r"said to have shape \(16, 30\), and 8 bytes are there",
    ),
    "weights of another": (
        lambda: graph_edited(lambda p: set_size(p, "p_0_weight", 17)),
        r"'0.weight' is \(16, 30\), and should be \(17, 30\)",
    ),
    "a graph that does not fit": (
        lambda: graph_edited(lambda p: set_size(p, "relu", 2)),
        r"its node 'relu', relu, cannot be computed: it gives \(1, 16\), and \(2, 16\) was",
    ),
    "huge values": (
        lambda: graph_edited(lambda p: set_size(p, "relu", 2**50)),
        "are worked with at most",
    ),
    "huge windows": (
        lambda: graph_edited(
            lambda p: node(p, 2)["inputs"].append(
                {"name": "stride", "arg": {"as_ints": [10**9, 10**9, 10**9]}, "kind": 1}
            ),
            "mnist_cnn",
        ),
        "cannot be computed",
    ),
    "pickled weights": (lambda: edited(pickled), "is a pickle, and tinyleak never loads one"),
    "another batch": (
        lambda: graph_edited(lambda p: set_size(p, "input", 2)),
        r"exported for inputs \(2, 30\); export it for one",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_means_harm_is_refused_in_a_sentence(tmp_path: Path, kind: str) -> None:
    make, message = HOSTILE[kind]
    path = tmp_path / "net.pt2"
    path.write_bytes(make())
    began = time.process_time()
    tracemalloc.start()
    with pytest.raises(ValueError, match=message) as caught:
        load_network(path)
    assert tracemalloc.get_traced_memory()[1] < BYTES
    tracemalloc.stop()
    assert time.process_time() - began < SECONDS
    assert str(caught.value).isprintable()


def test_a_network_of_words_is_refused_with_what_there_is_for_them(tmp_path: Path) -> None:
    words = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))
    zeros = torch.zeros(1, 5, dtype=torch.long)
    torch.export.save(torch.export.export(words.eval(), (zeros,)), tmp_path / "net.pt2")
    with pytest.raises(ValueError, match="as words are.*there is tinyleak text"):
        load_network(tmp_path / "net.pt2")


def test_the_example_in_a_file_is_never_opened(tmp_path: Path) -> None:
    trap = edited(lambda members: members.update({"data/sample_inputs/model.pt": b"no pickle"}))
    assert load(tmp_path / "net.pt2", trap).classes == 2
    with pytest.raises(FileNotFoundError, match="is not there"):
        load_network(tmp_path / "other.pt2")


@given(data=st.data())
def test_damage_anywhere_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["binary", "group_norm"]))
    with zipfile.ZipFile(io.BytesIO(saved(name))) as archive:
        length = len(archive.read(next(n for n in archive.namelist() if n.endswith("model.json"))))

    def damage(members: dict[str, bytes]) -> None:
        key = data.draw(st.sampled_from(["models/model.json", *sorted(members)]))
        content = bytearray(members[key])
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, min(length, max(0, len(content) - 1))))
            piece = data.draw(st.binary(max_size=8) | st.from_regex(rb"[0-9]{1,3}", fullmatch=True))
            content[place : place + data.draw(st.integers(0, 8))] = piece
        members[key] = bytes(content)

    path = tmp_path_factory.mktemp("fuzz") / "net.pt2"
    path.write_bytes(edited(damage, name))
    began = time.process_time()
    try:
        load_network(path)
    except ValueError as error:
        assert str(error).isprintable()
    assert time.process_time() - began < SECONDS


def test_every_operation_of_the_networks_is_known() -> None:
    wanted = "conv1d conv2d conv_transpose2d linear bilinear batch_norm group_norm lstm gru glu"
    assert set(wanted.split()) <= set(OPERATIONS)

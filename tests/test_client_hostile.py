"""Hostile files: one sentence, within a second, in bounded memory, and nothing is executed."""

from __future__ import annotations

import pickle
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import BYTES, HOSTILE, SECONDS, Trap, build, npz_file, numpy_file
from hypothesis import given
from hypothesis import strategies as st

from tinyleak.attacks import Settings, attack
from tinyleak.client import Client, share
from tinyleak.nn import MLP, LeNet

MODEL = LeNet((1, 8, 8), 4, hidden=3)
SHAPE = {"shape": (1, 8, 8)}
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights and the gradient of an honest client."""
    folder = tmp_path_factory.mktemp("client")
    rng = np.random.default_rng(0)
    made, _ = share(MODEL, MODEL.init(rng), rng.random((1, 1, 8, 8)), [2])
    np.savez(folder / "w.npz", **made.params)
    np.savez(folder / "g.npz", **made.gradients)
    Client.from_files(folder / "w.npz", folder / "g.npz", **SHAPE)  # what it imports is there
    with pytest.raises(OSError, match="nowhere"):
        Client.from_files(folder / "w.npz", folder / "nowhere.safetensors", **SHAPE)
    return folder


def refused(weights: Path, gradients: Path, **said: Any) -> str:
    """Expect a client's files to be refused cheaply, and return what is said of them."""
    # Processor time: the machine may have others to serve. Tracing memory takes as much again.
    began = time.process_time()
    with pytest.raises((ValueError, OSError)):
        Client.from_files(weights, gradients, **(said or SHAPE))
    assert time.process_time() - began < SECONDS
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, OSError)) as refusal:
            Client.from_files(weights, gradients, **(said or SHAPE))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BYTES
    sentence, table = str(refusal.value), getattr(refusal.value, "__notes__", [])
    assert len(sentence) < 1000
    assert sentence.isprintable()
    assert (len(table) > 0) == ("compare the columns" in sentence)
    lines = "\n".join(table).splitlines()
    assert all(line.isprintable() and len(line) < 200 for line in lines)
    return "\n".join([sentence, *lines])


@pytest.mark.parametrize("role", ["weights", "gradients"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(client: Path, tmp_path: Path, name: str, role: str) -> None:
    ending, content, message = build(name)
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    weights, gradients = (path, client / "g.npz") if role == "weights" else (client / "w.npz", path)
    said = refused(weights, gradients)
    assert re.search(message, said)
    assert f"{str(path)!r} cannot be used: " in said


def changed(client: Path, folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> Path:
    """The gradient's file with something changed."""
    arrays = dict(np.load(client / "g.npz"))
    change(arrays)
    np.savez(folder / "changed.npz", **arrays)
    return folder / "changed.npz"


CHANGES: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "a tensor is missing, and names of its own": (
        lambda g: g.update({f"net.{name}": g.pop(name) for name in list(g)[1:]}) or g.popitem(),
        "7 tensors, cannot be told",
    ),
    "a tensor too many": (lambda g: g.update(extra=np.ones(5)), "9 tensors, cannot be told"),
    "a tensor twice": (
        lambda g: g.update({"again.weight": g["fc.0.weight"]}),
        "9 tensors, cannot be told",
    ),
    "tensors renamed so that two would do": (
        lambda g: g.update(
            {"x": g.pop("body.2.weight"), "y": g.pop("body.4.weight")}  # of one shape
        ),
        "cannot be told by name and shape",
    ),
    "another shape": (
        lambda g: g.update({"fc.0.weight": g["fc.0.weight"].T.copy()}),
        "cannot be told by name and shape",
    ),
    "a name that moves the cursor": (
        lambda g: g.update({"\x1b[2J\n" * 99: np.ones(5)}),
        "cannot be told by name and shape",
    ),
    "zeros": (lambda g: g.update({k: 0 * v for k, v in g.items()}), "zero"),
    "not a number": (lambda g: g["fc.0.bias"].fill(np.nan), "'fc.0.bias' holds NaN or infinity"),
    "a number past all others": (
        lambda g: g["fc.0.bias"].fill(np.inf),
        "'fc.0.bias' holds NaN or infinity",
    ),
    "whole numbers": (
        lambda g: g.update({"fc.0.bias": np.arange(4)}),
        "'fc.0.bias' has dtype <i8; weights and gradients are",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_gradient_that_is_not_the_network_s_is_refused(
    client: Path, tmp_path: Path, name: str
) -> None:
    change, message = CHANGES[name]
    assert message in refused(client / "w.npz", changed(client, tmp_path, change))


def test_what_the_file_has_stands_beside_what_the_model_expects(
    client: Path, tmp_path: Path
) -> None:
    change, _ = CHANGES["tensors renamed so that two would do"]
    said = refused(client / "w.npz", changed(client, tmp_path, change))
    assert re.search(r"the file has +the model expects\n", said)
    assert re.search(r"\n +x \(3, 3, 5, 5\) +body\.2\.weight \(3, 3, 5, 5\)\n", said)
    assert "--rename from=to" in said


def lenet(*convolutions: tuple[int, ...], fully: tuple[int, int]) -> Shapes:
    shapes: Shapes = {}
    for layer, shape in enumerate(convolutions):
        shapes |= {f"body.{2 * layer}.weight": shape, f"body.{2 * layer}.bias": shape[:1]}
    return shapes | {"fc.0.weight": fully, "fc.0.bias": fully[:1]}


MEMORY: dict[str, tuple[Shapes, dict[str, Any], str]] = {
    "channels": (
        lenet((10**6, 1, 1, 1), (1, 10**6, 1, 1), (1, 1, 1, 1), fully=(3, 49)),
        {"shape": (1, 28, 28)},
        "numbers in this network, and 33,554,432 are worked with at most",
    ),
    "a kernel": (
        lenet((1, 1, 1001, 1001), (1, 1, 1001, 1001), (1, 1, 1001, 1001), fully=(3, 49)),
        {"shape": (1, 28, 28)},
        "numbers in this network",
    ),
    "a shape": (
        MLP((1, 1, 1), 2, widths=(1,)).shapes | {"0.weight": (1, 2 * 10**6)},
        {"shape": (1, 1000, 2000), "model": "mlp"},
        "2,000,000 unknown pixels, and 1,048,576 are searched for at most",
    ),
    "a shape that is not the file's": (
        MODEL.shapes,
        {"shape": (1, 1000000, 1000000)},
        "the weights are not a LeNet's for images of (1, 1000000, 1000000)",
    ),
    "a batch": (MODEL.shapes, {"shape": (1, 8, 8), "batch": 10**12}, "unknown pixels"),
    "a batch and activations": (
        lenet((3000, 1, 1, 1), (1, 3000, 1, 1), (1, 1, 1, 1), fully=(3, 4)),
        {"shape": (1, 8, 8), "batch": 1000},
        "numbers in this network",
    ),
    "layers": (
        lenet(*[(1, 1, 1, 1)] * 12, fully=(3, 7)),
        {"shape": (1, 8, 8)},
        "no strides of 1 and 2 lead to the 7 features",
    ),
    "more layers": (
        lenet(*[(1, 1, 1, 1)] * 1000, fully=(3, 64)),
        {"shape": (1, 8, 8)},
        "1000 weights of 4 axes, and not 1 to 100",
    ),
}


@pytest.mark.parametrize("name", MEMORY)
def test_shapes_that_multiply_past_memory_are_refused(tmp_path: Path, name: str) -> None:
    shapes, said, message = MEMORY[name]
    arrays = {key: np.full(shape, 0.1, np.float16) for key, shape in shapes.items()}
    for file in ("w.npz", "g.npz"):
        np.savez(tmp_path / file, **arrays)
    assert message in refused(tmp_path / "w.npz", tmp_path / "g.npz", **said)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ('{"batch": 1e308}', "a whole number of 1 or more is needed"),
        ('{"batch": %s}' % ("9" * 5000), "is not a JSON object of texts"),
        ('{"batch": 1000000000000}', "unknown pixels"),
        ('{"strides": [%s1]}' % ("1," * 400_000), "is not a JSON object of texts"),
        ('{"strides": [%s1]}' % ("1," * 99_000), "is not a JSON object of texts"),
        ('{"strides": [%s1]}' % ("1," * 90), "do not lead its 3 convolutions"),
        ('{"model": "%s"}' % ("x" * 300), "200 letters are read at most"),
        ('{"strides": [1, 1, 1000000000000000000000]}', "do not lead its 3 convolutions"),
        ('{"shape": [1, 99999999999, 99999999999]}', "the weights are not a LeNet"),
        ("[" * 100_000, "is not a JSON object of texts"),
    ],
    ids=lambda value: value[:40],
)
def test_hostile_notes_are_refused(client: Path, tmp_path: Path, note: str, message: str) -> None:
    for name in ("w.npz", "g.npz"):
        (tmp_path / name).write_bytes((client / name).read_bytes())
    (tmp_path / "w.json").write_text(note)
    said = {"classes": 4} if "shape" in note else SHAPE
    assert message in refused(tmp_path / "w.npz", tmp_path / "g.npz", **said)


def test_nothing_in_a_file_is_executed(client: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    bait = Trap(trap)
    (tmp_path / "a.npz").write_bytes(numpy_file(a=np.array([bait], dtype=object)))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(bait))
    (tmp_path / "c.npz").write_bytes(npz_file(pickle.dumps(bait)))
    (tmp_path / "d.safetensors").write_bytes(pickle.dumps(bait))
    torch.save(bait, tmp_path / "e.pt")
    for path in sorted(tmp_path.iterdir()):
        refused(path, client / "g.npz")
        refused(client / "w.npz", path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(bait))  # the trap would have worked
    assert trap.exists()


SIZES = st.sampled_from([0, 1, 2, 3, 5, 7, 25, 48, 64, 1000])


@given(
    shapes=st.lists(st.lists(SIZES, max_size=5), min_size=1, max_size=9),
    names=st.lists(st.text(max_size=12), min_size=9, max_size=9, unique=True),
    model=st.sampled_from(["lenet", "mlp"]),
)
def test_any_shapes_and_names_are_refused_or_used(
    client: Path,
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[list[int]],
    names: list[str],
    model: str,
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "w.npz"
    arrays = {}
    for name, shape in zip(names, shapes, strict=False):
        if np.prod(shape, dtype=float) <= 1e6 and "/" not in name and "\x00" not in name:
            arrays[f"x{name}"] = np.full(shape, 0.1, np.float16)
    np.savez(path, **arrays)
    began = time.process_time()
    try:
        taken = Client.from_files(path, path, shape=(1, 8, 8), model=model)
        attack(taken, labels="trusted", settings=Settings(iterations=1))
    except ValueError:
        assert time.process_time() - began < SECONDS

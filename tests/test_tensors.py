"""Weights and gradients from files: what is read, what is refused, and that refusing is cheap."""

from __future__ import annotations

import json
import pickle
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hostile_files import (
    BYTES,
    HOSTILE,
    SECONDS,
    TENSORS,
    Trap,
    build,
    npy,
    npz_file,
    numpy_file,
    safetensors_file,
)
from hypothesis import given
from hypothesis import strategies as st

from tinyleak.client.notes import gather_notes
from tinyleak.data.tensors import (
    FORMATS,
    read_notes,
    read_tensors,
    read_with_others,
    write_tensors,
)

# What is read


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_written_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"weights{ending}"
    write_tensors(path, TENSORS)
    found = read_tensors(path)
    assert set(found) == set(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert read_notes(path) == {}
    assert not list(tmp_path.glob("*.part"))


def test_files_of_pytorch_and_numpy_are_read(tmp_path: Path) -> None:
    state = {name: torch.tensor(array) for name, array in TENSORS.items()}
    safetensors.torch.save_file(state, tmp_path / "torch.safetensors")
    np.savez(tmp_path / "plain.npz", **TENSORS)
    np.savez_compressed(tmp_path / "small.npz", **TENSORS)
    for name in ("torch.safetensors", "plain.npz", "small.npz"):
        found = read_tensors(tmp_path / name)
        assert set(found) == set(TENSORS)
        for key, array in TENSORS.items():
            np.testing.assert_array_equal(found[key], array, strict=True)
        assert read_notes(tmp_path / name) == {}


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    state = {"a": torch.tensor([[1.0, -0.3], [3e38, 1e-39]]).bfloat16()}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    found = read_tensors(tmp_path / "a.safetensors")["a"]
    np.testing.assert_array_equal(found, state["a"].float().numpy(), strict=True)


def test_an_array_in_another_order_of_bytes_or_of_memory_is_read(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "a.npz", big=array.astype(">f8"), columns=np.asfortranarray(array))
    for found in read_tensors(tmp_path / "a.npz").values():
        np.testing.assert_array_equal(found, array, strict=True)
        assert found.dtype.isnative
        assert found.flags.c_contiguous


def test_notes_beside_the_file_go_before_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(TENSORS, path, metadata={"format": "pt", "activation": "tanh"})
    assert read_notes(path) == {"format": "pt", "activation": "tanh"}
    path.with_suffix(".json").write_text('{"activation": "sigmoid", "shape": [1, 28, 28]}')
    assert read_notes(path) == {"format": "pt", "activation": "sigmoid", "shape": "1,28,28"}


@pytest.mark.parametrize(
    "notes",
    ["[1]", "{", "null", "[" * 100_000, "\xff", '{"a": "' + "b" * 2**16],
    ids=lambda n: n[:9],
)
def test_notes_that_are_none_are_refused(tmp_path: Path, notes: str) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, **TENSORS)
    path.with_suffix(".json").write_bytes(notes.encode("latin-1"))
    with pytest.raises(
        ValueError, match="is not a JSON object of texts, numbers and lists"
    ) as caught:
        read_notes(path)
    assert "\n" not in str(caught.value)


def test_notes_of_another_tool_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, **TENSORS)
    foreign = {
        **{"config": {"a": {"b": [1]}}, "author": None, "trained": True, "lr": [1e-3, [None]]},
        **{"log": list(range(1000)), "batch": 2},
    }
    path.with_suffix(".json").write_text(json.dumps(foreign))
    assert read_notes(path)["batch"] == "2"
    assert str(gather_notes(path)) == "batch 2"
    path.with_suffix(".json").write_text('{"shape": {"h": 28}}')
    with pytest.raises(ValueError, match="the notes about .* say shape .*write a shape as C,H,W"):
        gather_notes(path)


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_not_of_floating_point_is_named_and_left_out(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"weights{ending}"
    others = {"epoch": np.array(3), "rng": np.arange(8, dtype=np.uint8), "mask": np.array([True])}
    write_tensors(path, {**others, **TENSORS})
    assert set(read_tensors(path)) == set(TENSORS)
    read, left_out = read_with_others(path)
    assert set(read) == set(TENSORS)
    assert set(left_out) == set(others)
    np.savez(tmp_path / "text.npz", **TENSORS, names=np.array(["a", "b"]), z=np.ones(2) * 1j)
    assert read_with_others(tmp_path / "text.npz")[1] == {"names": "<U1", "z": "<c16"}


# What is refused


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence_and_cheaply(tmp_path: Path, name: str) -> None:
    ending, content, message = build(name)
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    import safetensors  # outside the clock

    assert safetensors.__version__
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            read_tensors(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < SECONDS
    assert peak < BYTES
    text = str(caught.value)
    assert text.startswith(f"{str(path)!r} cannot be used: ")
    assert len(text) < 400 + len(str(path))
    assert text.isprintable()


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    for ending in FORMATS:
        path = tmp_path / f"sparse{ending}"
        with path.open("wb") as file:
            file.truncate(2**40)
        began = time.process_time()
        with pytest.raises(ValueError, match="holds more than the 1,073,741,824 bytes"):
            read_tensors(path)
        assert time.process_time() - began < SECONDS


def test_no_object_is_ever_made(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    bait = Trap(trap)
    np.savez(tmp_path / "a.npz", a=np.array([bait], dtype=object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(bait))
    (tmp_path / "c.npz").write_bytes(npz_file(pickle.dumps(bait)))
    (tmp_path / "d.safetensors").write_bytes(pickle.dumps(bait))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match="cannot be used"):
            read_tensors(path)
    torch.save(bait, tmp_path / "e.pt")
    with pytest.raises(ValueError, match="never loads a pickle; save it with safetensors.torch"):
        read_tensors(tmp_path / "e.pt")
    assert not trap.exists()
    pickle.loads(pickle.dumps(bait))  # the trap would have worked
    assert trap.exists()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'nowhere.npz' is not there; give the path of"):
        read_tensors("nowhere.npz")
    with pytest.raises(ValueError, match="neither .safetensors nor .npz; save it with"):
        read_tensors(tmp_path / "weights.txt")
    with pytest.raises(ValueError, match="neither .safetensors nor .npz"):
        write_tensors(tmp_path / "weights.pt", TENSORS)
    folder = tmp_path / "folder.npz"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="is not there"):
        read_tensors(folder)


# Files that nobody thought of

PLAIN = {
    ".safetensors": safetensors.numpy.save(TENSORS, metadata={"model": "lenet"}),
    ".npz": numpy_file(**TENSORS),
}


def read_or_refuse(path: Path) -> None:
    for read in (read_tensors, read_notes):
        began = time.process_time()
        try:
            read(path)
        except ValueError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 400 + len(str(path))
        assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("ending", FORMATS)
@given(data=st.data())
def test_damage_anywhere_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, ending: str, data: st.DataObject
) -> None:
    content = bytearray(PLAIN[ending])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(min_size=0, max_size=8))
        content[place : place + data.draw(st.integers(0, 8))] = piece
    path = tmp_path_factory.mktemp("fuzz") / f"file{ending}"
    path.write_bytes(content)
    read_or_refuse(path)


@given(
    descr=st.sampled_from(["<f8", ">f2", "|O", "<i4", "V9", "f8,f8", "(2,)f8", "M8[s]"])
    | st.text(max_size=8),
    shape=st.lists(st.integers(-(2**70), 2**70), max_size=5).map(tuple) | st.text(max_size=20),
    order=st.booleans() | st.none(),
    data=st.binary(max_size=64),
)
def test_any_numpy_header_is_refused_or_true(
    tmp_path_factory: pytest.TempPathFactory, descr: str, shape: object, order: object, data: bytes
) -> None:
    text = f"{{'descr': {descr!r}, 'fortran_order': {order!r}, 'shape': {shape!r}, }}"
    path = tmp_path_factory.mktemp("fuzz") / "file.npz"
    path.write_bytes(npz_file(npy(text.encode("ascii", "replace").decode(), data)))
    read_or_refuse(path)


@given(
    dtype=st.sampled_from(["F64", "F32", "BF16", "I8", "BOOL", "F4"]) | st.text(max_size=4),
    shape=st.lists(st.integers(-1, 2**64), max_size=4) | st.text(max_size=3),
    offsets=st.lists(st.integers(0, 2**64), max_size=3),
    data=st.binary(max_size=32),
    name=st.text(max_size=9) | st.integers(0, 10**5).map("x".__mul__),
)
def test_any_safetensors_header_is_refused_or_true(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    shape: object,
    offsets: list[int],
    data: bytes,
    name: str,
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "file.safetensors"
    described = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    path.write_bytes(safetensors_file({name: described}, data))
    read_or_refuse(path)

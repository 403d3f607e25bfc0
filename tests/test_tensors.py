"""Weights and gradients from files: what is read, what is refused, and that refusing is cheap."""

from __future__ import annotations

import io
import json
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyleak.data.tensors import FORMATS, MAX_TENSORS, read_notes, read_tensors, write_tensors

TENSORS = {
    "body.0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7,
    "body.0.bias": np.array([-1.5, 2.25]),
    "scale": np.array(3, dtype=np.float16),
}

SECONDS, BYTES = 1.0, 300e6
"""What a hostile file may cost."""


def safetensors_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An array with this header, whatever it says."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + data


def header(descr: str, shape: str) -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def npz_file(
    content: bytes, compression: int = zipfile.ZIP_STORED, names: tuple[str, ...] = ("a.npy",)
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


def numpy_file(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


class Trap:
    """An object whose pickle would write a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


# What is read


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_written_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"weights{ending}"
    write_tensors(path, TENSORS, {"model": "lenet", "batch": "4"})
    found = read_tensors(path)
    assert set(found) == set(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert read_notes(path) == {"model": "lenet", "batch": "4"}
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
    "notes", ["[1]", "{", '{"a": {"b": 1}}', '{"a": null}', "[" * 100_000, "\xff"], ids=repr
)
def test_notes_that_are_none_are_refused(tmp_path: Path, notes: str) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, **TENSORS)
    path.with_suffix(".json").write_bytes(notes.encode("latin-1"))
    with pytest.raises(ValueError, match="is no JSON object of texts, numbers and lists") as caught:
        read_notes(path)
    assert "\n" not in str(caught.value)


# What is refused

HUGE = 2**42

HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "safetensors, empty": (".safetensors", bytes, "no whole safetensors file"),
    "safetensors, truncated": (
        ".safetensors",
        lambda: safetensors.numpy.save(TENSORS)[:-5],
        "no whole safetensors file",
    ),
    "safetensors, more than it says": (
        ".safetensors",
        lambda: safetensors.numpy.save(TENSORS) + b"12345678",
        "no whole safetensors file",
    ),
    "safetensors, terabytes of header": (
        ".safetensors",
        lambda: struct.pack("<Q", HUGE) + b"{}",
        "header claims 4,398,046,511,104 bytes",
    ),
    "safetensors, terabytes of numbers": (
        ".safetensors",
        lambda: safetensors_file({"a": entry("F32", [2**40], 0, HUGE)}, bytes(64)),
        "no whole safetensors file",
    ),
    "safetensors, a shape past counting": (
        ".safetensors",
        lambda: safetensors_file({"a": entry("F32", [2**40, 2**40], 0, 0)}),
        "no whole safetensors file",
    ),
    "safetensors, a shape without entries": (
        ".safetensors",
        lambda: safetensors_file({"a": entry("F32", [2**62, 0], 0, 0)}),
        "no entries",
    ),
    "safetensors, whole numbers": (
        ".safetensors",
        lambda: safetensors.numpy.save({"a": np.arange(3)}),
        "dtype I64; weights and gradients are 16, 32 or 64 bits",
    ),
    "safetensors, 8 bits": (
        ".safetensors",
        lambda: safetensors_file({"a": entry("F8_E4M3", [2], 0, 2)}, b"12"),
        "dtype F8_E4M3",
    ),
    "safetensors, overlapping": (
        ".safetensors",
        lambda: safetensors_file(
            {"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, b"1234"
        ),
        "no whole safetensors file",
    ),
    "safetensors, nested": (
        ".safetensors",
        lambda: safetensors_file(b"[" * 500_000),
        "no whole safetensors file",
    ),
    "safetensors, no tensor": (".safetensors", lambda: safetensors_file({}), "holds no tensor"),
    "safetensors, too many tensors": (
        ".safetensors",
        lambda: safetensors_file(
            {str(i): entry("F32", [1], 4 * i, 4 * i + 4) for i in range(MAX_TENSORS + 1)},
            bytes(4 * MAX_TENSORS + 4),
        ),
        "4,097 tensors",
    ),
    "safetensors, not a number": (
        ".safetensors",
        lambda: safetensors.numpy.save({"a": np.array([1, np.nan])}),
        "'a' holds NaN or infinity",
    ),
    "npz, empty": (".npz", bytes, "no whole .npz file"),
    "npz, no archive": (".npz", lambda: b"PK\x03\x04" + bytes(500), "no whole .npz file"),
    "npz, truncated": (".npz", lambda: numpy_file(**TENSORS)[:-30], "no whole .npz file"),
    "npz, a damaged number": (
        ".npz",
        lambda: npz_file(npy(header("'<f8'", "(2,)"), bytes(16))).replace(bytes(16), b"1" * 16),
        "no whole .npz file",
    ),
    "npz, no array": (".npz", lambda: npz_file(b"", names=()), "holds no tensor"),
    "npz, no numpy file": (".npz", lambda: npz_file(b"hello"), "'a' has no .npy header"),
    "npz, a name twice": (
        ".npz",
        lambda: npz_file(npy(header("'<f8'", "()"), bytes(8)), names=("a.npy", "a")),
        "holds 'a' twice",
    ),
    "npz, a name that moves the cursor": (
        ".npz",
        lambda: npz_file(b"hello", names=("\x1b[2J" + "x" * 500,)),
        r"'\\x1b\[2Jxxx",
    ),
    "npz, objects": (
        ".npz",
        lambda: numpy_file(a=np.array([{}, print], dtype=object)),
        "'a' is an array of Python objects, which only a pickle could hold",
    ),
    "npz, whole numbers": (".npz", lambda: numpy_file(a=np.arange(3)), "dtype <i8"),
    "npz, complex numbers": (".npz", lambda: numpy_file(a=np.ones(3) * 1j), "dtype <c16"),
    "npz, text": (".npz", lambda: numpy_file(a=np.array(["x"])), "dtype <U1"),
    "npz, infinity": (".npz", lambda: numpy_file(a=np.array(np.inf)), "'a' holds NaN or infinity"),
    "npz, nothing in it": (".npz", lambda: numpy_file(a=np.ones((3, 0))), "no entries"),
    "npz, terabytes of numbers": (
        ".npz",
        lambda: npz_file(npy(header("'<f4'", f"({2**40},)"), bytes(64))),
        r"claims shape \(1099511627776,\) of <f4, 4,398,046,511,104 bytes, but 64 follow",
    ),
    "npz, a shape past counting": (
        ".npz",
        lambda: npz_file(npy(header("'<f4'", f"({2**62}, {2**62})"), bytes(64))),
        "but 64 follow",
    ),
    "npz, a shape that is negative twice": (
        ".npz",
        lambda: npz_file(npy(header("'<f8'", "(-2, -4)"), bytes(64))),
        "has no .npy header",
    ),
    "npz, code in the header": (
        ".npz",
        lambda: npz_file(npy(header("__import__('os').system('true')", "()"))),
        "has no .npy header",
    ),
    "npz, a nested header": (
        ".npz",
        lambda: npz_file(npy("(" * 9000)),
        "has no .npy header",
    ),
    "npz, a header of many signs": (
        ".npz",
        lambda: npz_file(npy(header("'<f8'", f"({'-' * 9000}1,)"), bytes(8))),
        "has no .npy header",
    ),
    "npz, a header of digits": (
        ".npz",
        lambda: npz_file(npy(header("'<f8'", f"({'1' * 60_000},)"), bytes(8))),
        "has no .npy header",
    ),
    "npz, a header of gigabytes": (
        ".npz",
        lambda: npz_file(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + bytes(100)),
        "has no .npy header",
    ),
    "npz, a bomb": (
        ".npz",
        lambda: npz_file(bytes(2**28), zipfile.ZIP_DEFLATED),
        "may be a zip bomb",
    ),
    "npz, a bomb in many parts": (
        ".npz",
        lambda: npz_file(
            bytes(2**20), zipfile.ZIP_DEFLATED, names=tuple(f"{i}.npy" for i in range(200))
        ),
        "may be a zip bomb",
    ),
    "npz, a bomb that lies about its size": (
        ".npz",
        lambda: lying(npz_file(bytes(2**28), zipfile.ZIP_DEFLATED), 2**28, 100),
        "no whole .npz file",
    ),
    "npz, a compression that needs gigabytes": (
        ".npz",
        lambda: npz_file(npy(header("'<f8'", "()"), bytes(8)), zipfile.ZIP_LZMA),
        "compressed as NumPy never does",
    ),
    "npz, encrypted": (
        ".npz",
        lambda: flagged(npz_file(npy(header("'<f8'", "()"), bytes(8))), 1),
        "is encrypted",
    ),
    "npz, too many arrays": (
        ".npz",
        lambda: npz_file(b"", names=tuple(map(str, range(MAX_TENSORS + 1)))),
        "4,097 tensors",
    ),
    "npz, a directory past memory": (
        ".npz",
        lambda: end_of_archive(bytes(2**21), 2**21),
        "directory is longer",
    ),
    "npz, a directory that claims to be": (
        ".npz",
        lambda: end_of_archive(bytes(100), 2**32 - 2),
        "no whole .npz file",
    ),
}


def lying(content: bytes, size: int, claimed: int) -> bytes:
    """The archive with another size of what is decompressed, before its member and in its end."""
    changed = bytearray(content)
    for place in (22, content.rindex(b"PK\x01\x02") + 24):
        assert changed[place : place + 4] == struct.pack("<I", size)
        changed[place : place + 4] = struct.pack("<I", claimed)
    return bytes(changed)


def flagged(content: bytes, flag: int) -> bytes:
    """The archive with a flag set in its directory and before its member."""
    changed = bytearray(content)
    changed[6] |= flag
    changed[content.index(b"PK\x01\x02") + 8] |= flag
    return bytes(changed)


def end_of_archive(directory: bytes, claimed: int) -> bytes:
    return directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, claimed, 0, 0)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence_and_cheaply(tmp_path: Path, name: str) -> None:
    ending, build, message = HOSTILE[name]
    path = tmp_path / f"file{ending}"
    path.write_bytes(build())
    import safetensors  # outside the clock

    assert safetensors.__version__
    began = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            read_tensors(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - began < SECONDS
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
        began = time.perf_counter()
        with pytest.raises(ValueError, match="holds more than the 536,870,912 bytes"):
            read_tensors(path)
        assert time.perf_counter() - began < SECONDS


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
        began = time.perf_counter()
        try:
            read(path)
        except ValueError as error:
            assert "\n" not in str(error)
        assert time.perf_counter() - began < SECONDS


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
)
def test_any_safetensors_header_is_refused_or_true(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    shape: object,
    offsets: list[int],
    data: bytes,
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "file.safetensors"
    described = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    path.write_bytes(safetensors_file({"a": described}, data))
    read_or_refuse(path)

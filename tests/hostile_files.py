"""Files of tensors that mean harm, and how they are made: readers and commands must bear them."""

from __future__ import annotations

import functools
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from tinyleak.data.bounds import MAX_TENSORS

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


HUGE = 2**42

HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "safetensors, empty": (".safetensors", bytes, "not a whole safetensors file"),
    "safetensors, truncated": (
        ".safetensors",
        lambda: safetensors.numpy.save(TENSORS)[:-5],
        "not a whole safetensors file",
    ),
    "safetensors, more than it says": (
        ".safetensors",
        lambda: safetensors.numpy.save(TENSORS) + b"12345678",
        "not a whole safetensors file",
    ),
    "safetensors, terabytes of header": (
        ".safetensors",
        lambda: struct.pack("<Q", HUGE) + b"{}",
        "header claims 4,398,046,511,104 bytes",
    ),
    "safetensors, terabytes of numbers": (
        ".safetensors",
        lambda: safetensors_file({"a": entry("F32", [2**40], 0, HUGE)}, bytes(64)),
        "not a whole safetensors file",
    ),
    "safetensors, a shape past counting": (
        ".safetensors",
        lambda: safetensors_file({"a": entry("F32", [2**40, 2**40], 0, 0)}),
        "not a whole safetensors file",
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
        "not a whole safetensors file",
    ),
    "safetensors, a name that moves the cursor": (
        ".safetensors",
        lambda: safetensors_file({"\x1b[2J\n": entry("F32", [1], 4, 8)}, b"12345678"),
        "not a whole safetensors file",
    ),
    "safetensors, a name that fills the screen": (
        ".safetensors",
        lambda: safetensors_file({"x" * 10**6: entry("F32", [1], 4, 8)}, b"12345678"),
        "not a whole safetensors file",
    ),
    "safetensors, a dtype that fills the screen": (
        ".safetensors",
        lambda: safetensors_file({"a": entry("\x1b" + "F" * 10**6, [1], 0, 4)}, b"1234"),
        "not a whole safetensors file",
    ),
    "safetensors, nested": (
        ".safetensors",
        lambda: safetensors_file(b"[" * 500_000),
        "not a whole safetensors file",
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
    "npz, empty": (".npz", bytes, "not a whole .npz file"),
    "npz, no archive": (".npz", lambda: b"PK\x03\x04" + bytes(500), "not a whole .npz file"),
    "npz, truncated": (".npz", lambda: numpy_file(**TENSORS)[:-30], "not a whole .npz file"),
    "npz, a damaged number": (
        ".npz",
        lambda: npz_file(npy(header("'<f8'", "(2,)"), bytes(16))).replace(bytes(16), b"1" * 16),
        "not a whole .npz file",
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
        "not a whole .npz file",
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
        "not a whole .npz file",
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


@functools.cache
def build(name: str) -> tuple[str, bytes, str]:
    """The ending and the content of a hostile file, made once, and what is to be said of it."""
    ending, make, message = HOSTILE[name]
    return ending, make(), message

"""Named arrays from files that anybody may have written: `.safetensors` and `.npz`.

Weights and gradients come from elsewhere, so a file is believed in nothing. What its headers claim
is compared with how many bytes are there before memory is taken, no Python object is ever made
from it, and each fault is one sentence.

An `.npz` is a zip archive of one `.npy` for each array: six magic bytes, a version, a header with
the dtype and the shape, and the numbers.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.files import CHUNK_BYTES, ByteStream, PathLike, read_bounded, write_atomically

FORMATS = (".safetensors", ".npz")

MAX_BYTES = 2**29
"""The largest file that is read: 134 million parameters in float32."""

MAX_GROWTH = 2**27
"""How many bytes more than it holds a compressed file may become: the limit of a zip bomb."""

MAX_HEADER = 2**20
"""How long the directory of a file may be, in bytes."""

MAX_NOTES = 2**16
"""How long a file of notes may be, in bytes; and no list in it has more than `MAX_LIST` entries."""

MAX_LIST = 100

MAX_TENSORS = 4096

MOST_LETTERS = 100
"""How much is quoted of what a file says."""

NPY_MAGIC = b"\x93NUMPY\x01\x00"
START_BYTES = len(NPY_MAGIC) + 2
"""How an array begins: the magic with the version, and the length of the header."""

HEADER = re.compile(
    rb"\{'descr': '([<>|=]\w{1,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,19}, ?){0,32}(?:\d{1,19})?)\), \} *\n"
)
"""What NumPy writes for an array of anything plain. Its own reader takes any Python literal."""

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""What safetensors calls the types of weights and gradients. NumPy has no bfloat16."""

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


def read_tensors(path: PathLike) -> dict[str, Array]:
    """Return the named arrays of a `.safetensors` or `.npz` file, in its order.

    bfloat16 becomes float32, which holds it exactly.

    Raises:
        ValueError: the file is of another kind, truncated, damaged or too large, or grows too
            large; an array of another dtype than 16, 32 or 64 bits of floating point, without
            entries, or not finite; no array at all.
        OSError: it is not there, or cannot be read.
    """
    path = _existing(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it holds more than the {MAX_BYTES:,} bytes that are read at most")
        tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_npz(path)
        for name, array in tensors.items():
            if array.size == 0:
                raise ValueError(f"{_shown(name)} has shape {array.shape} and so no entries")
            if not np.isfinite(array).all():
                raise ValueError(
                    f"{_shown(name)} holds NaN or infinity; save it before it overflows"
                )
        if not tensors:
            raise ValueError("it holds no tensor")
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be used: {error}") from error
    return tensors


def read_notes(path: PathLike) -> dict[str, str]:
    """Return what is said about a file of tensors, as text by key.

    That is the metadata of a `.safetensors` file, and over it what a JSON object in a file of the
    same name that ends in `.json` says, if there is one. Lists become text such as "1,28,28".

    Raises:
        ValueError: the JSON is damaged, too long, or no object of texts, numbers and lists of them;
            or as `read_tensors`.
        OSError: a file cannot be read.
    """
    path = _existing(path)
    notes: dict[str, str] = {}
    if path.suffix == ".safetensors":
        try:
            notes = _safetensors_notes(path)
        except ValueError as error:
            raise ValueError(f"{str(path)!r} cannot be used: {error}") from error
    beside = path.with_suffix(".json")
    if beside.is_file():
        try:
            with beside.open("rb") as file:
                said = json.loads(read_bounded(file, MAX_NOTES))
            notes |= {key: _as_text(value) for key, value in said.items()}
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{str(beside)!r} is no JSON object of texts, numbers and lists of them "
                f"({type(error).__name__}); put it right or take it away"
            ) from error
    return notes


def write_tensors(
    path: PathLike, tensors: Mapping[str, Array], notes: Mapping[str, str] | None = None
) -> None:
    """Write named arrays as `.safetensors` or `.npz`, as the path ends, with notes about them.

    The notes are safetensors' metadata; beside an `.npz`, which has none, they are a JSON file.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    path = Path(path)
    _require_format(path)
    plain = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    if path.suffix == ".safetensors":
        from safetensors.numpy import save

        content = save(plain, metadata=dict(notes) if notes else None)
        write_atomically(path, lambda file: file.write(content))
        return
    # mypy takes a name for the parameter `allow_pickle` of savez.
    write_atomically(path, lambda file: np.savez(file, **cast(Any, plain)))
    if notes:
        text = json.dumps(dict(notes), indent=2, ensure_ascii=False) + "\n"
        write_atomically(path.with_suffix(".json"), lambda file: file.write(text.encode()))


def _existing(path: PathLike) -> Path:
    path = Path(path)
    _require_format(path)
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is not there; give the path of a file")
    return path


def _require_format(path: Path) -> None:
    if path.suffix in FORMATS:
        return
    why = ", and tinyleak never loads a pickle" if path.suffix in PICKLES else ""
    raise ValueError(
        f"{str(path)!r} is neither .safetensors nor .npz{why}; save it with "
        "safetensors.torch.save_file or numpy.savez"
    )


def _read_safetensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError, deserialize

    _require_short_header(path)
    try:
        # The library compares every shape and offset with the bytes that are there.
        entries = deserialize(path.read_bytes())
    except SafetensorError as error:
        raise _damaged("safetensors", error) from error
    _require_few(len(entries))
    tensors = {}
    for name, entry in entries:
        dtype = entry["dtype"]
        if dtype not in DTYPES:
            raise _wrong_dtype(name, dtype)
        numbers = np.frombuffer(entry["data"], DTYPES[dtype])
        if dtype == "BF16":
            # A bfloat16 is the upper half of a float32.
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        if numbers.size:
            numbers = numbers.reshape(entry["shape"])
        tensors[name] = numbers
    return tensors


def _safetensors_notes(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    _require_short_header(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise _damaged("safetensors", error) from error


def _require_short_header(path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise ValueError(
            f"its header claims {length:,} bytes, and {MAX_HEADER:,} are read at most; "
            "it is damaged, or no safetensors file"
        )


class _ShortReads(io.FileIO):
    """A file read a little at a time, so that no claim inside it makes one read take all memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        everything = size is None or size < 0
        content = super().read(CHUNK_BYTES + 1 if everything else min(size or 0, CHUNK_BYTES + 1))
        if content is not None and len(content) > CHUNK_BYTES:
            raise ValueError(f"its directory is longer than {CHUNK_BYTES:,} bytes")
        return content or b""


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with _ShortReads(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _require_bounded(members, path.stat().st_size)
            tensors = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in tensors:
                    raise ValueError(f"it holds {_shown(name)} twice")
                with archive.open(member) as stream:
                    tensors[name] = _read_npy(name, stream, member.file_size)
            return tensors
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        if isinstance(error, PermissionError):
            raise
        raise _damaged(".npz", error) from error


def _require_bounded(members: list[zipfile.ZipInfo], held: int) -> None:
    """Refuse an archive that would become too large, or that only odd programs write."""
    _require_few(len(members))
    total = sum(member.file_size for member in members)
    if total > min(held + MAX_GROWTH, MAX_BYTES):
        raise ValueError(
            f"its {held:,} bytes would become {total:,}, which may be a zip bomb; "
            "save it uncompressed, with numpy.savez"
        )
    for member in members:
        encrypted = member.flag_bits & 1
        if encrypted or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"{_shown(member.filename)} is encrypted, or compressed as NumPy never does; "
                "save it with numpy.savez"
            )


def _read_npy(name: str, stream: ByteStream, size: int) -> Array:
    """Read one array of `size` bytes, header and all, once its header agrees with that."""
    start = stream.read(START_BYTES)
    length = int.from_bytes(start[len(NPY_MAGIC) :], "little")
    header = HEADER.fullmatch(stream.read(length)) if start.startswith(NPY_MAGIC) else None
    if header is None:
        raise ValueError(f"{_shown(name)} has no .npy header of numbers; save it with numpy.savez")
    dtype, in_columns, sizes = (group.decode() for group in header.groups())
    if dtype.startswith("|O"):
        raise ValueError(
            f"{_shown(name)} is an array of Python objects, which only a pickle could hold, and "
            "tinyleak never loads one; save numbers"
        )
    if dtype[1:] not in ("f2", "f4", "f8"):
        raise _wrong_dtype(name, dtype)
    shape = tuple(int(part) for part in sizes.split(",") if part)
    expected, there = math.prod(shape) * int(dtype[2]), size - START_BYTES - length
    if expected != there:
        raise ValueError(
            f"{_shown(name)} claims shape {shape} of {dtype}, {expected:,} bytes, "
            f"but {there:,} follow; save it again"
        )
    numbers = np.frombuffer(read_bounded(stream, expected), dtype)
    if numbers.size:
        numbers = numbers.reshape(shape, order="F" if in_columns == "True" else "C")
    return np.asarray(numbers, numbers.dtype.newbyteorder("="), order="C")


def _require_few(tensors: int) -> None:
    if tensors > MAX_TENSORS:
        raise ValueError(f"it holds {tensors:,} tensors, and {MAX_TENSORS:,} are read at most")


def _wrong_dtype(name: str, dtype: str) -> ValueError:
    return ValueError(
        f"{_shown(name)} has dtype {dtype[:40]}; weights and gradients are 16, 32 or 64 bits of "
        "floating point"
    )


def _damaged(kind: str, error: Exception) -> ValueError:
    # A library's message may quote what the file holds.
    return ValueError(f"it is no whole {kind} file ({_shown(str(error))[1:-1]}); save it again")


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        if len(value) > MAX_LIST:
            raise ValueError(f"a list of {len(value):,}")
        return ",".join(map(_as_text, value))
    if not isinstance(value, str | int | float):
        raise TypeError(f"{type(value).__name__} is no text and no number")
    return str(value)


def _shown(name: str) -> str:
    """Return a name as it can be printed: a file's names may be long, or move a cursor."""
    return ascii(name if len(name) <= MOST_LETTERS else f"{name[:MOST_LETTERS]}...")

"""Arrays out of an `.npz` that anybody may have written, without NumPy's own reader.

An `.npz` is a zip archive of one `.npy` for each array: six magic bytes, a version, a header with
the dtype and the shape, and the numbers.
"""

import io
import math
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.bounds import MAX_BYTES, damaged, require_few
from tinyleak.data.files import CHUNK_BYTES, ByteStream, read_bounded
from tinyleak.interop import quoted

MAX_GROWTH = 2**27
"""How many bytes more than it holds a compressed file may become: the limit of a zip bomb."""

NPY_MAGIC = b"\x93NUMPY\x01\x00"
START_BYTES = len(NPY_MAGIC) + 2
"""How an array begins: the magic with the version, and the length of the header."""

HEADER = re.compile(
    rb"\{'descr': '([<>|=]\w{1,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,19}, ?){0,32}(?:\d{1,19})?)\), \} *\n"
)
"""What NumPy writes for an array of anything plain. Its own reader takes any Python literal."""


class ShortReads(io.FileIO):
    """A file read a little at a time, so that no claim inside it makes one read take all memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        everything = size is None or size < 0
        content = super().read(CHUNK_BYTES + 1 if everything else min(size or 0, CHUNK_BYTES + 1))
        if content is not None and len(content) > CHUNK_BYTES:
            raise ValueError(f"its directory is longer than {CHUNK_BYTES:,} bytes")
        return content or b""


def read_npz(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays of floating point in an `.npz` file, and the dtype of each other, by name.

    A file that is damaged, would become too large, or holds Python objects is a ValueError.
    """
    try:
        with ShortReads(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            require_bounded(members, path.stat().st_size, "NumPy", "numpy.savez")
            tensors: dict[str, Array] = {}
            others: dict[str, str] = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in tensors or name in others:
                    raise ValueError(f"it holds {quoted(name)} twice")
                with archive.open(member) as stream:
                    read = _read_npy(name, stream, member.file_size)
                if isinstance(read, str):
                    others[name] = read
                else:
                    tensors[name] = read
            return tensors, others
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        if isinstance(error, PermissionError):
            raise
        raise damaged(".npz", error) from error


def require_bounded(members: list[zipfile.ZipInfo], held: int, library: str, writer: str) -> None:
    """Refuse an archive that would become too large, or that only odd programs write: a ValueError.

    `writer`, of `library`, is what should have written it.
    """
    require_few(len(members))
    total = sum(member.file_size for member in members)
    if total > min(held + MAX_GROWTH, MAX_BYTES):
        raise ValueError(
            f"its {held:,} bytes would become {total:,}, which may be a zip bomb; "
            f"save it uncompressed, with {writer}"
        )
    for member in members:
        encrypted = member.flag_bits & 1
        if encrypted or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"{quoted(member.filename)} is encrypted, or compressed as {library} never does; "
                f"save it with {writer}"
            )


def _read_npy(name: str, stream: ByteStream, size: int) -> Array | str:
    """Read one array of `size` bytes, header and all, once its header agrees with that.

    Of an array that is not of floating point only the dtype is returned.
    """
    start = stream.read(START_BYTES)
    length = int.from_bytes(start[len(NPY_MAGIC) :], "little")
    header = HEADER.fullmatch(stream.read(length)) if start.startswith(NPY_MAGIC) else None
    if header is None:
        raise ValueError(f"{quoted(name)} has no .npy header of numbers; save it with numpy.savez")
    dtype, in_columns, sizes = (group.decode() for group in header.groups())
    if dtype.startswith("|O"):
        raise ValueError(
            f"{quoted(name)} is an array of Python objects, which only a pickle could hold, and "
            "tinyleak never loads one; save numbers"
        )
    if dtype[1:] not in ("f2", "f4", "f8"):
        return dtype
    shape = tuple(int(part) for part in sizes.split(",") if part)
    expected, there = math.prod(shape) * int(dtype[2]), size - START_BYTES - length
    if expected != there:
        raise ValueError(
            f"{quoted(name)} claims shape {shape} of {dtype}, {expected:,} bytes, "
            f"but {there:,} follow; save it again"
        )
    numbers = np.frombuffer(read_bounded(stream, expected), dtype)
    if numbers.size:
        numbers = numbers.reshape(shape, order="F" if in_columns == "True" else "C")
    return np.asarray(numbers, numbers.dtype.newbyteorder("="), order="C")

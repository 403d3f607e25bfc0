"""What the worst file of each kind costs: 300 MB and about a second, whatever it claims to be.

Each is read in a process of its own, which is told apart from one that reads nothing.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from tinyleak.data import load_image, load_mnist
from tinyleak.data.cifar import ARCHIVE, FOLDER, RECORD_BYTES, load_cifar100
from tinyleak.data.image import MOST_PIXELS
from tinyleak.data.tensors import read_notes, read_tensors
from tinyleak.data.text import SPECIAL, load_tokenizer

BYTES = 300e6
SECONDS = 1.0 * float(os.environ.get("TINYLEAK_PATIENCE", "1.5"))
"""The second of an idle machine; on one that is at work beside, more of its clock goes by."""

Make = Callable[[Path], Any]


def cost(read: Callable[[], Any]) -> tuple[float, float, str]:
    """How many bytes more than now, and how many seconds of processor time, this takes."""
    answer, end = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest's may run here
        said = b"read"
        try:
            read()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}".encode()
        os.write(end, said[:1000])
        os._exit(0)
    os.close(end)
    _, _, used = os.wait4(child, 0)
    with os.fdopen(answer, "rb") as pipe:
        said = pipe.read().decode()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return used.ru_maxrss * 1024 - before, used.ru_utime + used.ru_stime, said


def picture(mode: str, name: str, pixels: int = 2**24, **options: Any) -> Make:
    """An image of so many pixels, which compress to next to nothing."""

    def make(folder: Path) -> Callable[[], Any]:
        side = int(pixels**0.5)
        if mode == "I;16":
            image = Image.fromarray(np.full((side, side), 300, np.uint16))
        else:
            image = Image.new(mode, (side, side), 0 if mode in "1LP" else None)
        image.save(folder / name, **options)
        return lambda: load_image(folder / name, (3, 28, 28))

    return make


def noise(name: str, pixels: int) -> Make:
    """An image of so many pixels, none like its neighbours: all the work there can be."""

    def make(folder: Path) -> Callable[[], Any]:
        side = int(pixels**0.5)
        colours = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(colours).save(folder / name)
        return lambda: load_image(folder / name, (3, 28, 28))

    return make


def png_bomb(folder: Path) -> Callable[[], Any]:
    """Some kilobytes that say they are 30,000 pixels wide and high."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">2I5B", 9000, 9000, 16, 6, 0, 0, 0)
    content = zlib.compress(bytes(2**24))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return lambda: load_image(folder / "a.png", (3, 28, 28))


def tiff_of_one_tile(folder: Path) -> Callable[[], Any]:
    """An image of 16 by 16 pixels in a tile of 16,384 by 16,384."""
    Image.new("L", (16, 16)).save(folder / "a.tif")
    content = zlib.compress(bytes(2**28), 1)
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, 2**14)]
    tags += [(323, 2**14), (324, 200), (325, len(content))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    (folder / "a.tif").write_bytes(file.ljust(200, b"\0") + content)
    return lambda: load_image(folder / "a.tif", (1, 28, 28))


def jpeg_of_many_scans(folder: Path) -> Callable[[], Any]:
    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    scan = content[last:-2]
    (folder / "a.jpg").write_bytes(content[:last] + scan * 3000 + b"\xff\xd9")
    return lambda: load_image(folder / "a.jpg", (1, 28, 28))


def mnist(count: int, side: int) -> Make:
    def make(folder: Path) -> Callable[[], Any]:
        header = struct.pack(">4B3I", 0, 0, 8, 3, count, side, side)
        images = gzip.compress(header + bytes(count * side * side))
        (folder / "t10k-images-idx3-ubyte.gz").write_bytes(images)
        labels = struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(count)
        (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
        return lambda: load_mnist(folder)

    return make


def cifar(name: str, size: int, pax: bool = False) -> Make:
    def make(folder: Path) -> Callable[[], Any]:
        with tarfile.open(folder / ARCHIVE, "w:gz", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo(name)
            member.size = size
            if pax:
                member.pax_headers = {"comment": "x" * 2**26}
            archive.addfile(member, io.BytesIO(bytes(size)))
        return lambda: load_cifar100(folder)

    return make


def text(name: str, content: Callable[[], str]) -> Make:
    def make(folder: Path) -> Callable[[], Any]:
        (folder / name).write_text(content(), encoding="utf-8")
        return lambda: load_tokenizer(folder / name)

    return make


def tensors(compression: int, size: int) -> Make:
    def make(folder: Path) -> Callable[[], Any]:
        header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({size // 2},), }}\n"
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        with zipfile.ZipFile(folder / "a.npz", "w", compression) as archive:
            archive.writestr("a.npy", array + bytes(size))
        return lambda: read_tensors(folder / "a.npz")

    return make


def notes(content: str) -> Make:
    def make(folder: Path) -> Callable[[], Any]:
        np.savez(folder / "a.npz", a=np.ones(2))
        (folder / "a.json").write_text(content)
        return lambda: read_notes(folder / "a.npz")

    return make


DISTINCT = [chr(a) + chr(b) for a in range(0x4E00, 0x4E00 + 900) for b in range(0x4E00, 0x4F00)]

CASES: dict[str, Make] = {
    "png, colour": picture("RGB", "a.png"),
    "png, transparent": picture("RGBA", "a.png"),
    "png, grey and transparent": picture("LA", "a.png"),
    "png, a transparent palette": picture("P", "a.png", transparency=0),
    "png, black and white": picture("1", "a.png"),
    "png, 16 bits": picture("I;16", "a.png"),
    "png, too many pixels": png_bomb,
    "jpeg": picture("RGB", "a.jpg", MOST_PIXELS["JPEG"]),
    "jpeg, four colours": picture("CMYK", "a.jpg", MOST_PIXELS["JPEG"]),
    "jpeg, progressive": picture("RGB", "a.jpg", progressive=True, subsampling=0, quality=100),
    "jpeg, of many scans": jpeg_of_many_scans,
    "gif": picture("P", "a.gif"),
    "bmp": picture("RGB", "a.bmp", 2**22),
    "tga": picture("RGBA", "a.tga", compression="tga_rle"),
    "tiff": picture("RGB", "a.tif", compression="tiff_deflate"),
    "tiff, four colours": picture("CMYK", "a.tif", compression="tiff_lzw"),
    "tiff, 16 bits": picture("I;16", "a.tif", compression="tiff_deflate"),
    "tiff, floating point": picture("F", "a.tif", compression="tiff_deflate"),
    "tiff, one huge tile": tiff_of_one_tile,
    "mnist": mnist(16_000, 32),
    "mnist, too long": mnist(2**18, 28),
    "mnist, one image": mnist(1, 4095),
    "cifar": cifar(f"{FOLDER}/test.bin", 10_000 * RECORD_BYTES),
    "cifar, too long": cifar(f"{FOLDER}/test.bin", 10_001 * RECORD_BYTES),
    "cifar, something before it": cifar("before", 2**28),
    "cifar, a long header": cifar("before", 10, pax=True),
    "vocabulary": text("a.txt", lambda: "\n".join([*SPECIAL, *DISTINCT])),
    "vocabulary, of nothing": text("a.txt", lambda: "\n" * 2**23),
    "vocabulary, of GPT-2": text("a.json", lambda: json.dumps(dict.fromkeys(DISTINCT, 1))),
    "vocabulary, of lists": text("a.json", lambda: "[" + "[]," * 2_700_000 + "[]]"),
    "npz": tensors(zipfile.ZIP_DEFLATED, 2**27),
    "npz, too large": tensors(zipfile.ZIP_DEFLATED, 2**28),
    "notes": notes("[" * 2**16),
    "notes, too long": notes(" " * 2**24),
}
if features.check("webp"):
    CASES["webp"] = picture("RGB", "a.webp", MOST_PIXELS["WEBP"])
    CASES["webp, lossless"] = picture(
        "RGBA", "a.webp", MOST_PIXELS["WEBP"], lossless=True, method=0
    )
if features.check("avif"):
    CASES["avif"] = picture("RGB", "a.avif", MOST_PIXELS["AVIF"], speed=10)
if features.check("jpg_2000"):
    CASES["jpeg 2000"] = noise("a.jp2", MOST_PIXELS["JPEG2000"])


QUICK = {
    *("png, colour", "png, a transparent palette", "png, 16 bits", "png, too many pixels"),
    *("jpeg", "jpeg, of many scans", "tiff, one huge tile", "gif", "webp, lossless", "avif"),
    *("mnist, one image", "cifar", "cifar, a long header", "npz", "vocabulary"),
    *("vocabulary, of nothing", "vocabulary, of lists", "notes", "notes, too long"),
}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_the_worst_file_costs_little(tmp_path: Path, name: str) -> None:
    began = time.perf_counter()
    read = CASES[name](tmp_path)
    made = time.perf_counter() - began
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    memory, seconds, said = cost(read)
    if seconds >= SECONDS:  # a reader that is slow is slow twice, and a machine that is busy is not
        memory, seconds, said = cost(read)
    print(f"{name:<28} {size:>12,} bytes, made in {made:4.1f} s: {memory / 1e6:6.0f} MB, ", end="")
    print(f"{seconds:5.2f} s; {said[:90]}")
    assert memory < BYTES
    assert seconds < SECONDS

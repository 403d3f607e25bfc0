"""MNIST: 28×28 grey handwritten digits, from files in the IDX format.

An IDX file is a header and then the values. The header is two zero bytes, a type code (8 stands
for unsigned bytes), the number of dimensions, and each dimension as a big-endian 32-bit integer.
Other data in MNIST's format and file names, such as Fashion-MNIST, can be read from a folder.
"""

import gzip
import hashlib
import struct
import zlib
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.dataset import Dataset
from tinyleak.data.files import cache_folder, download, find_file, read_bounded

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
CLASSES = 10
# The images of the training split hold 47,040,016 bytes. For the 7,840,016 of the test split a
# quarter does: in memory each byte becomes eight.
MAX_BYTES = 2**26
UNSIGNED_BYTE = 8


class Checksums(NamedTuple):
    """MD5 of a published archive, and of the IDX file inside it."""

    archive: str
    content: str


PUBLISHED = {
    "t10k-images-idx3-ubyte": Checksums(
        "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"
    ),
    "t10k-labels-idx1-ubyte": Checksums(
        "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"
    ),
    "train-images-idx3-ubyte": Checksums(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"
    ),
    "train-labels-idx1-ubyte": Checksums(
        "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"
    ),
}
FILE_PREFIX = {"test": "t10k", "train": "train"}


def load_mnist(data_dir: str | Path | None = None, split: str = "test") -> Dataset:
    """Return a split of MNIST: images (n, 1, 28, 28) and labels 0 to 9.

    Args:
        data_dir: a folder with the split's two files, gzipped or not. They are checked for their
            structure alone. Without a folder the published files are taken from the user's cache,
            or downloaded into it, and their checksums are verified.
        split: `"test"`, 10,000 images, or `"train"`, 60,000.

    Raises:
        ValueError: an unknown split; a file that is empty, truncated, not gzip, too long, not IDX
            or of the wrong dimensions; another count of labels than of images; a label over 9.
        OSError: no such folder, a file missing from it, or nothing cached and no download.
    """
    if split not in FILE_PREFIX:
        raise ValueError(f'split {split!r} of MNIST is unknown; choose "test" or "train"')
    prefix = FILE_PREFIX[split]
    most = MAX_BYTES if split == "train" else MAX_BYTES // 4
    images = read_idx(_locate(f"{prefix}-images-idx3-ubyte", data_dir), dimensions=3, most=most)
    labels = read_idx(_locate(f"{prefix}-labels-idx1-ubyte", data_dir), dimensions=1, most=most)
    if len(images) != len(labels):
        raise ValueError(
            f"the {split} split of MNIST has {len(images)} images but {len(labels)} labels; "
            "take both files from the same source"
        )
    return Dataset("mnist", images[:, np.newaxis] / 255.0, labels.astype(np.int64), CLASSES)


def read_idx(path: Path, dimensions: int, most: int | None = None) -> Array:
    """Return the values of an IDX file of unsigned bytes, as uint8 of the shape in its header.

    It is gzipped exactly if its name ends in `.gz`, and must have so many `dimensions`: 3 for
    images (n, H, W), 1 for labels (n,). It may hold `most` bytes, decompressed; `MAX_BYTES` by
    default. One that is empty, truncated, too long, or of another kind is a ValueError.
    """
    content = _read_content(path, most)
    header_size = 4 + 4 * dimensions
    magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if not content:
        raise ValueError(f"{path} is empty; get the file again")
    if content[:4] != magic:
        raise ValueError(
            f"{path} begins with the bytes {content[:4].hex(' ')}, but an IDX file of unsigned "
            f"bytes with {dimensions} dimension(s) begins with {magic.hex(' ')}"
        )
    if len(content) < header_size:
        raise ValueError(f"{path} is truncated: it ends within its header; get the file again")
    shape = struct.unpack(f">{dimensions}I", content[4:header_size])
    values = len(content) - header_size
    if prod(shape) == 0:
        raise ValueError(f"{path} holds nothing: its header gives the shape {shape}")
    if values != prod(shape):
        fault = "is truncated" if values < prod(shape) else "is too long"
        raise ValueError(
            f"{path} {fault}: its header promises {prod(shape):,} values, shape {shape}, "
            f"but {values:,} follow; get the file again"
        )
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)


def _read_content(path: Path, most: int | None = None) -> bytes:
    """Return a file's bytes, decompressed if its name ends in `.gz`."""
    most = MAX_BYTES if most is None else most
    with path.open("rb") as file:
        try:
            if path.suffix != ".gz":
                return read_bounded(file, most)
            with gzip.GzipFile(fileobj=file) as decompressed:
                return read_bounded(decompressed, most)
        except gzip.BadGzipFile as error:
            raise ValueError(
                f"{path} is not a gzip file, or a damaged one; get it again"
            ) from error
        except zlib.error as error:
            raise ValueError(f"{path} is a damaged gzip file; get it again") from error
        except EOFError as error:
            raise ValueError(f"{path} is truncated; get the file again") from error
        except ValueError as error:
            raise ValueError(f"{path} is not an MNIST file: {error}") from error


def _locate(name: str, data_dir: str | Path | None) -> Path:
    if data_dir is not None:
        return find_file(data_dir, [f"{name}.gz", name])
    cached = cache_folder() / f"{name}.gz"
    if cached.is_file() and _is_published(cached):
        return cached
    return download(f"{name}.gz", MIRRORS, PUBLISHED[name].archive)


def _is_published(path: Path) -> bool:
    # The content is compared, not the archive: compressed anew, MNIST is still MNIST.
    try:
        content = _read_content(path)
    except ValueError:
        return False
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return digest == PUBLISHED[path.stem].content

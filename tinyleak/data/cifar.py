"""CIFAR-100: 32×32 colour photographs in a hundred classes, from the archive's binary version.

The file of a split is a row of records: one byte for the coarse class, one for the fine class,
then 3072 for the pixels, channel by channel (red, green, blue) and row by row.
"""

import gzip
import tarfile
import zlib
from pathlib import Path

import numpy as np

from tinyleak.data.dataset import Dataset
from tinyleak.data.files import download, find_file, read_bounded

ARCHIVE = "cifar-100-binary.tar.gz"
ARCHIVE_MD5 = "03b5dce01913d631647c71ecec9e9cb8"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
FOLDER = "cifar-100-binary"
SPLITS = ("test", "train")
CLASSES = 100
IMAGE_SHAPE = (3, 32, 32)
RECORD_BYTES = 2 + 3 * 32 * 32
MAX_BYTES = 50_000 * RECORD_BYTES  # the training split; the test split has a fifth of it
MAX_ARCHIVE, MAX_HEADER = 2**28, 2**20
"""How many bytes the archive may hold, decompressed, of which both splits have 185 million; and how
many there may be between two of its files."""


def load_cifar100(data_dir: str | Path | None = None, split: str = "test") -> Dataset:
    """Return a split of CIFAR-100: images (n, 3, 32, 32) and the fine labels, 0 to 99.

    Args:
        data_dir: a folder with `cifar-100-binary.tar.gz`, or with the split's unpacked
            `test.bin` or `train.bin`. Without a folder the published archive (161 MB) is taken
            from the user's cache, or downloaded into it, and its checksum is verified.
        split: `"test"`, 10,000 images, or `"train"`, 50,000, which take 1.2 GB as float64.

    Raises:
        ValueError: an unknown split, a damaged archive or one without the split, a file that
            does not consist of whole records, a label over 99.
        OSError: no such folder, nothing fitting in it, or nothing cached and no download.
    """
    if split not in SPLITS:
        raise ValueError(f'split {split!r} of CIFAR-100 is unknown; choose "test" or "train"')
    name = f"{split}.bin"
    if data_dir is None:
        path = download(ARCHIVE, MIRRORS, ARCHIVE_MD5, progress_bar=True)
    else:
        path = find_file(data_dir, [ARCHIVE, name, f"{FOLDER}/{name}"])
    content = _read_content(path, name, MAX_BYTES if split == "train" else MAX_BYTES // 5)
    if not content or len(content) % RECORD_BYTES:
        raise ValueError(
            f"{path} is truncated, or not a CIFAR-100 file: {len(content):,} bytes are "
            f"not a whole number of records of {RECORD_BYTES:,} bytes; get the file again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    images = records[:, 2:].reshape(-1, *IMAGE_SHAPE) / 255.0
    return Dataset("cifar100", images, records[:, 1].astype(np.int64), CLASSES)


class _Bounded(gzip.GzipFile):
    """A gzip file that ends where an archive of this data would have ended long ago."""

    limit = MAX_HEADER

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > self.limit:
            raise EOFError(f"it holds more than {self.limit:,} bytes")
        return super().read(size)


def _read_content(path: Path, name: str, most: int) -> bytes:
    """Return the bytes of a split's file, from the archive or as it is."""
    try:
        if path.name != ARCHIVE:
            with path.open("rb") as file:
                return read_bounded(file, most)
        # A stream, read once from its beginning to its end.
        with _Bounded(path) as content, tarfile.open(fileobj=content, mode="r|") as archive:
            for member in archive:
                content.limit = min(content.tell() + member.size + MAX_HEADER, MAX_ARCHIVE)
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None and member.name == f"{FOLDER}/{name}":
                    return read_bounded(stream, most)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged archive; get the file again") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a CIFAR-100 file: {error}") from error
    raise ValueError(f"{path} does not hold {FOLDER}/{name}; get the file again")

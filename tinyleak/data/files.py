"""Files: the user's cache, downloads with a checksum, bounded reading, and whole writing."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias
from urllib.parse import urlsplit

PathLike: TypeAlias = str | os.PathLike[str]

CHUNK_BYTES = 2**20


class ByteStream(Protocol):
    """Anything that is read a piece at a time."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, and none at the end."""


def read_bounded(stream: ByteStream, limit: int) -> bytes:
    """Return all the stream's bytes; a ValueError if there are more than `limit`.

    It is read in pieces, so that memory goes to bytes that are there and not to bytes that a header
    promises, and a small file that decompresses to a huge one is given up in time.
    """
    content = bytearray()
    while piece := stream.read(CHUNK_BYTES):
        content += piece
        if len(content) > limit:
            raise ValueError(f"it holds more than the {limit:,} bytes that are possible here")
    return bytes(content)


def write_atomically(path: PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Have `write` fill a file that appears at `path` only once it is whole.

    Until then it has no name, or a temporary one in the same directory; if `write` fails or is
    interrupted, nothing of it is left and whatever was at `path` stays. An OSError says which file
    cannot be written, and why.
    """
    target = Path(path)
    # Not one of the tempfile module's: those only their owner may read, and so could the result.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        try:
            with _new_file(temporary) as file:
                write(file)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise type(error)(
            f"{target} cannot be written ({error.strerror or error}); choose another --out"
        ) from error


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a new file to write to, which gets its name, and is seen, only once it is whole.

    So a process that is killed leaves nothing behind. Where the system has no files without a name,
    as on Windows, it leaves this one.
    """
    try:
        descriptor = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, 0o666)
    except (AttributeError, OSError):
        with path.open("wb") as file:
            yield file
        return
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)  # which follows it


def find_file(folder: str | Path, names: Sequence[str]) -> Path:
    """Return the first of the named files that the folder holds; an OSError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(
            f"data folder {str(folder)!r} is not there; give a folder that holds {names[0]}"
        )
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"data folder {str(folder)!r} does not hold {' or '.join(names)}; "
        "put the file there, or leave the folder out to have it downloaded"
    )


def cache_folder() -> Path:
    """Return where downloads are kept for this user."""
    import pooch

    return Path(pooch.os_cache("tinyleak"))


def download(
    file_name: str, mirrors: Sequence[str], md5: str, *, progress_bar: bool = False
) -> Path:
    """Return the file from the user's cache, after downloading it if it is not there yet.

    Args:
        file_name: its name on the mirrors and in the cache.
        mirrors: addresses of folders, each with a slash at its end, tried in order.
        md5: checksum of the file, in hexadecimal; a file with another one is never used.
        progress_bar: whether to show how far a large file is.

    Raises:
        OSError: the cache cannot be written, or no mirror gave the file.
    """
    import pooch

    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the download cache {str(cache)!r} cannot be made ({error.strerror}); "
            f"put {file_name} into a folder of yours and name that as data folder"
        ) from error
    failures = []
    for mirror in mirrors:
        try:
            path = pooch.retrieve(
                mirror + file_name,
                known_hash=f"md5:{md5}",
                fname=file_name,
                path=cache,
                progressbar=progress_bar,
            )
        except (OSError, ValueError) as error:
            # Network errors are OSErrors here; the one plain ValueError is pooch's comparison.
            why = getattr(error, "strerror", None) or type(error).__name__
            why = why if isinstance(error, OSError) else "wrong checksum"
            failures.append(f"{urlsplit(mirror).hostname}: {why}")
        else:
            return Path(path)
    raise OSError(
        f"{file_name} could not be downloaded ({'; '.join(failures)}); check the network, "
        "or put the file into a folder of yours and name that as data folder"
    )

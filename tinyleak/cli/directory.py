"""The directory of --out, prepared before anything is computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tinyleak.report import prepare_directory


@contextlib.contextmanager
def output_directory(path: Path | None, *, force: bool) -> Iterator[Path | None]:
    """Prepare the output directory before anything is computed, so that nothing is in vain.

    Where the request then turns out to be bad, take the new, empty directory away again: the same
    command, put right, is not to be refused because of it.
    """
    directory = None if path is None else prepare_directory(path, force=force)
    try:
        yield directory
    except BaseException:
        if directory is not None and not force:
            with contextlib.suppress(OSError):  # it is not empty
                directory.rmdir()
        raise

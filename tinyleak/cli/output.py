"""What comes out of a command: the options that ask for it, its directory, and how it ends."""

from __future__ import annotations

import argparse
import contextlib
import platform
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak import __version__
from tinyleak.backend import device_module
from tinyleak.report import prepare_directory

WIDTH = 100
"""Columns of text."""


def add_output_options(
    parser: argparse.ArgumentParser,
    holds: str,
    *,
    required: bool = False,
    quiet: str = "no progress bar and no summary",
) -> Any:
    """Declare --out, --force and --quiet, and return their group.

    Args:
        parser: the command's.
        holds: what the directory is for.
        required: whether the command is of no use without one.
        quiet: what is left out.
    """
    group = parser.add_argument_group("what comes out")
    group.add_argument(
        "--out", metavar="DIR", type=Path, required=required, help=f"a new directory for {holds}"
    )
    group.add_argument("--force", action="store_true", help="write into DIR even if it exists")
    group.add_argument("--quiet", action="store_true", help=quiet)
    return group


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


def paragraphs(said: Mapping[str, str]) -> str:
    """Return each topic and, in a column beside them, what is said of it."""
    width = 2 + max(map(len, said))
    return "\n".join(
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=topic.ljust(width),
            subsequent_indent=" " * width,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for topic, text in said.items()
    )


def written(directory: Path | None, files: Sequence[str], what: str) -> str:
    """Return which files were written, or what --out would write."""
    if directory is None:
        return f"none (--out DIR writes {what})"
    return f"{directory}: {', '.join(files)}"


def counted(number: int, what: str) -> str:
    """Return "1 iteration", "2 iterations"."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def readable(path: Path | None) -> str | None:
    """Return a path as text that UTF-8 can hold, whatever bytes it is made of."""
    return None if path is None else str(path).encode(errors="backslashreplace").decode()


def versions(device: str) -> dict[str, str]:
    """Return the versions of all that has a say in the numbers."""
    versions = {
        "tinyleak": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    if device == "cuda":
        versions["cupy"] = device_module(device).__version__
    return versions


def end(
    args: argparse.Namespace, summary: Callable[[], str], *, succeeded: bool, interrupted: bool
) -> int:
    """Print an attack's summary, unless it is to be quiet, and return the exit code."""
    if not args.quiet:
        print(summary())
    if interrupted:
        kept = "was not kept, for want of --out" if args.out is None else f"is in {args.out}"
        print(f"tinyleak: interrupted; the best so far {kept}", file=sys.stderr)
        return 1
    return 0 if succeeded else 1

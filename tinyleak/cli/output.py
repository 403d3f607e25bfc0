"""What comes out of a command: the options that ask for it, its directory, and how it ends."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tinyleak.report import prepare_directory


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


def written(directory: Path | None, files: Sequence[str], what: str) -> str:
    """Return which files were written, or what --out would write."""
    if directory is None:
        return f"none (--out DIR writes {what})"
    return f"{directory}: {', '.join(files)}"


def counted(number: int, what: str) -> str:
    """Return "1 iteration", "2 iterations"."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def end(
    args: argparse.Namespace,
    summary: Callable[[], str],
    *,
    succeeded: bool,
    interrupted: bool,
) -> int:
    """Print an attack's summary, unless it is to be quiet, and return the exit code."""
    if not args.quiet:
        print(summary())
    if interrupted:
        kept = "was not kept, for want of --out" if args.out is None else f"is in {args.out}"
        print(f"tinyleak: interrupted; the best so far {kept}", file=sys.stderr)
        return 1
    return 0 if succeeded else 1

"""What comes out of a command: the options that ask for it, its files, and what it prints."""

import argparse
import contextlib
import os
import platform
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak import __version__
from tinyleak.backend import device_module
from tinyleak.cli.options import flag
from tinyleak.report import prepare_directory, printable

WIDTH = 100  # columns of text


def add_output_options(
    parser: argparse.ArgumentParser,
    holds: str,
    *,
    required: bool = False,
    quiet: str = "no progress bar and no summary",
) -> Any:
    """Declare --out, a directory for what it `holds`, --force and --quiet; return the group."""
    group = parser.add_argument_group("what comes out")
    group.add_argument(
        "--out", metavar="DIR", type=Path, required=required, help=f"a new directory for {holds}"
    )
    group.add_argument("--force", action="store_true", help="write into DIR even if it exists")
    group.add_argument("--quiet", action="store_true", help=quiet)
    return group


DATA_FILES = ("*-ubyte*", "*.bin", "*/*.bin", "*.gz")  # which files of a --data-dir are read


class OutputError(OSError):
    """The standard output cannot be written to."""


def say(text: str, *, error: bool = False, end: str = "\n") -> None:
    """Print a text, on the standard error if it is about one: here alone anything is printed.

    What a terminal would obey is escaped, since names of files and tokens may hold it. A standard
    error that is not there any more, as of a terminal that was closed, is no reason to fail.
    OutputError is raised where the disk is full, or the reader has left.
    """
    if error and sys.stderr is None:  # of a program without a console
        return
    try:
        print(printable(text), end=end, file=sys.stderr if error else sys.stdout, flush=True)
    except OSError as failure:
        if not error:
            raise OutputError(failure.errno, failure.strerror) from failure


@contextlib.contextmanager
def output_directory(args: argparse.Namespace, files: Sequence[str]) -> Iterator[Path | None]:
    """Prepare --out before anything is computed, so that nothing is in vain.

    Where nothing comes of it, take what was made and is empty away again: the same command, put
    right, is not to be refused because of it. None of the `files` to be written may be an input.
    """
    if args.out is None:
        yield None
        return
    require_apart(args, {"--out": [args.out / name for name in files]})
    made = [path for path in (args.out, *args.out.parents) if not path.exists()]
    try:
        yield prepare_directory(args.out, force=args.force)
    except BaseException:
        with contextlib.suppress(OSError):  # one is not empty
            for path in made:
                path.rmdir()
        raise


def require_apart(args: argparse.Namespace, outputs: Mapping[str, Iterable[Path]]) -> None:
    """Refuse an output that is an input or another output, by whatever names and links.

    Every path among `args` is an input, and so are the notes beside it, unless it is the option of
    an output. `outputs` are the files and directories to be written, by the option that asks.
    """
    taken: dict[Any, str] = {}
    for name, value in vars(args).items():
        for path in value if isinstance(value, list) else [value]:
            if not isinstance(path, Path) or flag(name) in outputs:
                continue
            files = [path, path.with_suffix(".json")] if not path.is_dir() else []
            files += [file for pattern in DATA_FILES for file in path.glob(pattern)]
            taken |= {_identity(file): f"{flag(name)} reads" for file in files}
    for option, paths in outputs.items():
        written = list(paths)
        for path in written:
            for one in (path, *path.parents):
                if _identity(one) in taken:
                    raise ValueError(
                        f"{option} would write {path}, which {taken[_identity(one)]}; choose "
                        f"another {option}"
                    )
        taken |= {_identity(path): f"{option} writes" for path in written}


def _identity(path: Path) -> Any:
    """Return what is the same for two names of one file."""
    try:
        found = path.stat()
    except OSError:
        return os.path.normcase(os.path.realpath(path))
    return found.st_dev, found.st_ino


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
    python = platform.python_version()
    own = {"tinyleak": __version__, "python": python, "numpy": np.__version__}
    return own | ({"cupy": device_module(device).__version__} if device == "cuda" else {})


def end(
    args: argparse.Namespace, summary: Callable[[], str], *, succeeded: bool, interrupted: bool
) -> int:
    """Print an attack's summary, unless it is to be quiet, and return the exit code."""
    if not args.quiet:
        say(summary())
    if interrupted:
        kept = "was not kept, for want of --out" if args.out is None else f"is in {args.out}"
        say(f"tinyleak: interrupted; the best so far {kept}", error=True)
    return 0 if succeeded and not interrupted else 1

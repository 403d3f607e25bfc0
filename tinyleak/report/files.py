"""The output directory, files that are either whole or not there, and text that only reads."""

import html
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
import numpy.typing as npt

from tinyleak.data.files import PathLike, write_atomically


def prepare_directory(path: PathLike, *, force: bool = False) -> Path:
    """Create the output directory, with its parents, and return it.

    With `force` an existing directory is used as it is: files of the same name will be replaced,
    others stay. Whether it can be written to is tried now, not after an attack of an hour.

    Raises:
        FileExistsError: the directory exists, and `force` is not given.
        NotADirectoryError: a file is in the way.
        OSError: the directory cannot be created or written to.
    """
    directory = Path(path)
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        if not directory.is_dir():
            raise NotADirectoryError(
                f"output directory {directory} is a file, not a directory; choose another --out"
            ) from None
        if not force:
            raise FileExistsError(
                f"output directory {directory} exists already; choose another --out, "
                "or replace the files in it with --force"
            ) from None
    except OSError as error:
        raise _unwritable(directory, error) from error
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise _unwritable(directory, error) from error
    return directory


def _unwritable(directory: Path, error: OSError) -> OSError:
    return type(error)(
        f"output directory {directory} cannot be written to ({error.strerror or error}); "
        "choose another --out"
    )


def write_json(path: PathLike, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, in the order of its keys, for people and programs to read.

    Arrays become lists and NumPy scalars numbers. JSON has no NaN and no infinity: both are
    written as null.

    Raises:
        TypeError: a value other than a number, string, None, path, array, list or mapping of these.
        OSError: the file cannot be written.
    """
    text = json.dumps(_plain(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # What a terminal would obey is as good an escape in JSON as it is in Python.
    plain = "".join(c if _is_plain(c) else json.dumps(c)[1:-1] for c in text)
    write_atomically(path, lambda file: file.write(plain.encode()))


def printable(text: str) -> str:
    r"""Return a text in which all that does not print, but for line ends, is an escape as `\x1b`.

    A terminal obeys control characters, which a vocabulary or a name may hold.
    """
    return "".join(c if _is_plain(c) else c.encode("unicode_escape").decode() for c in text)


def _is_plain(character: str) -> bool:
    """Whether a character is a letter, sign, space or line end: not a control, nor half of one."""
    return character.isprintable() or character == "\n" or category(character) == "Zs"


def _plain(value: Any) -> Any:
    """The value made of what JSON has, and nothing else."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(
        f"a result of type {type(value).__name__} ({value!r}) has no form in JSON; "
        "give numbers, strings, None, paths, arrays, lists or dicts"
    )


def write_arrays(path: PathLike, **arrays: npt.ArrayLike) -> None:
    """Write named arrays as an .npz that `numpy.load(path, allow_pickle=False)` reads.

    It is not compressed, since compressed bytes differ from one zlib to the next. An array of
    Python objects, which only a pickle could hold, is a TypeError.
    """
    plain: dict[str, Any] = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise TypeError(
                f"array {name!r} has dtype {array.dtype}, which needs a pickle; "
                "give numbers, booleans or strings"
            )
    # NumPy leaves the date of every entry at zip's first, so no clock enters the bytes.
    write_atomically(path, lambda file: np.savez(file, **plain))


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
{style}
</head>
<body>
{body}
</body>
</html>
"""


def write_page(path: PathLike, title: str, style: str, body: str) -> None:
    """Write a page that appears under its name once it is whole; `style` is a `<style>` element."""
    page = PAGE.format(title=html.escape(title), style=style, body=body)
    write_atomically(path, lambda file: file.write(page.encode()))

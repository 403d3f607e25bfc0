"""Named arrays from files that anybody may have written: `.safetensors` and `.npz`.

Weights and gradients come from elsewhere, so nothing in a file is trusted. What its headers claim
is compared with how many bytes are there before memory is taken, no Python object is ever made
from it, and each fault is one sentence.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.bounds import bounded, damaged, require_few, wrong_dtype
from tinyleak.data.files import PathLike, read_bounded, write_atomically
from tinyleak.data.npz import read_npz
from tinyleak.interop import quoted

FORMATS = (".safetensors", ".npz")

MAX_HEADER = 2**20  # how long the directory of a file may be, in bytes
MAX_NOTES = 2**16  # how long a file of notes may be, in bytes
MAX_LIST = 100  # how many entries a list in it may have to be read as text

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""What safetensors calls the types of weights and gradients. NumPy has no bfloat16."""

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


def read_tensors(path: PathLike) -> dict[str, Array]:
    """Return the named arrays of floating point in a `.safetensors` or `.npz` file, in its order.

    bfloat16 becomes float32, which holds it exactly. Others, such as a counter of batches or the
    state of a random generator, are no weights and are left out (`read_with_others` names them).

    Raises:
        ValueError: the file is of another kind, truncated, damaged or too large, or grows too
            large; an array without entries, or not finite; none of 16, 32 or 64 bits of floating
            point.
        OSError: it is not there, or cannot be read.
    """
    return read_with_others(path)[0]


def read_with_others(path: PathLike) -> tuple[dict[str, Array], dict[str, str]]:
    """As `read_tensors`; and return the dtype of each array that is left out, by name."""
    path = Path(path)
    _require_format(path)
    with bounded(path):
        read = _read_safetensors if path.suffix == ".safetensors" else read_npz
        tensors, others = read(path)
        for name, array in tensors.items():
            if array.size == 0:
                raise ValueError(f"{quoted(name)} has shape {array.shape} and so no entries")
            if not np.isfinite(array).all():
                raise ValueError(
                    f"{quoted(name)} holds NaN or infinity; save it before it overflows"
                )
        if others and not tensors:
            raise wrong_dtype(*next(iter(others.items())))
        if not tensors:
            raise ValueError("it holds no tensor")
    return tensors, others


def read_notes(path: PathLike) -> dict[str, Any]:
    """Return the notes on a file of tensors, by key.

    They are the metadata of a `.safetensors` file, and a JSON object in the file of the same name
    that ends in `.json`, which overrides them. Numbers and lists become text such as "1,28,28";
    what is nested, long or null means something to another tool only, and stays as it is.

    Raises:
        ValueError: the JSON is damaged, too long, or not an object; or as `read_tensors`.
        OSError: a file cannot be read.
    """
    path = Path(path)
    _require_format(path)
    with bounded(path):
        notes: dict[str, Any] = _safetensors_notes(path) if path.suffix == ".safetensors" else {}
    beside = path.with_suffix(".json")
    if beside.is_file():
        try:
            with beside.open("rb") as file:
                said = json.loads(read_bounded(file, MAX_NOTES))
            notes |= {key: _as_text(value) for key, value in said.items()}
        except (ValueError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{str(beside)!r} is not a JSON object of texts, numbers and lists "
                f"({type(error).__name__}); put it right or take it away"
            ) from error
    return notes


def write_tensors(path: PathLike, tensors: Mapping[str, Array]) -> None:
    """Write named arrays as `.safetensors` or `.npz`, as the path ends; another is a ValueError."""
    path = Path(path)
    _require_format(path)
    plain = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    if path.suffix == ".safetensors":
        from safetensors.numpy import save

        content = save(plain)
        write_atomically(path, lambda file: file.write(content))
    else:
        # mypy takes a name for the parameter `allow_pickle` of savez.
        write_atomically(path, lambda file: np.savez(file, **cast(Any, plain)))


def _require_format(path: Path) -> None:
    if path.suffix in FORMATS:
        return
    why = ", and tinyleak never loads a pickle" if path.suffix in PICKLES else ""
    raise ValueError(
        f"{str(path)!r} is neither .safetensors nor .npz{why}; save it with "
        "safetensors.torch.save_file or numpy.savez"
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    _safetensors_notes(path)  # the library compares every shape and offset with the file's length
    tensors, others = {}, {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        require_few(len(entries))
        for name, entry in entries.items():
            if entry["dtype"] not in DTYPES:
                others[name] = entry["dtype"]
                continue
            begin, end = entry["data_offsets"]
            # Each tensor goes straight into its own array, so that a file is in memory only once.
            file.seek(8 + length + begin)
            dtype = np.dtype(DTYPES[entry["dtype"]])
            numbers = np.fromfile(file, dtype, (end - begin) // dtype.itemsize)
            if entry["dtype"] == "BF16":
                # A bfloat16 is the upper half of a float32.
                numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
            # A shape without entries may be too large for NumPy; it is refused by the caller.
            tensors[name] = numbers.reshape(entry["shape"]) if numbers.size else numbers
    return tensors, others


def _safetensors_notes(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as start:
        length = int.from_bytes(start.read(8), "little")
    if length > MAX_HEADER:
        raise ValueError(
            f"its header claims {length:,} bytes, and {MAX_HEADER:,} are read at most; "
            "it is damaged, or no safetensors file"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise damaged("safetensors", error) from error


def _as_text(value: Any) -> Any:
    if isinstance(value, list) and len(value) <= MAX_LIST:
        return ",".join(map(str, value))
    return str(value) if isinstance(value, str | int | float) else value

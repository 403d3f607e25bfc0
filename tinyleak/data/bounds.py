"""Limits on a file of tensors, and the sentences for what exceeds them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyleak.interop import quoted

MAX_BYTES = 2**30
"""The largest file that is read: 268 million parameters in float32. GPT-2 with its output layer, as
a state_dict has it, is of 652 million bytes."""

MAX_TENSORS = 4096  # the most tensors that a file may hold: twenty times those of BERT's base model


@contextmanager
def bounded(path: Path) -> Iterator[None]:
    """Refuse a file that is not there or too large; name it in ValueErrors about what it holds."""
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is not there; give the path of a file")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it holds more than the {MAX_BYTES:,} bytes that are read at most")
        yield
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be used: {error}") from error


def require_few(tensors: int) -> None:
    """Refuse, with ValueError, a file that holds more tensors than any network has."""
    if tensors > MAX_TENSORS:
        raise ValueError(f"it holds {tensors:,} tensors, and {MAX_TENSORS:,} are read at most")


def wrong_dtype(name: str, dtype: str) -> ValueError:
    """Return the error for numbers of another kind than is read."""
    return ValueError(
        f"{quoted(name)} has dtype {dtype[:40]}; weights and gradients are 16, 32 or 64 bits of "
        "floating point"
    )


def damaged(kind: str, error: Exception) -> ValueError:
    """Return the error for a file that a library could not read."""
    # A library's message may quote what the file holds.
    return ValueError(f"it is not a whole {kind} file ({quoted(error)[1:-1]}); save it again")

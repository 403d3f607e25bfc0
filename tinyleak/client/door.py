"""The door: what a caller passes in is checked and copied here, or refused in one sentence."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from tinyleak.backend import Array
from tinyleak.interop import as_array
from tinyleak.nn.fitting import require_fit
from tinyleak.nn.model import Model


def whole(number: Any, least: int, sentence: str) -> int:
    """Return a whole number of `least` or more.

    Args:
        number: as the caller gave it.
        least: the smallest that is taken.
        sentence: what to answer otherwise, with {} for the number.

    Raises:
        ValueError: it is smaller.
        TypeError: it is not a whole number.
    """
    try:
        found = operator.index(number)
    except TypeError:
        found = None
    if found is None or isinstance(number, bool):
        raise TypeError(f"{sentence.format(repr(number))} (a whole number is needed)")
    if found < least:
        raise ValueError(sentence.format(found))
    return found


def require_fields(keywords: Iterable[str], kind: type, what: str) -> None:
    """Check that keywords are fields of a dataclass.

    Raises:
        TypeError: one is not.
    """
    known = [field.name for field in fields(kind)]
    for name in keywords:
        if name not in known:
            raise TypeError(f"{name!r} is not known of {what}; choose from {', '.join(known)}")


def copied(arrays: Any, what: str) -> dict[str, Array]:
    """Return a copy of named arrays of any library.

    Raises:
        TypeError: they have no names, or one of them is not an array of numbers.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"the {what} were given as a {type(arrays).__name__}; give a dictionary of arrays by "
            "parameter name, as state_dict() is"
        )
    # Rows after one another, as files hold them.
    return {name: as_array(array).copy(order="C") for name, array in arrays.items()}


def copied_for(model: Model, arrays: Any, what: str) -> dict[str, Array]:
    """Return a copy of named arrays of any library, in the model's order.

    Raises:
        ValueError: they are not the model's, or not finite.
        TypeError: as `copied`.
    """
    found = copied(arrays, what)
    require_fit(model, found, what)
    return {name: found[name] for name in model.shapes}

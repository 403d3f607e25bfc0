"""The door for numbers: what a caller counts in is whole, or refused in one sentence."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import fields
from typing import Any


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

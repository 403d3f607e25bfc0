"""The door for numbers: what a caller counts in is whole, or refused in one sentence."""

from __future__ import annotations

import operator
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

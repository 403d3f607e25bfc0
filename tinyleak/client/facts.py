"""What is known of a client, and how: said, read off, or assumed.

Nothing else may be claimed of a client. What was said can be wrong, what was read off follows from
the gradient's structure, and what is assumed is only the usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tinyleak.data.bounds import shown

Source: TypeAlias = Literal["said", "read off", "assumed"]


MOST_NAMES = 4
"""How many names of tensors a line shows."""


@dataclass(frozen=True)
class Fact:
    """One thing known of a client.

    Attributes:
        value: what it is.
        source: how that is known.
        detail: a clause that says more: by whom it was said, what it was read off, or why it could
            not be.
    """

    value: Any
    source: Source
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.value}, {self.source}" + (f" ({self.detail})" if self.detail else "")


def listed(names: Sequence[str]) -> str:
    """Return names of tensors as a list that fits a line: "'a', 'b' and 5 more"."""
    rest = len(names) - MOST_NAMES
    text = ", ".join(shown(name)[1:-1] for name in names[:MOST_NAMES])
    return text if rest <= 0 else f"{text} and {rest} more"

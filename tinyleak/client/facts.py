"""What is known of a client, and how: said, read off, or assumed.

Nothing else may be claimed of a client. What was said can be wrong, what was read off follows from
the gradient's structure, and what is assumed is only the usual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Source: TypeAlias = Literal["said", "read off", "assumed"]


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

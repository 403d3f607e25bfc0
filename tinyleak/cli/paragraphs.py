"""What a command says on the screen: a topic and a paragraph each."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

WIDTH = 100
"""Columns of text."""


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

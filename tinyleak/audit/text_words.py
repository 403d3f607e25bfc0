"""The audit of a language model in words: what it found, as lines and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyleak.text import FoundText
from tinyleak.text.result import html_table

SHOWN = 40
"""Words that are listed on the screen; audit.json has all of them."""

TEXT_SCOPE = (
    (
        "Several steps",
        "Every step touches its own words' rows, so what several steps of gradient descent change "
        "in the table names the words of all of them.",
    ),
    (
        "Unknown weights",
        "Which rows are touched does not depend on the weights: nobody needs to know them.",
    ),
    (
        "Secure aggregation",
        "The sum over many clients names the words of all of them, and not whose they are.",
    ),
)
"""What might be different from one step of one client, and what each of these changes."""


@dataclass(frozen=True)
class Table:
    """A table of embeddings, and the rows of it that a gradient touches.

    Attributes:
        name: of the parameter.
        rows: how many there are.
        touched: their numbers, ascending; None if no gradient was given.
    """

    name: str
    rows: int
    touched: list[int] | None

    @property
    def of_positions(self) -> bool:
        """Whether positions are looked up in it, and not words."""
        return any(word in self.name.lower() for word in ("position", "wpe"))

    @property
    def dense(self) -> bool:
        """Whether the gradient touches every row, and so names none."""
        return self.touched is not None and len(self.touched) == self.rows


@dataclass(frozen=True, eq=False, repr=False)
class TextAudit:
    """What a language model's gradient names.

    Attributes:
        parameters: how many numbers are shared.
        tables: of embeddings, those of words first.
        guessed: words that were certainly to be guessed, ascending; None if no gradient was given,
            or it has no bias of an output layer, with an entry for each word, that is free of
            noise.
        vocabulary: the words by their numbers, if it is known.
        found: the sentence that was read, if the network is a BERT or a GPT-2, and the gradient
            leaves no choice.
    """

    parameters: int
    tables: list[Table]
    guessed: list[int] | None
    vocabulary: Sequence[str] | None = None
    found: FoundText | None = None

    @property
    def named(self) -> list[int]:
        """The words that the gradient names, in one way or the other, ascending."""
        words = self.tables[0]
        looked_up = [] if words.touched is None or words.dense else words.touched
        read = [] if self.found is None else self.found.tokens[self.found.client.words].tolist()
        return sorted({*looked_up, *(self.guessed or ()), *read})

    def __repr__(self) -> str:
        return f"<TextAudit: {text_headline(self)}>"

    def _repr_html_(self) -> str:
        """Show the findings in a notebook."""
        return html_table([], [list(line) for line in text_lines(self).items()], "audit")

    def words(self, numbers: Sequence[int]) -> list[str]:
        """Return the words of these numbers, or the numbers where no vocabulary is known."""
        if self.vocabulary is None:
            return [str(number) for number in numbers]
        return [self.vocabulary[number] for number in numbers]


def text_headline(audit: TextAudit) -> str:
    """Return the one sentence that matters most."""
    words = audit.tables[0]
    if audit.found is not None:
        length = audit.found.client.shape[1]
        return f"the gradient determines the sentence, all {length} tokens of it, without a search"
    if words.touched is None:
        return (
            f"a gradient of this network names the words that were looked up in {words.name}, "
            "without any search, unless that is also its output layer"
        )
    if audit.named:
        return f"the gradient names {len(audit.named)} of {words.rows:,} words, without any search"
    return "the gradient names no word by itself: every row of the table is touched"


def text_lines(audit: TextAudit) -> dict[str, str]:
    """Return the findings as sentences, by topic."""
    said = {
        "expect": text_headline(audit),
        "counting": f"{audit.parameters:,} numbers are shared",
    }
    for table in audit.tables:
        topic = "words" if table is audit.tables[0] else "places"
        if topic == "words" or table.of_positions:
            said[topic] = f"{table.name}, {table.rows:,} rows: {_rows(audit, table)}"
    if audit.found is not None:
        said["sentence"] = (
            f"{' | '.join(audit.found.sentences)} (read off the row space of the first layer's "
            "gradient, where one word alone fits at each position)"
        )
    if audit.guessed:
        said["guessed"] = (
            f"{_listed(audit, audit.guessed)}: where the gradient of the output layer's bias is "
            "negative, a word was to be guessed"
        )
    return said


def _rows(audit: TextAudit, table: Table) -> str:
    if table.touched is None:
        return (
            "those that a sentence reaches to, as long as it is"
            if table.of_positions
            else "only those of words that were looked up get a gradient: not their order"
        )
    if table.dense:
        return (
            "every one is touched, so the table is the output layer too, or there is noise, or the "
            "batch has every word; a first attention layer still gives its inputs away, since "
            "they span the gradient of its queries (DAGER, Petrov et al. 2024)"
        )
    if table.of_positions:
        return f"{len(table.touched)} are touched, as many as the longest sentence has tokens"
    return f"{len(table.touched)} are touched: {_listed(audit, table.touched)}; not in their order"


def _listed(audit: TextAudit, numbers: list[int]) -> str:
    more = len(numbers) - SHOWN
    return " ".join(audit.words(numbers[:SHOWN])) + (f" and {more} more" if more > 0 else "")


def text_as_dict(audit: TextAudit) -> dict[str, Any]:
    """Return the content of audit.json."""
    return {
        "expect": text_headline(audit),
        "counting": {"parameters": audit.parameters},
        "tables": [
            {"name": table.name, "rows": table.rows, "touched": table.touched}
            for table in audit.tables
        ],
        "guessed": audit.guessed,
        "named": audit.named,
        "sentences": None if audit.found is None else audit.found.sentences,
        "words": None if audit.vocabulary is None else audit.words(audit.named),
        "scope": dict(TEXT_SCOPE),
    }

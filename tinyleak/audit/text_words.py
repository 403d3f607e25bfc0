"""The audit of a language model in words: its lines, its dictionary, and its scope."""

from __future__ import annotations

from typing import Any

from tinyleak.audit.text_findings import Table, TextFindings

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


def text_headline(audit: TextFindings) -> str:
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


def text_lines(audit: TextFindings) -> dict[str, str]:
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


def _rows(audit: TextFindings, table: Table) -> str:
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
        # No later token attends to a GPT-2's last, and it predicts nothing: its row stays zero.
        but_one = "wpe" in table.name
        return (
            f"{len(table.touched)} are touched, {'one less than' if but_one else 'as many as'} the "
            "longest sentence has tokens"
        )
    return f"{len(table.touched)} are touched: {_listed(audit, table.touched)}; not in their order"


def _listed(audit: TextFindings, numbers: list[int]) -> str:
    more = len(numbers) - SHOWN
    return " ".join(audit.words(numbers[:SHOWN])) + (f" and {more} more" if more > 0 else "")


def text_as_dict(audit: TextFindings) -> dict[str, Any]:
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

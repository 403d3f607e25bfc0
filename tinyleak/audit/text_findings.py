"""What an audit found in a language model's gradient: its words, its dictionary and its page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tinyleak.audit.measured import LONGEST
from tinyleak.audit.page import STYLE, fill, write
from tinyleak.data.files import PathLike
from tinyleak.text import FoundText

SHOWN = 40  # words that are listed on the screen; audit.json has all of them

SCOPE = {
    "Several steps": (
        "Every step touches its own words' rows, so what several steps of gradient descent change "
        "in the table names the words of all of them."
    ),
    "Unknown weights": (
        "Which rows are touched does not depend on the weights: nobody needs to know them."
    ),
    "Secure aggregation": (
        "The sum over many clients names the words of all of them, and not whose they are."
    ),
}
"""What might be different from one step of one client, and what each of these changes."""

SUBJECT = "a language model"
"""The line under a page's heading where nothing else is known of the network."""


@dataclass(frozen=True)
class Table:
    """A table of embeddings, and the rows of it that a gradient touches."""

    name: str  # of the parameter
    rows: int  # how many there are
    touched: list[int] | None  # their numbers, ascending; None if no gradient was given

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
    """What a language model's gradient names."""

    parameters: int  # how many numbers are shared
    tables: list[Table]  # of embeddings, those of words first
    # Words that were certainly to be guessed, ascending; None if no gradient was given, or it has
    # no bias of an output layer, with an entry for each word, that is free of noise.
    guessed: list[int] | None
    vocabulary: Sequence[str] | None = None  # the words by their numbers, if it is known
    # What was read, if the network is a BERT or a GPT-2, and the gradient leaves no choice.
    found: FoundText | None = None
    interrupted: bool = False  # whether Ctrl-C came while it was read

    @property
    def named(self) -> list[int]:
        """The words that the gradient names, in one way or the other, ascending."""
        words = self.tables[0]
        looked_up = [] if words.touched is None or words.dense else words.touched
        read = [] if self.found is None else self.found.tokens[self.found.client.words].tolist()
        return sorted({*looked_up, *(self.guessed or ()), *read})

    @property
    def headline(self) -> str:
        """The one sentence that matters most."""
        words = self.tables[0]
        if self.found is not None:
            length = self.found.client.shape[1]
            return (
                f"the gradient determines the sentence, all {length} tokens of it, without a search"
            )
        if words.touched is None:
            return (
                f"a gradient of this network names the words that were looked up in {words.name}, "
                "without any search, unless that is also its output layer"
            )
        if self.named:
            return (
                f"the gradient names {len(self.named)} of {words.rows:,} words, without any search"
            )
        return "the gradient names no word by itself: every row of the table is touched"

    def lines(self) -> dict[str, str]:
        """Return the findings as sentences, by topic; the headline is "expect"."""
        said = {"expect": self.headline, "counting": f"{self.parameters:,} numbers are shared"}
        for table in self.tables:
            topic = "words" if table is self.tables[0] else "places"
            if topic == "words" or table.of_positions:
                said[topic] = f"{table.name}, {table.rows:,} rows: {self._rows(table)}"
        if self.found is not None:
            said["sentence"] = (
                f"{' | '.join(self.found.sentences)} (read off the row space of the first layer's "
                "gradient, where one word alone fits at each position)"
            )
        if self.guessed:
            said["guessed"] = (
                f"{self._listed(self.guessed)}: where the gradient of the output layer's bias is "
                "negative, a word was to be guessed"
            )
        return said

    def as_dict(self) -> dict[str, Any]:
        """Return the content of audit.json."""
        return {
            "expect": self.headline,
            "counting": {"parameters": self.parameters},
            "tables": [asdict(table) for table in self.tables],
            "guessed": self.guessed,
            "named": self.named,
            "sentences": None if self.found is None else self.found.sentences,
            "words": None if self.vocabulary is None else self._words(self.named),
            "scope": SCOPE,
        }

    def save(self, path: PathLike, *, subject: str = SUBJECT) -> None:
        """Write one HTML page; `subject` is the line under its heading: which network."""
        write(path, fill(subject, self.lines(), SCOPE))

    def __repr__(self) -> str:
        return f"<TextAudit: {self.headline}>"[:LONGEST]

    def _repr_html_(self) -> str:
        """Show the page in a notebook."""
        return STYLE + fill(SUBJECT, self.lines(), SCOPE)

    def _rows(self, table: Table) -> str:
        """Return what the rows of a table that are touched tell."""
        if table.touched is None:
            return (
                "those that a sentence reaches to, as long as it is"
                if table.of_positions
                else "only those of words that were looked up get a gradient: not their order"
            )
        if table.dense:
            return (
                "every one is touched, so the table is the output layer too, or there is noise, or "
                "the batch has every word; a first attention layer still gives its inputs away, "
                "since they span the gradient of its queries (DAGER, Petrov et al. 2024)"
            )
        many = f"{len(table.touched)} are touched"
        if table.of_positions:
            # No later token attends to a GPT-2's last, and it predicts nothing: its row stays zero.
            but_one = "one less than" if "wpe" in table.name else "as many as"
            return f"{many}, {but_one} the longest sentence has tokens"
        return f"{many}: {self._listed(table.touched)}; not in their order"

    def _listed(self, numbers: list[int]) -> str:
        more = len(numbers) - SHOWN
        return " ".join(self._words(numbers[:SHOWN])) + (f" and {more} more" if more > 0 else "")

    def _words(self, numbers: Sequence[int]) -> list[str]:
        """Return the words of these numbers, or the numbers where no vocabulary is known."""
        words = self.vocabulary
        return [str(number) if words is None else words[number] for number in numbers]

"""What an audit found in a language model's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinyleak.text import FoundText


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
class TextFindings:
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
        interrupted: whether Ctrl-C came while it was read.
    """

    parameters: int
    tables: list[Table]
    guessed: list[int] | None
    vocabulary: Sequence[str] | None = None
    found: FoundText | None = None
    interrupted: bool = False

    @property
    def named(self) -> list[int]:
        """The words that the gradient names, in one way or the other, ascending."""
        words = self.tables[0]
        looked_up = [] if words.touched is None or words.dense else words.touched
        read = [] if self.found is None else self.found.tokens[self.found.client.words].tolist()
        return sorted({*looked_up, *(self.guessed or ()), *read})

    def words(self, numbers: Sequence[int]) -> list[str]:
        """Return the words of these numbers, or the numbers where no vocabulary is known."""
        if self.vocabulary is None:
            return [str(number) for number in numbers]
        return [self.vocabulary[number] for number in numbers]

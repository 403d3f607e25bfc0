"""What an attack on a client's sentences gives back, and how close it came."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tinyleak.backend import Array
from tinyleak.interop import called
from tinyleak.metrics import bag_accuracy, match_sentences, token_accuracy
from tinyleak.text.client import TextClient

MOST_QUOTED = 120  # how many letters of the sentences a `repr` quotes


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The sentences as they read after an iteration."""

    iteration: int  # 0 is the start
    tokens: Array = field(repr=False)  # (N, T); at a hidden position the word read, not [MASK]
    distance: float  # what the attack minimises, by then; 0 where nothing is minimised
    evaluations: int = 0  # how often an objective had been evaluated


OnProgress: TypeAlias = Callable[[Snapshot], None]
"""What is called with each snapshot, as soon as it is there."""


@dataclass(frozen=True, eq=False, repr=False)
class FoundText:
    """What an attacker, who does not know the truth, comes back with."""

    client: TextClient  # that was attacked
    tokens: Array  # (N, T), what was found
    history: list[Snapshot]  # on the way; the last is what was found
    reason: str  # why the attack stopped, in a few words
    # Whether the sentences explain the gradient: one word alone fits at each position, or the
    # gradient that they make is the shared one but for rounding or noise.
    explained: bool
    evaluations: int = 0  # how often an objective was evaluated
    method: str = ""  # the attack's name
    seconds: float = 0.0  # how long it took

    @classmethod
    def at_once(
        cls,
        client: TextClient,
        tokens: Array,
        reason: str,
        explained: bool,
        on_progress: OnProgress | None,
        distance: float = 0.0,
    ) -> FoundText:
        """Return what was found without any iteration, and report it."""
        snapshot = Snapshot(0, tokens, distance)
        if on_progress is not None:
            on_progress(snapshot)
        return cls(client, tokens, [snapshot], reason, explained)

    @property
    def iterations(self) -> int:
        """How many iterations the attack took."""
        return self.history[-1].iteration if self.history else 0

    @property
    def sentences(self) -> list[str]:
        """The sentences as texts, or as numbers where the vocabulary is not known."""
        return self.client.as_sentences(self.tokens)

    def __repr__(self) -> str:
        verdict = "explained" if self.explained else "not explained"
        return f"FoundText({self.method}, {verdict}: {self.reason}; {_quoted(self.sentences)})"

    def _repr_html_(self) -> str:
        return _table(["found"], [[sentence] for sentence in self.sentences], self.reason)


@dataclass(frozen=True, eq=False, repr=False)
class TextOutcome:
    """What an attack found, judged; sentence by sentence in the client's order, if that is known.

    Without a truth the last three are None.
    """

    found: FoundText  # what the attack gave back
    tokens_recovered: Array  # (N, T), what was found
    history: list[Snapshot]  # on the way, in the same order
    tokens_true: Array | None = None  # (N, T), what the client had
    token_accuracy: float | None = None  # the share of the words right in their positions, [0, 1]
    bag_accuracy: float | None = None  # the share of the words found, at whatever position, [0, 1]

    @property
    def succeeded(self) -> bool:
        """Whether every word is right; with no truth known, whether the gradient is explained."""
        if self.token_accuracy is None:
            return self.found.explained
        return self.token_accuracy == 1.0

    @property
    def sentences(self) -> list[str]:
        """The sentences that were found, as texts."""
        return self.found.client.as_sentences(self.tokens_recovered)

    @property
    def sentences_true(self) -> list[str] | None:
        """The client's sentences as texts, if they are known."""
        if self.tokens_true is None:
            return None
        return self.found.client.as_sentences(self.tokens_true)

    def __repr__(self) -> str:
        verdict = "success" if self.succeeded else "no success"
        return f"TextOutcome({self.found.method}, {verdict}; {_quoted(self.sentences)})"

    def _repr_html_(self) -> str:
        columns = {"found": self.sentences}
        if self.sentences_true is not None:
            columns["true"] = self.sentences_true
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        verdict = "success" if self.succeeded else "no success"
        return _table(list(columns), rows, f"{verdict}: {self.found.reason}")


@dataclass(frozen=True, eq=False, repr=False)
class TextTruth:
    """What a client had. No attack sees it."""

    tokens: Array  # (N, T), the sentences, whole numbers; padded at their ends
    hidden: Array  # (N, T), true where a token is hidden behind [MASK]

    def __repr__(self) -> str:
        return f"TextTruth(tokens of shape {self.tokens.shape}, {int(self.hidden.sum())} hidden)"

    def judge(self, found: FoundText) -> TextOutcome:
        """Compare what `text.attack` found with the truth, in the order that fits best.

        Raises:
            ValueError: sentences of another number or length than the client's.
            TypeError: something else than what `text.attack` found.
        """
        _require_found(found)
        words = found.client.words
        order = match_sentences(found.tokens, self.tokens, words)
        tokens = found.tokens[order]
        return TextOutcome(
            found,
            tokens,
            [replace(snapshot, tokens=snapshot.tokens[order]) for snapshot in found.history],
            self.tokens,
            token_accuracy(tokens, self.tokens, words),
            bag_accuracy(tokens, self.tokens, words),
        )


def explain(found: FoundText) -> TextOutcome:
    """Judge what `text.attack` found by the gradient alone, where no truth is known."""
    _require_found(found)
    return TextOutcome(found, found.tokens, found.history)


def _require_found(found: FoundText) -> None:
    if not isinstance(found, FoundText):
        raise TypeError(f"{called(found)} was given to be judged; give what text.attack returned")


def _quoted(sentences: Sequence[str]) -> str:
    text = " | ".join(sentences)
    return repr(text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…")


def _table(titles: list[str], rows: list[list[str]], caption: str) -> str:
    """Return an HTML table; vocabularies come from files, so every word is escaped."""
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    caption = f"<caption>{html.escape(caption)}</caption>"
    return f"<table>{caption}<tr>{head}</tr>{body}</table>"

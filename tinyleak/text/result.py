"""What an attack on a client's sentences gives back, and how close it came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from tinyleak.backend import Array
from tinyleak.metrics import bag_accuracy, match_sentences, token_accuracy
from tinyleak.text.client import TextClient


class Reading(NamedTuple):
    """The sentences as they read after an iteration.

    Attributes:
        iteration: 0 is the start.
        tokens: (N, T); at a hidden place the word that is read there, and not [MASK].
        distance: what the attack minimises, by then; 0 where nothing is minimised.
    """

    iteration: int
    tokens: Array
    distance: float


OnReading: TypeAlias = Callable[[Reading], None]
"""What is called with each reading, as soon as it is there."""


@dataclass(frozen=True)
class Found:
    """What an attacker, who does not know the truth, comes back with.

    Attributes:
        tokens: (N, T).
        history: readings on the way; the last is what was found.
        reason: why it stopped, in a few words.
        evaluations: how often an objective was evaluated.
    """

    tokens: Array
    history: list[Reading]
    reason: str
    evaluations: int = 0


@dataclass(frozen=True)
class TextResult:
    """What an attack found beside the truth, sentence by sentence in the client's order.

    Attributes:
        method: the attack's name.
        tokens_true: (N, T), what the client had.
        tokens_recovered: (N, T), what was found.
        token_accuracy: the share of the words that are right in their places, in [0, 1].
        bag_accuracy: the share of the words that were found, wherever; in [0, 1].
        history: readings on the way, in the client's order too.
        reason: why the attack stopped.
        evaluations: how often an objective was evaluated.
        seconds: how long it took.
    """

    method: str
    tokens_true: Array
    tokens_recovered: Array
    token_accuracy: float
    bag_accuracy: float
    history: list[Reading]
    reason: str
    evaluations: int
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether every word is right in its place."""
        return self.token_accuracy == 1.0

    @property
    def iterations(self) -> int:
        """How many iterations the attack took."""
        return self.history[-1].iteration if self.history else 0


def judge(client: TextClient, found: Found, method: str, seconds: float) -> TextResult:
    """Compare what an attack found with what the client had, in the order that fits best."""
    truth, words = client.tokens, client.shared.words
    order = match_sentences(found.tokens, truth, words)
    tokens = found.tokens[order]
    return TextResult(
        method=method,
        tokens_true=truth,
        tokens_recovered=tokens,
        token_accuracy=token_accuracy(tokens, truth, words),
        bag_accuracy=bag_accuracy(tokens, truth, words),
        history=[reading._replace(tokens=reading.tokens[order]) for reading in found.history],
        reason=found.reason,
        evaluations=found.evaluations,
        seconds=seconds,
    )

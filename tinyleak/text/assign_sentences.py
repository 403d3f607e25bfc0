"""Which of the words at each place belong to one sentence.

The row space of the first layer's gradient names the words at each place of a batch, and not which
of them stood together. A later layer tells: what it sees of a hidden place depends on the whole
sentence, and must lie in the row space of its own gradient. The layer taken here is the first of
the output's, which sees the hidden places alone: there are few, so the space is small, and hardly
anything lies in it by chance. (DAGER takes the second layer, and all places.)

All sentences that the words allow are tried, if they are few. If they are many, the likeliest are
found by halves (`tinyleak.text.meet_in_the_middle`); and if that finds too few, each of many
random ones is changed at one place after another, for the better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from tinyleak.backend import Array
from tinyleak.nn.models.bert import WORDS
from tinyleak.program import trace
from tinyleak.text.client import SharedText, masked_count
from tinyleak.text.hidden import LAYER, exact_params
from tinyleak.text.meet_in_the_middle import fits_in_halves, likeliest
from tinyleak.text.space import RowSpace

MOST_TRIED = 8192
"""How many sentences are tried one by one at most."""

MOST_WORDS = 32
"""How many words are tried at each place."""

STARTS, ROUNDS = 64, 4
"""How many random sentences are improved at once where there are more, and how often."""

MOST_HIDDEN, BASES = 64, 2
"""Of how many choices of hidden places halves are made, and at how many sentences, how often."""


class Reader:
    """Reads sentences of a length, and says how far they are from fitting.

    What the network says of a hidden place must lie in the row space of the output's first layer.
    """

    def __init__(self, shared: SharedText, length: int) -> None:
        self.space = RowSpace.of([shared.gradients[f"{LAYER}.weight"]], shared.masked)
        self.mask = shared.special.mask
        params = exact_params(shared)
        self._table = params[WORDS].data
        self._program = trace(
            lambda words: shared.model.encode(params, words),
            np.zeros((STARTS, length, self._table.shape[1])),
            check=False,
        )

    def score(self, sentences: Array) -> Array:
        """Return how far each of (C, T) is from fitting, (C,): up to 1 it does.

        It is the distance of the hidden place farthest off, in units of what counts as lying in
        the space, and infinite where nothing is hidden.
        """
        hidden = sentences == self.mask
        seen = self._read(sentences)
        far = np.where(hidden, self.space.distances(seen) / self.space.allowance(seen), 0.0)
        return np.where(hidden.any(axis=1), np.max(far, axis=1), np.inf)

    def outside(self, sentences: Array, places: Sequence[int]) -> Array:
        """Return what of (C, T) sentences' places is outside of the space, (C, places · d)."""
        seen = self._read(sentences)[:, list(places)]
        outside = seen - (seen @ self.space.basis.T) @ self.space.basis
        return outside.reshape(len(sentences), -1)

    def _read(self, sentences: Array) -> Array:
        """Return what the last layer says of each place of (C, T) sentences, (C, T, d)."""
        seen = []
        for start in range(0, max(1, len(sentences)), STARTS):
            some = sentences[start : start + STARTS]
            filled = np.resize(some, (STARTS, some.shape[1]))  # with the same ones over again
            seen.append(self._program(self._table[filled])[0][: len(some)])
        return np.concatenate(seen)


class Arranged(NamedTuple):
    """Sentences made of the words at each place: what the model read, (N, T); and if it is sure."""

    inputs: Array
    sure: bool


def arrange(
    shared: SharedText, distances: Array, allowed: Array, rng: np.random.Generator
) -> Arranged:
    """Make sentences of the words that may stand at each place.

    Args:
        shared: what the client shared.
        distances: (T, V), how far each word at each place is from being one of them.
        allowed: (T, V), true for the words that may be.
        rng: where random sentences come from.
    """
    inputs = np.full(shared.shape, shared.special.pad)
    sure = True
    for length in sorted(set(shared.lengths)):
        rows = np.flatnonzero(np.array(shared.lengths) == length)
        reader = Reader(shared, length)
        # As many words as sentences, the nearest, are enough unless the space holds others as well.
        for most in (len(shared.lengths), MOST_WORDS):
            options = [
                _options(shared, place, length, distances, allowed, most) for place in range(length)
            ]
            tried, scores = _tried(options, len(rows), reader, rng)
            if np.sum(scores <= 1.0) >= len(rows):
                break
        order = np.argsort(scores)
        chosen = tried[order[: len(rows)]]
        sure = sure and bool(np.sum(scores <= 1.0) == len(rows))
        inputs[rows, :length] = chosen[np.arange(len(rows)) % len(chosen)]
    return Arranged(inputs, sure)


def _options(
    shared: SharedText, place: int, length: int, distances: Array, allowed: Array, most: int
) -> list[int]:
    """Return the words, `most` of them, that may stand at a place, the likeliest first."""
    special = shared.special
    if place in (0, length - 1):
        return [special.start if place == 0 else special.end]
    # More words than sentences may lie in the space: if a and b are at one place and a at another,
    # then b there is a sum of the three, but for what layer normalisation adds.
    words = np.argsort(distances[place])[: min(most, max(1, int(allowed[place].sum())))]
    # A shorter sentence may end here, this one does not.
    return [int(word) for word in words if word != special.end] or [int(words[0])]


def _tried(
    options: Sequence[list[int]], wanted: int, reader: Reader, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return sentences (C, T), all different, and the score of each, (C,).

    Args:
        options: the words that may stand at each place.
        wanted: how many sentences there are.
        reader: says how far sentences are from fitting.
        rng: where random sentences come from.
    """
    hidden = masked_count(len(options))
    if math.prod(len(words) for words in options) <= MOST_TRIED:
        tried = np.array(list(itertools.product(*options)))
        likely = (tried == reader.mask).sum(axis=1) == hidden
        tried = tried[likely] if likely.any() else tried
        return tried, reader.score(tried)
    every = [_by_halves(options, hidden, reader)]
    for _ in range(ROUNDS):
        tried = np.unique(np.concatenate(every), axis=0)
        scores = reader.score(tried)
        if np.sum(scores <= 1.0) >= wanted:
            break
        every.append(_improved(_random(options, hidden, reader.mask, rng), options, reader, rng))
    return tried, scores


def _by_halves(options: Sequence[list[int]], hidden: int, reader: Reader) -> Array:
    """Return the sentences, (C, T), that should fit best by each word's effect for itself.

    The effects are measured at any sentence first, and then at the best that was found.
    """
    found = np.zeros((0, len(options)), int)
    hidable = [place for place, words in enumerate(options) if reader.mask in words]
    for places in itertools.islice(itertools.combinations(hidable, hidden), MOST_HIDDEN):
        here = [
            [reader.mask] if place in places else _spoken(words, reader.mask)
            for place, words in enumerate(options)
        ]
        if not fits_in_halves(here):
            continue
        bases = np.array([[words[0] for words in here]])
        for _ in range(BASES):
            outside = partial(reader.outside, places=places)
            likely = np.concatenate([likeliest(here, base, outside) for base in bases])
            likely = np.unique(likely, axis=0)
            bases = likely[np.argsort(reader.score(likely))[:BASES]]
            found = np.concatenate([found, likely])
    return found


def _random(
    options: Sequence[list[int]], hidden: int, mask: int, rng: np.random.Generator
) -> Array:
    """Return random sentences, (STARTS, T), with so many hidden places each."""
    places = [place for place, words in enumerate(options) if mask in words]
    sentences = np.array([[rng.choice(_spoken(w, mask)) for w in options] for _ in range(STARTS)])
    for sentence in sentences:
        sentence[rng.permutation(places)[:hidden]] = mask
    return sentences


def _improved(
    sentences: Array,
    options: Sequence[list[int]],
    reader: Reader,
    rng: np.random.Generator,
) -> Array:
    """Return sentences (C, T), changed for the better one place after another, but hidden ones."""
    hidden, scores, before = sentences == reader.mask, reader.score(sentences), np.inf
    while scores.sum() < before:
        before = scores.sum()
        for place in rng.permutation(len(options)):
            for word in _spoken(options[place], reader.mask):
                changed = sentences.copy()
                changed[~hidden[:, place], place] = word
                found = reader.score(changed)
                better = found < scores
                sentences[better], scores[better] = changed[better], found[better]
    return sentences


def _spoken(words: list[int], mask: int) -> list[int]:
    return [word for word in words if word != mask] or words

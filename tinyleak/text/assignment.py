"""Which of the words at each position belong to one sentence.

The row space of the first layer's gradient names the words at each position of a batch, and not
which of them stood together. A later layer tells: its input at a hidden position depends on the
whole sentence, and must lie in the row space of its own gradient. The layer taken here is the first
of the output layers, whose gradient has the inputs at hidden positions alone: they are few, so the
space is small, and hardly anything lies in it by chance. (DAGER takes the second layer, and all
positions.)

All sentences that the words allow are tried, if they are few. If they are many, those that
`tinyleak.text.meet_in_the_middle` finds the likeliest are, and those of the nearest words. (Random
ones, improved at one position after another, took half a minute a batch: of six that were not told
so either, they had 22 % of the words right, and these have 22 %.)
"""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.backend import Array
from tinyleak.nn.models.bert import OUTPUT_LAYER, Bert
from tinyleak.program import trace
from tinyleak.text.client import TextClient, masked_count
from tinyleak.text.hidden import exact_params
from tinyleak.text.meet_in_the_middle import can_meet, likeliest

MOST_TRIED = 8192
"""How many sentences are tried one by one at most: 8 tokens each, and BERT of width 64, they take
a second."""

MOST_WORDS = 32
"""How many words are tried at each position at most, if as many as sentences do not fit."""

AT_ONCE = 64  # how many sentences are read at once

MOST_HIDDEN, BASES = 64, 2
"""How many choices of hidden positions are met in the middle; and the effects of words are measured
at so many sentences, so often."""


class Reader:
    """Reads sentences of one length, and measures how far they are from fitting.

    What the network makes of a hidden position must lie in the row space of the first output layer.
    """

    def __init__(self, client: TextClient, length: int) -> None:
        model, gradient = client.model, client.gradients[f"{OUTPUT_LAYER}.weight"]
        assert isinstance(model, Bert)
        self.space = LayerGradient.stacked([gradient], client.masked).row_space
        self.mask = client.special.mask
        params = exact_params(client)
        self._table = client.params[model.word_table].astype(float)
        self._program = trace(
            lambda words: model.encode(params, words),
            np.zeros((AT_ONCE, length, self._table.shape[1])),
            check=False,
        )

    def score(self, sentences: Array) -> Array:
        """Return how far each of (C, T) is from fitting, (C,): up to 1 it does.

        It is the distance of the hidden position that is farthest from the space, in units of
        what counts as lying in it, and infinite where nothing is hidden.
        """
        hidden = sentences == self.mask
        seen = self._read(sentences)
        far = np.where(hidden, self.space.distances(seen) / self.space.allowance(seen), 0.0)
        return np.where(hidden.any(axis=1), np.max(far, axis=1), np.inf)

    def residuals(self, sentences: Array, positions: Sequence[int]) -> Array:
        """Return the part outside the space of (C, T) sentences' P positions, (C, P · d)."""
        seen = self._read(sentences)[:, list(positions)]
        outside = seen - (seen @ self.space.basis.T) @ self.space.basis
        return outside.reshape(len(sentences), -1)

    def _read(self, sentences: Array) -> Array:
        """Return the last layer's output at each position of (C, T) sentences, (C, T, d)."""
        seen = []
        for start in range(0, max(1, len(sentences)), AT_ONCE):
            some = sentences[start : start + AT_ONCE]
            filled = np.resize(some, (AT_ONCE, some.shape[1]))  # with the same ones over again
            seen.append(self._program(self._table[filled])[0][: len(some)])
        return np.concatenate(seen)


class Assigned(NamedTuple):
    """What the model read, (N, T), made of the words at each position; and if it is sure."""

    inputs: Array
    sure: bool


def assign_sentences(client: TextClient, distances: Array, allowed: Array) -> Assigned:
    """Make sentences of the words that may stand at each position, of a client with a BERT.

    `distances`, (T, V), are how far each word at each position is from being one of them;
    `allowed`, (T, V), is true for the words that may be.
    """
    inputs = np.full(client.shape, client.special.pad)
    sure = True
    for length in sorted(set(client.lengths)):
        rows = np.flatnonzero(np.array(client.lengths) == length)
        reader = Reader(client, length)
        # As many words as sentences, the nearest, are enough unless the space holds others as well.
        for most in (len(client.lengths), MOST_WORDS):
            options = [
                _options(client, position, length, distances, allowed, most)
                for position in range(length)
            ]
            tried, scores = _tried(options, len(rows), reader)
            if np.sum(scores <= 1.0) >= len(rows):
                break
        order = np.argsort(scores)
        chosen = tried[order[: len(rows)]]
        sure = sure and bool(np.sum(scores <= 1.0) == len(rows))
        inputs[rows, :length] = chosen[np.arange(len(rows)) % len(chosen)]
    return Assigned(inputs, sure)


def _options(
    client: TextClient, position: int, length: int, distances: Array, allowed: Array, most: int
) -> list[int]:
    """Return the words, `most` of them, that may stand at a position, the likeliest first."""
    special = client.special
    if position in (0, length - 1):
        return [special.start if position == 0 else special.end]
    # More words than sentences may lie in the space: if a and b are at one position and a at
    # another, then b there is a sum of the three, but for what layer normalisation adds.
    words = np.argsort(distances[position])[: min(most, max(1, int(allowed[position].sum())))]
    # A shorter sentence may end here, this one does not.
    return [int(word) for word in words if word != special.end] or [int(words[0])]


def _tried(options: Sequence[list[int]], wanted: int, reader: Reader) -> tuple[Array, Array]:
    """Return sentences (C, T), all different, and the score of each, (C,).

    `options` are the words that may stand at each position, and `wanted` is how many sentences
    there are.
    """
    hidden = masked_count(len(options))
    if math.prod(len(words) for words in options) <= MOST_TRIED:
        tried = np.array(list(itertools.product(*options)))
        likely = (tried == reader.mask).sum(axis=1) == hidden
        tried = tried[likely] if likely.any() else tried
        return tried, reader.score(tried)
    nearest = [[words[min(rank, len(words) - 1)] for words in options] for rank in range(wanted)]
    tried = np.unique([*_met_in_the_middle(options, hidden, reader), *nearest], axis=0)
    return tried, reader.score(tried)


def _met_in_the_middle(options: Sequence[list[int]], hidden: int, reader: Reader) -> Array:
    """Return the sentences, (C, T), that should fit best if each word's effect adds to the others'.

    The effects are measured at any sentence first, and then at the best that were found.
    """
    found = np.zeros((0, len(options)), int)
    hidable = [position for position, words in enumerate(options) if reader.mask in words]
    for positions in itertools.islice(itertools.combinations(hidable, hidden), MOST_HIDDEN):
        here = [
            [reader.mask]
            if position in positions
            else [word for word in words if word != reader.mask] or words
            for position, words in enumerate(options)
        ]
        if not can_meet(here):
            continue
        bases = np.array([[words[0] for words in here]])
        for _ in range(BASES):
            residuals = partial(reader.residuals, positions=positions)
            likely = np.concatenate([likeliest(here, base, residuals) for base in bases])
            likely = np.unique(likely, axis=0)
            bases = likely[np.argsort(reader.score(likely))[:BASES]]
            found = np.concatenate([found, likely])
    return found

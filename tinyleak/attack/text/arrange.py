"""Which of the words at each place belong to one sentence.

The row space of the first layer's gradient names the words at each place of a batch, and not which
of them stood together. A later layer tells: what it sees of a hidden place depends on the whole
sentence, and must lie in the row space of its own gradient. The layer taken here is the first of
the output's, which sees the hidden places alone: there are few, so the space is small, and hardly
anything lies in it by chance. (DAGER takes the second layer, and all places.)

All sentences that the words allow are tried, if they are few; else each of many random ones is
changed at one place after another, for the better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinyleak.attack.text.client import SharedText, masked_count
from tinyleak.attack.text.hidden import LAYER, encode
from tinyleak.attack.text.space import RowSpace
from tinyleak.backend import Array

MOST_TRIED = 4096
"""How many sentences are tried one by one at most."""

MOST_WORDS = 32
"""How many words are tried at each place."""

STARTS, SWEEPS = 48, 4
"""How many random sentences are improved where there are more, and how often at each place."""

AT_ONCE = 256
"""How many sentences the network reads at once."""


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
    space = RowSpace.of([shared.gradients[f"{LAYER}.weight"]], shared.masked)
    inputs = np.full(shared.shape, shared.special.pad)
    sure = True
    for length in sorted(set(shared.lengths)):
        rows = np.flatnonzero(np.array(shared.lengths) == length)
        options = [_options(shared, place, length, distances, allowed) for place in range(length)]
        tried, scores = _tried(shared, options, space, rng)
        order = np.argsort(scores)
        # What is left of a sentence's words when all sentences are found must not be made of them.
        chosen = tried[order[: len(rows)]]
        sure = sure and bool(np.sum(scores <= 1.0) == len(rows))
        inputs[rows, :length] = chosen[np.arange(len(rows)) % len(chosen)]
    return Arranged(inputs, sure)


def _options(
    shared: SharedText, place: int, length: int, distances: Array, allowed: Array
) -> list[int]:
    """Return the words that may stand at a place of a sentence, the likeliest first."""
    special = shared.special
    if place in (0, length - 1):
        return [special.start if place == 0 else special.end]
    # More words than sentences may lie in the space: if a and b are at one place and a at another,
    # then b there is a sum of the three, but for what layer normalisation adds.
    words = np.argsort(distances[place])[: min(MOST_WORDS, max(1, int(allowed[place].sum())))]
    # A shorter sentence may end here, this one does not.
    return [int(word) for word in words if word != special.end] or [int(words[0])]


def _tried(
    shared: SharedText, options: Sequence[list[int]], space: RowSpace, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return sentences (C, T), all different, and the score of each, (C,): at most 1 if it fits."""
    count = math.prod(len(words) for words in options)
    if count <= MOST_TRIED:
        tried = np.array(list(itertools.product(*options)))
        hidden = (tried == shared.special.mask).sum(axis=1) == masked_count(len(options))
        tried = tried[hidden] if hidden.any() else tried
        return tried, _scores(shared, tried, space)
    tried = _improved(shared, options, space, rng)
    return tried, _scores(shared, tried, space)


def _improved(
    shared: SharedText, options: Sequence[list[int]], space: RowSpace, rng: np.random.Generator
) -> Array:
    """Return random sentences, (C, T), made better one place after another; each once."""
    wanted = shared.lengths.count(len(options))
    mask, length = shared.special.mask, len(options)
    hidable = [place for place in range(length) if mask in options[place]]
    spoken = [[word for word in words if word != mask] or words for words in options]
    sentences = np.array([[rng.choice(words) for words in spoken] for _ in range(STARTS)])
    hidden = np.zeros(sentences.shape, bool)
    for row in range(STARTS):
        hidden[row, rng.permutation(hidable)[: masked_count(length)]] = True
    sentences[hidden] = mask
    scores = _scores(shared, sentences, space)
    for _ in range(SWEEPS):
        for place in rng.permutation(length):
            for word in spoken[place]:
                changed = sentences.copy()
                changed[~hidden[:, place], place] = word
                found = _scores(shared, changed, space)
                better = found < scores
                sentences[better], scores[better] = changed[better], found[better]
            if len(np.unique(sentences[scores <= 1.0], axis=0)) >= wanted:
                return np.unique(sentences, axis=0)
    return np.unique(sentences, axis=0)


def _scores(shared: SharedText, sentences: Array, space: RowSpace) -> Array:
    """Return how far each of (C, T) sentences is from fitting, (C,): the hidden place farthest off.

    The distance is in units of what noise explains, and infinite where nothing is hidden.
    """
    scores = []
    for start in range(0, len(sentences), AT_ONCE):
        some = sentences[start : start + AT_ONCE]
        seen = encode(shared, some, [some.shape[1]] * len(some))
        far = space.distances(seen) / space.allowance(seen)
        hidden = some == shared.special.mask
        farthest = np.max(np.where(hidden, far, 0.0), axis=1)
        scores.append(np.where(hidden.any(axis=1), farthest, np.inf))
    return np.concatenate(scores)

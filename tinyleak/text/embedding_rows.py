"""`rows`: the embedding table's gradient names the words, without any optimisation.

A word's row of the table gets the gradient of every place where the word stood, so rows with a
gradient name the words of the sentences (Melis, Song, De Cristofaro and Shmatikov, "Exploiting
Unintended Feature Leakage in Collaborative Learning", 2019).

BERT's table is its output layer too, which gives every row a gradient. For V words, one sentence
of T tokens and M hidden places, the table's gradient is

    R = C P + B H,   with C (V, T) a one where place t has word v, P (T, d) and B H of rank M.

P is no secret: it is the gradient of the table of places. So two projections take R apart: what
of R's rows is orthogonal to those of P, has B's columns; and what of R's columns is orthogonal
to those, is C times P. Solved for C, it says which word stood where.

In a batch P is a sum over the sentences, which does not tell where in each a word stood. But most
words are in no sentence, and their rows span those of H: the rows outside that space are named.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.nn.models.bert import OUTPUT_BIAS, POSITIONS, WORDS
from tinyleak.text.client import SharedText
from tinyleak.text.hidden import fill_in
from tinyleak.text.result import Found, OnReading, Reading

UNFIT = 0.1
"""How far a place is from its word, as a square, if it does not fit; from another it is about 2."""

GUESSES = 200
"""How many handfuls of rows are tried as rows of words that are in no sentence."""


def rows(
    shared: SharedText, *, seed: int = 0, on_reading: OnReading | None = None, **options: Any
) -> Found:
    """Read the sentences off the gradient of the embedding table.

    For one sentence the words are found in their places; for a batch only which words there are,
    each once, in an order that says nothing.

    Raises:
        ValueError: a gradient of zeros; or one sentence with so many tokens, and hidden ones, that
            they span all numbers of a token's vector.
    """
    by_word = shared.gradients[WORDS].astype(float)
    if not by_word.any():
        raise ValueError(
            "the embedding table's gradient is zero, so no row names a word; attack with match"
        )
    if len(shared.lengths) == 1:
        inputs, sure = _places(shared, by_word)
        tokens = fill_in(shared, inputs[np.newaxis])
        reason = "every place names its word" if sure else "the rows leave a choice"
    else:
        named = _named(shared, by_word, np.random.default_rng(seed))
        tokens = _laid_out(shared, named)
        reason = f"{len(named)} rows name words"
    reading = Reading(0, tokens, 0.0)
    if on_reading is not None:
        on_reading(reading)
    return Found(tokens, [reading], reason)


def _places(shared: SharedText, by_word: Array) -> tuple[Array, bool]:
    """Return what one sentence's model read, (T,), and whether it fits as it should."""
    length, masked = shared.lengths[0], shared.masked
    width = by_word.shape[1]
    if length + masked > width:
        raise ValueError(
            f"{length} tokens and {masked} hidden ones span all {width} numbers of a token's "
            "vector; give a shorter sentence, or more --width"
        )
    by_place = shared.gradients[POSITIONS][:length].astype(float)
    _, _, directions = np.linalg.svd(by_place)
    without_places = by_word @ directions[length:].T  # (V, d − T), of rank M
    outputs = np.linalg.svd(without_places, full_matrices=False)[0][:, :masked]
    # Of rows and of a one at a word alike, what the output layer may have done is left out.
    left = by_word - outputs @ (outputs.T @ by_word)
    fit = left @ np.linalg.pinv(by_place)  # (V, T)
    lengths = np.maximum(1.0 - np.square(outputs).sum(axis=1), np.finfo(float).eps)
    words = np.argmax(fit / np.sqrt(lengths)[:, np.newaxis], axis=0)
    # What is left of the one at the right word is all that there is to a place.
    off = np.square(fit).sum(axis=0) - 2 * fit[words, np.arange(length)] + lengths[words]
    return words, bool(off.max() < UNFIT)


def _named(shared: SharedText, by_word: Array, rng: np.random.Generator) -> Array:
    """Return the words whose rows lie outside the space that the other rows span, farthest first.

    That space is guessed from handfuls of rows, and the best guess is the one that leaves the rows
    nearest to it in the middle (RANSAC: Fischler and Bolles 1981; least median: Rousseeuw 1984).
    """
    rank = shared.masked
    sizes = np.linalg.norm(by_word, axis=1)
    best, nearest = np.inf, np.zeros(len(by_word))
    for _ in range(GUESSES):
        handful = rng.choice(len(by_word), 3 * rank, replace=False)
        _, _, directions = np.linalg.svd(by_word[handful], full_matrices=False)
        space = directions[:rank]
        outside = np.linalg.norm(by_word - (by_word @ space.T) @ space, axis=1) / sizes
        middle = float(np.median(outside))
        if middle < best:
            best, nearest = middle, outside
    # What is as near as most is explained by rounding or noise.
    far = np.flatnonzero(nearest > 30 * best)
    return far[np.argsort(-nearest[far])]


def _laid_out(shared: SharedText, named: Array) -> Array:
    """Return (N, T) with the named words, and those that were to be guessed, in some order."""
    special = shared.special
    # The gradient by the output's bias is a mean of p − y: a word that was right has less than 0.
    guessed = np.argsort(shared.gradients[OUTPUT_BIAS])[: shared.masked]
    known = (special.start, special.end, special.mask)
    words = [word for word in dict.fromkeys([*guessed, *named]) if word not in known]
    words += [special.unknown] * shared.words.size
    tokens = np.full(shared.shape, special.pad)
    tokens[:, 0] = special.start
    tokens[np.arange(len(tokens)), np.array(shared.lengths) - 1] = special.end
    tokens[shared.words] = words[: int(shared.words.sum())]
    return tokens

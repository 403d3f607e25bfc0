"""`rows`: the embedding table's gradient names the words, without any optimisation.

A word's row of the table gets the gradient of every position where the word stood, so rows with a
gradient name the words of the sentences (Melis, Song, De Cristofaro and Shmatikov, "Exploiting
Unintended Feature Leakage in Collaborative Learning", 2019).

The table of BERT and GPT-2 is their output layer too, which gives every row a gradient. For V
words, T tokens read and M predicted ones, the table's gradient is

    R = C P + B H,   with C (V, T) a one where position t has word v, P (T, d), B H of rank M.

P is known: for one sentence it is the gradient of the table of positions. So two projections take
R apart: the part of R's rows that is orthogonal to those of P has B's columns; and the part of R's
columns that is orthogonal to those is C times P. Solving for C gives the word at each position.

In a batch P is a sum over the sentences, which does not tell where in each a word stood. But most
words are in no sentence, and their rows span those of H: the rows outside that space are named.
"""

import numpy as np

from tinyleak.backend import Array
from tinyleak.text.client import TextClient
from tinyleak.text.hidden import fill_in, likeliest_inputs, named_answers
from tinyleak.text.result import FoundText, OnProgress

UNFIT = 0.1
"""The squared distance of a position from its word, if it does not fit. Of a word that fits it is
rounding; of another word it is about 2, the squared distance of two rows of C."""

GUESSES = 200
"""How many handfuls of rows are tried as rows of words that are in no sentence: so many that one
without a word of the sentences is nearly certain, even if they have a third of the vocabulary."""

FAR = 30.0
"""A row is named if it is so many times as far from the space as the median row, whose distance is
rounding or noise."""


def rows(client: TextClient, *, seed: int = 0, on_progress: OnProgress | None = None) -> FoundText:
    """Read the sentences off the gradient of the embedding table.

    For one sentence the words are found in their positions; for a batch only which words there are,
    each once, in an arbitrary order. The seed decides which rows of a batch are tried. A gradient
    of zeros is a ValueError, and so is one sentence with so many tokens, and hidden ones, that they
    span all numbers of a token's vector.
    """
    by_word = client.gradients[client.model.word_table].astype(float)
    if not by_word.any():
        raise ValueError(
            "the embedding table's gradient is zero, so no row names a word; attack with match"
        )
    if len(client.lengths) == 1:
        inputs, sure = _one_sentence(client, by_word)
        tokens = fill_in(client, inputs[np.newaxis])
        reason = "every position names its word" if sure else "the rows leave a choice"
        return FoundText.at_once(client, tokens, reason, sure, on_progress)
    named = _named(client, by_word, np.random.default_rng(seed))
    tokens = _laid_out(client, named)
    return FoundText.at_once(client, tokens, f"{len(named)} rows name words", False, on_progress)


def _one_sentence(client: TextClient, by_word: Array) -> tuple[Array, bool]:
    """Return what one sentence's model read, (T,), and whether it fits as it should."""
    length, masked, width = client.records, client.masked, by_word.shape[1]
    if length + masked > width:
        raise ValueError(
            f"{length} tokens and {masked} hidden ones span all {width} numbers of a token's "
            "vector; give a shorter sentence, or more --width"
        )
    by_position = client.gradients[client.model.position_table][:length].astype(float)
    _, _, directions = np.linalg.svd(by_position)
    without_positions = by_word @ directions[length:].T  # (V, d − T), of rank M
    outputs = np.linalg.svd(without_positions, full_matrices=False)[0][:, :masked]
    # What the output layer may have contributed is projected out of R, and out of C's columns.
    left = by_word - outputs @ (outputs.T @ by_word)
    fit = left @ np.linalg.pinv(by_position)  # (V, T)
    # If a word is right, its position's column is the projection of a one at that word. Distances
    # are relative to its length: a word that the output layer hides altogether explains nothing.
    lengths = np.maximum(1.0 - np.square(outputs).sum(axis=1), np.finfo(float).eps)
    distances = (np.square(fit).sum(axis=0)[:, np.newaxis] - 2.0 * fit.T + lengths) / lengths
    words = likeliest_inputs(client, distances)
    return words, bool(distances[np.arange(length), words].max() < UNFIT)


def _named(client: TextClient, by_word: Array, rng: np.random.Generator) -> Array:
    """Return the words whose rows lie outside the space that the other rows span, farthest first.

    That space is guessed from handfuls of rows, and the best guess is the one from which the
    median row is least far (RANSAC: Fischler and Bolles 1981; least median: Rousseeuw 1984).
    """
    rank = client.masked
    sizes = np.linalg.norm(by_word, axis=1)
    best, nearest = np.inf, np.zeros(len(by_word))
    for _ in range(GUESSES):
        handful = rng.choice(len(by_word), 3 * rank, replace=False)
        _, _, directions = np.linalg.svd(by_word[handful], full_matrices=False)
        space = directions[:rank]
        outside = np.linalg.norm(by_word - (by_word @ space.T) @ space, axis=1) / sizes
        median = float(np.median(outside))
        if median < best:
            best, nearest = median, outside
    far = np.flatnonzero(nearest > FAR * best)
    return far[np.argsort(-nearest[far])]


def _laid_out(client: TextClient, named: Array) -> Array:
    """Return (N, T) with the named words, and those that were to be guessed, in some order."""
    special = client.special
    known = (special.start, special.end, special.mask)
    words = [w for w in dict.fromkeys([*named_answers(client), *named]) if w not in known]
    words += [special.unknown] * client.words.size
    tokens = client.known_tokens
    tokens[client.words] = words[: int(client.words.sum())]
    return tokens

"""The surest word first: a sentence out of a row space that noise has blurred.

Noise drowns the directions in which a gradient is weak, and every word's vector has some of itself
there: so all seem to be somewhat away from the space, and the right word of a place is no longer
the nearest (see `tinyleak.text.space`). But a few words stand out all the same; and the
vector of a word that is known, is known without noise. Taken out of the gradient and out of all
candidates, it leaves a smaller space, of the words that are still to be found, and in that another
word stands out. So each word is told by a space that all surer ones have been taken out of.

To find vectors by a noisy space is MUSIC (Schmidt 1986); to complete the space with what was found
is from Lee, Bresler and Junge, "Subspace Methods for Joint Sparse Recovery" (2012).
"""

from __future__ import annotations

import numpy as np

from tinyleak.backend import Array
from tinyleak.text.client import SharedText
from tinyleak.text.row_space import candidates, every_candidate, first_gradients

LIKELIEST = 1024
"""How many words are tried at each place: of a large vocabulary, those nearest at first."""

TINY = np.finfo(float).tiny


def surest_first(shared: SharedText, allowed: Array) -> tuple[Array, Array]:
    """Read one sentence, word by word: always the one that is nearest by most, as against the next.

    Args:
        shared: what the client shared, of one sentence.
        allowed: (T, V) which tokens may stand at which place.

    Returns:
        What the model read, (T,), with its [MASK]s; and how far each token at each place is from
        the space once those of all other places are taken out of it, (T, V).
    """
    rows = np.concatenate(first_gradients(shared)).astype(float)
    variance = _variance(rows, len(allowed))
    distances = np.where(allowed, noisy_distances(shared, variance), np.inf)
    words = np.argsort(distances, axis=1)[:, :LIKELIEST]
    may = np.take_along_axis(allowed, words, axis=1)
    vectors = candidates(shared, words)
    places = np.arange(len(words))
    ends = candidates(shared, np.array([shared.special.start, shared.special.end]))
    found = np.where((places == 0)[:, np.newaxis], ends[:, 0], ends[:, 1])
    inputs = np.where(places == 0, shared.special.start, shared.special.end)
    unknown = places[1:-1]
    while len(unknown):
        known = np.setdiff1d(places, unknown)
        away = blurred_distances(rows, variance, vectors[unknown], found[known])
        away = np.where(may[unknown], away, np.inf)
        nearest, next_nearest = np.partition(away, 1, axis=1)[:, :2].T
        surest = int(np.argmax(next_nearest / np.maximum(nearest, TINY)))
        place, which = unknown[surest], int(np.argmin(away[surest]))
        inputs[place], found[place] = words[place, which], vectors[place, which]
        unknown = np.delete(unknown, surest)
    distances += 1.0  # words that were not tried are farther than all that were
    for place in places:
        away = blurred_distances(rows, variance, vectors[place], np.delete(found, place, axis=0))
        distances[place, words[place]] = away
    return inputs, distances


def _variance(rows: Array, inputs: int) -> float:
    """Return the variance of what is wrong with rows (m, d): their inputs span no more of them."""
    sizes = np.linalg.svd(rows, compute_uv=False)[inputs:]
    free = (len(rows) - inputs) * (rows.shape[1] - inputs)
    return float(np.square(sizes).sum() / free)


def noisy_distances(shared: SharedText, variance: float) -> Array:
    """Return how far each word at each place is from the space, when none is known: (T, V)."""
    rows = np.concatenate(first_gradients(shared)).astype(float)
    none = np.empty((0, rows.shape[1]))
    return np.concatenate(
        [blurred_distances(rows, variance, some, none) for some in every_candidate(shared)], axis=1
    )


def blurred_distances(rows: Array, variance: float, vectors: Array, known: Array) -> Array:
    """Return how far vectors (…, d) are from a noisy row space, in [0, 1]: (…).

    What a vector has in a direction counts by the share of noise in that direction of the gradient:
    of m rows, noise of variance v gives it a squared singular value of about m·v.

    Args:
        rows: (m, d) the gradient.
        variance: of the noise on each of its entries.
        vectors: (…, d), each measured by what the known ones leave of it.
        known: (K, d), K < d vectors that are in the space, whatever the noise: they are taken out.
    """
    left = np.linalg.svd(known)[2][len(known) :]
    _, sizes, directions = np.linalg.svd(rows @ left.T, full_matrices=False)
    noise = np.minimum(1.0, len(rows) * variance / np.maximum(sizes**2, TINY))
    squares = np.square(vectors @ (directions @ left).T)
    return np.asarray(np.sqrt((squares @ noise) / np.maximum(squares.sum(axis=-1), TINY)))

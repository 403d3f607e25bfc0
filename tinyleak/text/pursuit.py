"""Subspace pursuit: a sentence out of a row space that noise has blurred, the surest word first.

Noise drowns the directions in which a gradient is weak, and every word's vector has a part in
those: all seem to be somewhat away from the space, and the right word of a position is no longer
the nearest. But a few words stand out nevertheless, and the vector of a word that is known is known
without noise. Projected out of the gradient and out of all candidates, it leaves a smaller space,
of the words that are still to be found, in which another word stands out. So each word is told by a
space that all surer ones have been taken out of.

To find vectors by their distance from a noisy space is MUSIC (Schmidt 1986); to complete the space
with the vectors that were found is from Lee, Bresler and Junge, "Subspace Methods for Joint Sparse
Recovery" (2012).
"""

import numpy as np

from tinyleak.backend import Array
from tinyleak.text.client import TextClient
from tinyleak.text.row_space import candidates, every_candidate

LIKELIEST = 1024
"""How many words are tried at each position, those nearest at first: their vectors are needed in
each round, and of BERT-base, 30 tokens long, they take 190 MB."""

TINY = np.finfo(float).tiny


def subspace_pursuit(client: TextClient, allowed: Array) -> tuple[Array, Array]:
    """Read one sentence word by word, always the word that stands out most from the next best.

    `allowed`, (T, V), tells which tokens may stand at which position. Return what the model read,
    (T,), with its [MASK]s; and how far each token at each position is from the space once those of
    all other positions are taken out of it, (T, V).
    """
    layer = client.first_layer_as_shared
    rows, variance = layer.matrix, layer.noise or 0.0
    distances = np.where(allowed, noisy_distances(client), np.inf)
    words = np.argsort(distances, axis=1)[:, :LIKELIEST]
    may = np.take_along_axis(allowed, words, axis=1)
    vectors = candidates(client, words)
    positions = np.arange(len(words))
    ends = candidates(client, np.array([client.special.start, client.special.end]))
    found = np.where((positions == 0)[:, np.newaxis], ends[:, 0], ends[:, 1])
    inputs = np.where(positions == 0, client.special.start, client.special.end)
    unknown = positions[1:-1]
    while len(unknown):
        known = np.setdiff1d(positions, unknown)
        away = blurred_distances(rows, variance, vectors[unknown], found[known])
        away = np.where(may[unknown], away, np.inf)
        nearest, next_nearest = np.partition(away, 1, axis=1)[:, :2].T
        surest = int(np.argmax(next_nearest / np.maximum(nearest, TINY)))
        position, which = unknown[surest], int(np.argmin(away[surest]))
        inputs[position], found[position] = words[position, which], vectors[position, which]
        unknown = np.delete(unknown, surest)
    distances += 1.0  # words that were not tried are farther than all that were
    for position in positions:
        away = blurred_distances(
            rows, variance, vectors[position], np.delete(found, position, axis=0)
        )
        distances[position, words[position]] = away
    return inputs, distances


def noisy_distances(client: TextClient) -> Array:
    """Return how far each word at each position is from the space, when none is known: (T, V)."""
    layer, none = client.first_layer_as_shared, np.empty((0, client.model.width))
    return np.concatenate(
        [
            blurred_distances(layer.matrix, layer.noise or 0.0, vectors, none)
            for vectors in every_candidate(client)
        ],
        axis=1,
    )


def blurred_distances(rows: Array, variance: float, vectors: Array, known: Array) -> Array:
    """Return how far vectors (…, d) are from a noisy row space, in [0, 1]: (…).

    The part of a vector in a direction counts by the share of noise in that direction of the
    gradient: of m rows, (m, d), noise of variance v on each entry gives it a squared singular value
    of about m·v. Each vector is measured by what the known ones leave of it: (K, d), K < d vectors
    that are in the space, whatever the noise.
    """
    left = np.linalg.svd(known)[2][len(known) :]
    _, sizes, directions = np.linalg.svd(rows @ left.T, full_matrices=False)
    noise = np.minimum(1.0, len(rows) * variance / np.maximum(sizes**2, TINY))
    squares = np.square(vectors @ (directions @ left).T)
    return np.asarray(np.sqrt((squares @ noise) / np.maximum(squares.sum(axis=-1), TINY)))

"""Sentences that fit, out of very many, if a network is nearly linear in its words.

A word changes the network's output at a hidden position little, and two words almost by the sum of
their effects. So with the effect of every word at every position, measured one at a time, the part
of the output that is outside a space is a sum over positions. Half of the positions make some
thousands of sums, the other half as many, and among all pairs those that cancel are found by one
matrix product: one sentence of millions. This is how knapsack problems are met in the middle
(Horowitz and Sahni 1974).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from tinyleak.backend import Array

MOST_SUMS = 4096  # how many sums a half makes at most: all pairs of them are a matrix of 134 MB

KEPT = 256
"""How many pairs are kept: since effects do not add up exactly, the best pair may not be first."""

Residuals: TypeAlias = Callable[[Array], Array]
"""Takes sentences (C, T) that hide the same positions, and returns what is outside, (C, D)."""


def can_meet(options: Sequence[Sequence[int]]) -> bool:
    """Return whether each half of the positions makes few enough sums."""
    return all(_count(options, half) <= MOST_SUMS for half in _halves(options))


def likeliest(options: Sequence[Sequence[int]], base: Array, residuals: Residuals) -> Array:
    """Return the sentences (K, T) whose residuals should be the smallest.

    Of the `options`, words that may stand at each position, one alone is one that is settled. Each
    word's effect is measured at the sentence `base`, (T,).
    """
    changed = [(position, word) for position, words in enumerate(options) for word in words]
    sentences = np.repeat(base[np.newaxis], 1 + len(changed), axis=0)
    for row, (position, word) in enumerate(changed, start=1):
        sentences[row, position] = word
    start, *after = residuals(sentences)
    effects = dict(zip(changed, np.array(after) - start, strict=True))
    first, second = _halves(options)
    ours, our_sums = _sums(options, first, effects)
    theirs, their_sums = _sums(options, second, effects)
    our_sums = our_sums + start
    squares = np.square(our_sums).sum(1)[:, np.newaxis] + np.square(their_sums).sum(1)
    left = squares + 2 * our_sums @ their_sums.T
    nearest = np.argpartition(left, min(KEPT, left.size - 1), axis=None)[:KEPT]
    rows, columns = np.unravel_index(nearest, left.shape)
    found = np.repeat(base[np.newaxis], len(nearest), axis=0)
    found[:, first], found[:, second] = ours[rows], theirs[columns]
    return found


def _halves(options: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Return the positions in two halves that make about equally many sums."""
    halves: tuple[list[int], list[int]] = ([], [])
    for position in sorted(range(len(options)), key=lambda position: -len(options[position])):
        min(halves, key=lambda half: _count(options, half)).append(position)
    return halves


def _count(options: Sequence[Sequence[int]], half: Sequence[int]) -> int:
    return math.prod(len(options[position]) for position in half)


def _sums(
    options: Sequence[Sequence[int]], half: list[int], effects: dict[tuple[int, int], Array]
) -> tuple[Array, Array]:
    """Return all choices of words at these positions, and the sum of the effects of each."""
    choices = np.array(list(itertools.product(*(options[position] for position in half))))
    sums = np.zeros((len(choices), len(next(iter(effects.values())))))
    for column, position in enumerate(half):
        words, which = np.unique(choices[:, column], return_inverse=True)
        sums += np.array([effects[position, word] for word in words])[which]
    return choices, sums

"""Sentences that fit, out of very many: by two halves, if a network is nearly linear in its words.

A word changes what the network says of a hidden place little, and two words almost by the sum of
what each does. So with the effect of every word at every place, measured one at a time, what is
outside of a space is a sum over places. Half of the places make some thousands of sums, the other
half as many, and of all pairs those that cancel are found by one matrix product: a sentence of
millions. This is the meet in the middle of knapsack problems (Horowitz and Sahni 1974).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from tinyleak.backend import Array

MOST_SUMS = 4096
"""How many sums a half makes at most."""

KEPT = 256
"""How many pairs are kept: the sum is not exact."""

Outside: TypeAlias = Callable[[Array], Array]
"""Takes sentences (C, T) that hide the same places, and returns what is outside, (C, D)."""


def fits_in_halves(options: Sequence[Sequence[int]]) -> bool:
    """Return whether the sums of either half are few enough."""
    return all(_count(options, half) <= MOST_SUMS for half in _halves(options))


def likeliest(options: Sequence[Sequence[int]], base: Array, outside: Outside) -> Array:
    """Return the sentences (K, T) of which least should be outside.

    Args:
        options: the words that may stand at each place; one alone where it is settled.
        base: (T,), the sentence at which each word's effect is measured.
        outside: says what is outside.
    """
    changed = [(place, word) for place, words in enumerate(options) for word in words]
    sentences = np.repeat(base[np.newaxis], 1 + len(changed), axis=0)
    for row, (place, word) in enumerate(changed, start=1):
        sentences[row, place] = word
    start, *after = outside(sentences)
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
    """Return the places in two halves that make about as many sums."""
    halves: tuple[list[int], list[int]] = ([], [])
    for place in sorted(range(len(options)), key=lambda place: -len(options[place])):
        min(halves, key=lambda half: _count(options, half)).append(place)
    return halves


def _count(options: Sequence[Sequence[int]], half: Sequence[int]) -> int:
    return math.prod(len(options[place]) for place in half)


def _sums(
    options: Sequence[Sequence[int]], half: list[int], effects: dict[tuple[int, int], Array]
) -> tuple[Array, Array]:
    """Return all choices of words at these places, and the sum of the effects of each."""
    choices = np.array(list(itertools.product(*(options[place] for place in half))))
    sums = np.zeros((len(choices), len(next(iter(effects.values())))))
    for column, place in enumerate(half):
        words, which = np.unique(choices[:, column], return_inverse=True)
        sums += np.array([effects[place, word] for word in words])[which]
    return choices, sums

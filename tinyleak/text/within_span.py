"""`span+match`: matching the gradient inside the space that the first layer's gradient spans.

Membership in that space names the words exactly, as long as it is exact itself (see
`tinyleak.text.row_space`), and then that is the end. But noise blurs its edge, rounding and
pruning tear it, long sentences fill it, and of a batch it does not always say which words stood
together: more words than were there may have been, or none seems to. This attack takes membership
for what it says, and lets the whole gradient decide among the words that it leaves. The attacker
knows what that of `match` knows.

The sentences that membership would name, with the surest word first where it is blurred
(`tinyleak.text.subspace_pursuit`), are judged by their gradient; often that is the end. If not,
L-BFGS moves, at each place, a mixture of the words that may have been there, and what is read off
is polished among the same words, as `match` does among all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinyleak.backend import Array
from tinyleak.text.assign_sentences import arrange
from tinyleak.text.client import SharedText
from tinyleak.text.distance import Guess, named_answers, noise_variance
from tinyleak.text.dummy_vectors import Search
from tinyleak.text.hidden import fill_in
from tinyleak.text.relaxed import any_word, known_tokens
from tinyleak.text.result import Found, OnReading, Reading
from tinyleak.text.row_space import UNAMBIGUOUS, first_space, membership
from tinyleak.text.subspace_pursuit import noisy_distances, surest_first

MOST_MIXED = 64
"""Up to so many words at a place are mixed; among more, vectors move freely, as in `match`."""


def span_match(
    shared: SharedText,
    *,
    seed: int = 0,
    on_reading: OnReading | None = None,
    iterations: int = 300,
    rounds: int = 4,
    starts: int = 4,
    **options: Any,
) -> Found:
    """Find the sentences by membership, and what it leaves open by matching the gradient.

    Args:
        shared: what the client shared.
        seed: decides the starts.
        on_reading: called with each reading, every 10 iterations.
        iterations: of L-BFGS in a round, at most.
        rounds: how often to begin again, at most.
        starts: how many starts a round has, as one batch.
        options: ignored: other methods' own.

    Raises:
        ValueError: a gradient of zeros.
    """
    members = _members(shared, np.random.default_rng([seed, 1]))
    if members.sure:
        reading = Reading(0, members.guesses[0].tokens, 0.0)
        if on_reading is not None:
            on_reading(reading)
        return Found(reading.tokens, [reading], UNAMBIGUOUS)
    likely = [-distances for distances in members.distances]
    search = Search(shared, members.allowed, seed, on_reading, likely=likely)
    search.mixed = bool(members.allowed[shared.words].sum(axis=-1).max() <= MOST_MIXED)
    if members.guesses:
        search.consider(members.guesses)
    return search.rounds(rounds, iterations, starts)


class Members(NamedTuple):
    """What membership says.

    Attributes:
        allowed: (N, T, V), which words may stand at each place.
        distances: (T, V) each, how far they are from the space, in one way or another.
        guesses: the sentences that these would name.
        sure: whether membership leaves no choice.
    """

    allowed: Array
    distances: list[Array]
    guesses: list[Guess]
    sure: bool = False


def _members(shared: SharedText, rng: np.random.Generator) -> Members:
    """Ask which words lie in the space; where it is full, or there is none, any may."""
    try:
        space = first_space(shared)
    except ValueError:  # as many tokens as a vector has numbers, or nothing in this gradient
        return Members(any_word(shared), [], [])
    distances, held = membership(shared, space)
    if len(shared.lengths) == 1:
        return _of_one(shared, distances, held)
    return _of_batch(shared, distances, held, rng)


def _of_one(shared: SharedText, distances: Array, held: Array) -> Members:
    """Read one sentence; where membership (T, V) leaves a choice, the surest word first."""
    allowed = any_word(shared)
    nearest = np.argmin(np.where(allowed, distances, np.inf), axis=-1)
    guesses = _as_guesses(shared, nearest, distances)
    if (held.sum(axis=1) == 1).all():
        return Members(allowed, [distances], guesses, sure=True)
    # Noise and rounding make the edge of the space unsure, so that it excludes nothing then.
    surest, afterwards = surest_first(shared, allowed[0])
    guesses += _as_guesses(shared, surest[np.newaxis], afterwards)
    return Members(allowed, [afterwards, distances], guesses)


def _of_batch(
    shared: SharedText, distances: Array, held: Array, rng: np.random.Generator
) -> Members:
    """Tell sentences apart; under noise the edge of the space is unsure and excludes nothing."""
    allowed, variance = any_word(shared), noise_variance(shared)
    members = np.where((allowed & held).any(axis=-1, keepdims=True), allowed & held, allowed)
    if variance > 0.0:
        members, distances = allowed, noisy_distances(shared, variance)
    arranged = arrange(shared, distances, held, rng)
    guesses = _as_guesses(shared, arranged.inputs, distances)
    return Members(members, [distances], guesses, sure=arranged.sure and len(guesses) > 0)


def _as_guesses(shared: SharedText, inputs: Array, distances: Array) -> list[Guess]:
    """Return what the model read, with the answers that fit, and with those that are named.

    There are none if a batch hides too many places or too few. In one sentence [MASK] is put where
    it is nearest.
    """
    mask = shared.special.mask
    inputs = np.where(shared.words, inputs, known_tokens(shared))
    if len(shared.lengths) == 1:
        by_place = np.where(shared.words[0], distances[:, mask], np.inf)
        words = np.where(np.arange(distances.shape[1]) == mask, np.inf, distances)
        inputs = np.where(inputs == mask, np.argmin(words, axis=1), inputs)
        inputs[0, np.argsort(by_place)[: shared.masked]] = mask
    places = np.flatnonzero(inputs == mask)
    if len(places) != shared.masked:
        return []
    # If all places are right, what fits them is surer; if some are wrong, what the bias names.
    fitting, left = fill_in(shared, inputs).ravel(), named_answers(shared)
    fit = Guess(inputs, np.where(inputs == mask, fitting.reshape(inputs.shape), -1))
    answers = np.full(inputs.size, -1)
    for place in sorted(places, key=lambda place: fitting[place] not in left):
        named = int(fitting[place]) if fitting[place] in left else left[0]
        left.remove(named)
        answers[place] = named
    return [fit, Guess(inputs, answers.reshape(inputs.shape))]

"""`span+match`: matching the gradient inside the space that the first layer's gradient spans.

Membership in that space names the words exactly, as long as it is exact itself (see
`tinyleak.attack.text.span`). Noise blurs its edge, pruning tears it, long sentences fill it, and of
a batch it does not say which words stood together: then more words than were there may have been,
or none seems to. This attack takes membership for what it says, and lets the whole gradient decide
among the words that it leaves. The attacker knows what that of `match` knows.

The sentences that membership alone would name (behind noise the surest word first, see
`tinyleak.attack.text.surest`) are judged by their gradient first; often that is the end. If not,
L-BFGS moves, at each place, a mixture of the words that may have been there, and what is read off
is polished among the same words, as `match` does among all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyleak.attack.text.arrange import arrange
from tinyleak.attack.text.client import SharedText
from tinyleak.attack.text.distance import Guess, named_answers, noise_variance
from tinyleak.attack.text.hidden import fill_in
from tinyleak.attack.text.match import Search
from tinyleak.attack.text.relaxed import any_word, known_tokens
from tinyleak.attack.text.result import Found, OnReading
from tinyleak.attack.text.span import first_space, membership
from tinyleak.attack.text.surest import noisy_distances, surest_first
from tinyleak.backend import Array

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
    allowed, distances, guesses = _members(shared, np.random.default_rng([seed, 1]))
    search = Search(shared, allowed, seed, on_reading, favour=-distances)
    search.mixed = bool(allowed[shared.words].sum(axis=-1).max() <= MOST_MIXED)
    if guesses:
        search.consider(guesses)
    return search.rounds(rounds, iterations, starts)


def _members(shared: SharedText, rng: np.random.Generator) -> tuple[Array, Array, list[Guess]]:
    """Return what membership says.

    Returns:
        Which words may stand at each place, (N, T, V): any, where the space is full, or none lies
        in it. How far each is from the space, (T, V). And the sentences that these would name.
    """
    allowed, variance = any_word(shared), noise_variance(shared)
    try:
        space = first_space(shared)
    except ValueError:  # as many tokens as a vector has numbers, or nothing in this gradient
        return allowed, np.zeros(allowed.shape[1:]), []
    distances, held = membership(shared, space)
    if len(shared.lengths) == 1 and variance > 0.0:
        words, distances = surest_first(shared, variance, allowed[0])
        inputs = words[np.newaxis]
    elif len(shared.lengths) == 1:
        inputs = np.argmin(np.where(allowed, distances, np.inf), axis=-1)
    else:
        if variance > 0.0:
            distances = noisy_distances(shared, variance)
        inputs = arrange(shared, distances, held, rng).inputs
    # Noise makes the edge of the space unsure, so that nothing is excluded then.
    members = allowed & held if variance == 0.0 else allowed
    members = np.where(members.any(axis=-1, keepdims=True), members, allowed)
    inputs = np.where(shared.words, inputs, known_tokens(shared))
    return members, distances, _as_guesses(shared, inputs, distances)


def _as_guesses(shared: SharedText, inputs: Array, distances: Array) -> list[Guess]:
    """Return what the model read, with the answers that fit, and with those that are named.

    There are none if a batch hides too many places or too few. In one sentence [MASK] is put where
    it is nearest.
    """
    mask = shared.special.mask
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

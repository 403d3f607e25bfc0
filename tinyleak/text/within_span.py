"""`span+match`: matching the gradient inside the space that the first layer's gradient spans.

Membership in that space names the words exactly as long as the space is exact (see
`tinyleak.text.row_space`), and then the attack is over. But noise blurs the space, rounding and
pruning distort it, long sentences fill it, and for a batch it does not always tell which words
stood together: too many words seem to be members, or none. This attack lets the whole gradient
decide among the words that membership leaves. It knows as much as `match` does.

The sentences that membership would name, by subspace pursuit where it is blurred
(`tinyleak.text.pursuit`), are judged by their gradient; often that is enough. If not, L-BFGS moves,
at each position, a mixture of the words that may have been there, and the words read off are
improved among the same ones, as `match` does among all.
"""

from typing import NamedTuple

import numpy as np

from tinyleak.backend import Array
from tinyleak.text.assignment import assign_sentences
from tinyleak.text.client import TextClient
from tinyleak.text.distance import Guess
from tinyleak.text.dummy_vectors import Search, require_counts
from tinyleak.text.hidden import fill_in, likeliest_inputs, named_answers
from tinyleak.text.pursuit import noisy_distances, subspace_pursuit
from tinyleak.text.relaxed import any_word
from tinyleak.text.result import FoundText, OnProgress
from tinyleak.text.row_space import UNAMBIGUOUS, membership, row_space, span

MOST_MIXED = 64
"""Up to so many words at a position are mixed; among more, vectors move freely, as in `match`."""


def span_match(
    client: TextClient,
    *,
    seed: int = 0,
    start: Array | None = None,
    on_progress: OnProgress | None = None,
    iterations: int = 300,
    rounds: int = 4,
    restarts: int = 4,
) -> FoundText:
    """Find the sentences by membership, and where it leaves a choice, by matching the gradient.

    A GPT-2's gradient is not matched: there this is `span`. Arguments and errors are those of
    `match`; `start` counts only if the gradient is matched.
    """
    require_counts(iterations, rounds, restarts)
    if client.model.causal:
        return span(client, seed=seed, on_progress=on_progress)
    members = _members(client)
    if members.sure:
        tokens = members.guesses[0].tokens
        return FoundText.at_once(client, tokens, UNAMBIGUOUS, True, on_progress)
    likely = [-distances for distances in members.distances]
    mixed = bool(members.allowed[client.words].sum(axis=-1).max() <= MOST_MIXED)
    search = Search(client, members.allowed, seed, on_progress, likely, start, mixed)
    if members.guesses:
        search.consider(members.guesses)
    return search.rounds(rounds, iterations, restarts)


class Members(NamedTuple):
    """The result of testing every word for membership."""

    allowed: Array  # (N, T, V), which words may stand at each position
    distances: list[Array]  # (T, V) each, how far they are from the space, in one way or another
    guesses: list[Guess]  # the sentences that these would name
    sure: bool = False  # whether membership leaves no choice


def _members(client: TextClient) -> Members:
    """Test which words lie in the space; any may, where the space is full or unknown."""
    try:
        space = row_space(client)
    except ValueError:  # as many tokens as a vector has numbers, or a gradient of zeros
        return Members(any_word(client), [], [])
    distances, held = membership(client, space)
    if len(client.lengths) == 1:
        return _of_one(client, distances, held)
    return _of_batch(client, distances, held)


def _of_one(client: TextClient, distances: Array, held: Array) -> Members:
    """Read one sentence; where membership, (T, V), leaves a choice, by subspace pursuit."""
    allowed = any_word(client)
    if (held.sum(axis=1) == 1).all():
        inputs = np.argmin(distances, axis=1)[np.newaxis]
        guess = Guess(fill_in(client, inputs), np.full(inputs.shape, -1))
        return Members(allowed, [distances], [guess], sure=True)
    # Noise and rounding make the edge of the space unsure, so that it excludes nothing then.
    _, afterwards = subspace_pursuit(client, allowed[0])
    guesses = []
    for likely in (distances, afterwards):
        inputs = likeliest_inputs(client, likely, hide_all=True)[np.newaxis]
        guesses += _as_guesses(client, inputs)
    return Members(allowed, [afterwards, distances], guesses)


def _of_batch(client: TextClient, distances: Array, held: Array) -> Members:
    """Tell sentences apart; under noise the edge of the space is unsure and excludes nothing."""
    allowed = any_word(client)
    members = np.where((allowed & held).any(axis=-1, keepdims=True), allowed & held, allowed)
    if client.noise > 0.0:
        members, distances = allowed, noisy_distances(client)
    inputs, sure = assign_sentences(client, distances, held)
    guesses = _as_guesses(client, inputs)
    return Members(members, [distances], guesses, sure=sure and len(guesses) > 0)


def _as_guesses(client: TextClient, inputs: Array) -> list[Guess]:
    """Return what the model read with the answers that fit, and with those that the bias names.

    The list is empty if too many positions are hidden, or too few.
    """
    mask = client.special.mask
    positions = np.flatnonzero(inputs == mask)
    if len(positions) != client.masked:
        return []
    # If all positions are right, the answers that fit are surer; if some are wrong, those named.
    fitting, left = fill_in(client, inputs).ravel(), named_answers(client)
    fit = Guess(inputs, np.where(inputs == mask, fitting.reshape(inputs.shape), -1))
    answers = np.full(inputs.size, -1)
    for position in sorted(positions, key=lambda position: fitting[position] not in left):
        named = int(fitting[position]) if fitting[position] in left else left[0]
        left.remove(named)
        answers[position] = named
    return [fit, Guess(inputs, answers.reshape(inputs.shape))]

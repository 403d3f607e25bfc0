"""`span`: which words lie in the row space of the first layer's gradient, exactly.

The first layer's query, key and value have the tokens' vectors as inputs, so these span the row
space of their weights' gradients (see `tinyleak.text.space`). A token's vector is one of
finitely many: for place p and word v it is LayerNorm(E_v + P_p + S_0). Each is tried, and the
words whose vectors lie in the space were there (Petrov, Dimitrov, Baader, Müller and Vechev,
"DAGER: Exact Gradient Inversion for Large Language Models", NeurIPS 2024, arXiv 2405.15586).

For one sentence that names every word in its place. For a batch it names the words at each place,
and `tinyleak.text.assign_sentences` tells the sentences apart.

It takes two layers or more. In the last only the hidden places' queries count, and what they ask
of all other places is a sum over few hidden places and heads, which spans too little.

Lesson: lessons/13_text.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.nn.models.bert import WORDS
from tinyleak.tensor import Tensor
from tinyleak.text.assign_sentences import arrange
from tinyleak.text.client import SharedText
from tinyleak.text.hidden import exact_params, fill_in
from tinyleak.text.result import Found, OnReading, Reading
from tinyleak.text.space import RowSpace

ATTENTION = "bert.encoder.layer.0.attention.self"

UNAMBIGUOUS = "one word fits at each place"
"""The reason that is given where the space leaves no choice."""

NUMBERS_AT_ONCE = 2**23
"""How many numbers the vectors that are tried at once are."""


def span(
    shared: SharedText, *, seed: int = 0, on_reading: OnReading | None = None, **options: Any
) -> Found:
    """Read the sentences off the row space of the first layer's gradient.

    Raises:
        ValueError: as many tokens as a token's vector has numbers, or more; a gradient of zeros.
    """
    distances, allowed = membership(shared, first_space(shared))
    if len(shared.lengths) == 1:
        inputs = np.argmin(distances, axis=1)[np.newaxis]
        sure = bool((np.sum(allowed, axis=1) == 1).all())
    else:
        inputs, sure = arrange(shared, distances, allowed, np.random.default_rng(seed))
    tokens = fill_in(shared, inputs)
    reading = Reading(0, tokens, float(np.min(distances, axis=1).max()))
    if on_reading is not None:
        on_reading(reading)
    return Found(tokens, [reading], UNAMBIGUOUS if sure else "the space leaves a choice")


def first_gradients(shared: SharedText) -> list[Array]:
    """Return the gradients of the weights that see the tokens' vectors themselves, (d, d) each."""
    return [shared.gradients[f"{ATTENTION}.{part}.weight"] for part in ("query", "key", "value")]


def first_space(shared: SharedText) -> RowSpace:
    """Return the space that the tokens' vectors span, as far as the gradient tells.

    Raises:
        ValueError: as `RowSpace.of`.
    """
    return RowSpace.of(first_gradients(shared), sum(shared.lengths))


def membership(shared: SharedText, space: RowSpace) -> tuple[Array, Array]:
    """Return how far each word at each place is from the space, (T, V), and whether it is in it."""
    distances, allowed = [], []
    for vectors in every_candidate(shared):
        distances.append(space.distances(vectors))
        allowed.append(space.holds(vectors))
    return np.concatenate(distances, axis=1), np.concatenate(allowed, axis=1)


def every_candidate(shared: SharedText) -> Iterator[Array]:
    """Yield `candidates` for some words after others, (T, v, d) each, since there may be many."""
    at_once = max(1, NUMBERS_AT_ONCE // (shared.shape[1] * shared.model.width))
    words = np.arange(shared.model.vocabulary)
    for start in range(0, len(words), at_once):
        yield candidates(shared, words[start : start + at_once])


def candidates(shared: SharedText, words: Array) -> Array:
    """Return what the first layer would see of W words at each place: (T, W, d).

    The words are the same at every place, (W,), or each place's own, (T, W).
    """
    params = exact_params(shared, "bert.embeddings.")
    table = params[WORDS].data
    vectors = np.broadcast_to(table[words], (shared.shape[1], words.shape[-1], shared.model.width))
    seen = shared.model.first_input(params, Tensor(np.swapaxes(vectors, 0, 1)))
    return np.swapaxes(seen.data, 0, 1)

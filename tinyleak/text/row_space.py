"""`span`: which words lie in the row space of the first layer's gradient, exactly.

The first layer's query, key and value have the tokens' vectors as inputs, so these span the row
space of their weights' gradients (see `tinyleak.analytic.layer_gradient`). A token's vector is one
of finitely many: for position p and word v it is LayerNorm(E_v + P_p), of BERT with the vector of
the segment added. Each is tried, and the words whose vectors lie in the space were there (Petrov,
Dimitrov, Baader, Müller and Vechev, "DAGER: Exact Gradient Inversion for Large Language Models",
NeurIPS 2024, arXiv 2405.15586).

Layer norm makes each vector's mean 0, which leaves d − 1 of its d dimensions: T tokens leave a
choice of words to exclude only while T < d − 1.

For one sentence that names every word in its position. For a batch it names the words at each
position, and `tinyleak.text.assignment` tells the sentences apart.

A BERT needs two layers or more. In the last only the queries of hidden positions count, and what
they ask of all other positions is a sum over few hidden positions and heads, which spans too
little.

Lesson: lessons/13_text.py
"""

from collections.abc import Iterator

import numpy as np

from tinyleak.analytic.subspace import Subspace
from tinyleak.backend import Array
from tinyleak.tensor import Tensor
from tinyleak.text.assignment import assign_sentences
from tinyleak.text.client import TextClient
from tinyleak.text.hidden import NUMBERS_AT_ONCE, exact_params, fill_in, likeliest_inputs
from tinyleak.text.result import FoundText, OnProgress

UNAMBIGUOUS = "one word fits at each position"
"""The reason that is given where the space leaves no choice."""

VECTOR_ROUNDING = 8.0
"""How many roundings a token's vector may be off, as the client computed it: measured at 0.5 to 3
in float32, where other words are at a million."""

BEFORE_FIRST_LAYER = ("bert.embeddings.", "transformer.wpe.", "transformer.h.0.ln_1.")
"""How the parameters begin that stand before the first layer's weights, in BERT and in GPT-2."""


def span(client: TextClient, *, seed: int = 0, on_progress: OnProgress | None = None) -> FoundText:
    """Read the sentences off the row space of the first layer's gradient.

    Nothing is drawn, so that the seed decides nothing. With d − 1
    tokens or more, of vectors of d numbers, or a gradient of zeros, it is a ValueError.
    """
    distances, allowed = membership(client, row_space(client))
    if len(client.lengths) == 1:
        sure = bool((np.sum(allowed, axis=1) == 1).all())
        inputs = np.argmin(distances, axis=1) if sure else likeliest_inputs(client, distances)
        inputs = inputs[np.newaxis]
    else:
        inputs, sure = assign_sentences(client, distances, allowed)
    reason = UNAMBIGUOUS if sure else "the space leaves a choice"
    farthest = float(np.min(distances, axis=1).max())
    return FoundText.at_once(client, fill_in(client, inputs), reason, sure, on_progress, farthest)


def row_space(client: TextClient) -> Subspace:
    """Return the space that the tokens' vectors span, as far as the gradient tells; as `span`."""
    dimensions = client.model.width - 1  # layer norm takes the mean off every vector
    if client.records >= dimensions:
        raise ValueError(
            f"{client.records} tokens span all {dimensions} dimensions that layer norm leaves a "
            f"vector of {dimensions + 1} numbers, so every word lies in their space; give fewer or "
            "shorter sentences, or more --width"
        )
    return client.first_layer.row_space


def membership(client: TextClient, space: Subspace) -> tuple[Array, Array]:
    """Return how far each word at each position is from the space, (T, V), and whether it is in it.

    Of a GPT-2 there are T − 1 positions, since its last token leaves no trace.
    """
    distances, allowed = [], []
    rounding = VECTOR_ROUNDING * np.finfo(client.dtype).eps
    for vectors in every_candidate(client):
        distances.append(space.distances(vectors))
        allowed.append(distances[-1] <= np.maximum(space.allowance(vectors), rounding))
    return np.concatenate(distances, axis=1), np.concatenate(allowed, axis=1)


def every_candidate(client: TextClient) -> Iterator[Array]:
    """Yield `candidates` of some words at a time, (T, v, d): all need not fit in memory."""
    at_once = max(1, NUMBERS_AT_ONCE // (client.shape[1] * client.model.width))
    params = exact_params(client, *BEFORE_FIRST_LAYER)
    for start in range(0, client.model.vocabulary, at_once):
        words = client.params[client.model.word_table][start : start + at_once]
        yield first_inputs(client, params, words.astype(float))


def candidates(client: TextClient, words: Array) -> Array:
    """Return what the first layer would see of W words at each position: (T, W, d).

    The words are the same at every position, (W,), or each position's own, (T, W).
    """
    vectors = client.params[client.model.word_table][words].astype(float)
    return first_inputs(client, exact_params(client, *BEFORE_FIRST_LAYER), vectors)


def first_inputs(client: TextClient, params: dict[str, Tensor], vectors: Array) -> Array:
    """Return what the first layer would see of W word embeddings at each position: (T, W, d).

    The embeddings are `vectors`, (W, d), the same at every position, or (T, W, d), each position's
    own. Of the weights, in float64, those named in `BEFORE_FIRST_LAYER` are used.
    """
    positions = client.shape[1] - client.model.causal
    vectors = np.broadcast_to(vectors, (positions, *vectors.shape[-2:]))
    seen = client.model.first_input(params, Tensor(np.swapaxes(vectors, 0, 1)))
    return np.swapaxes(seen.data, 0, 1)

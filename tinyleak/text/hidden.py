"""The words that were to be predicted, once it is known what the model has read.

BERT: the loss reaches the network through its output layers, at the hidden positions alone. Their
first is linear, so its gradient is Σ_m δ_m (h_m, 1)ᵀ over the hidden positions m. What the model
has read determines h_m; and a few h_m are independent, so each δ_m follows. δ_m is affine in the
target, and every word of the vocabulary can be tried.

GPT-2: every token but the last was read, and named. The output layer is linear in the last layer's
outputs h_t, so its gradient is Σ_t (p_t − y_t) h_tᵀ, and p − y is negative at the right word alone.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.backend import Array
from tinyleak.nn.losses import softmax
from tinyleak.nn.models.bert import OUTPUT_BIAS, OUTPUT_LAYER, Bert
from tinyleak.tensor import Tensor
from tinyleak.text.client import TextClient, attention
from tinyleak.transforms import copies, vjp

NUMBERS_AT_ONCE = 2**18
"""How many numbers of vectors are tried at once: 2 MB, so that they stay in a processor's cache."""


def exact_params(client: TextClient, *starts: str) -> dict[str, Tensor]:
    """Return the weights in float64, so that no rounding is added to the client's.

    The embedding table is left out: it is large, and what is needed of it is a few rows. Of the
    others those are returned whose names begin with one of `starts`; all, if none is given.
    """
    return {
        name: Tensor(array.astype(float, copy=False))
        for name, array in client.params.items()
        if name.startswith(starts or "") and name != client.model.word_table
    }


def encode(client: TextClient, inputs: Array, lengths: Sequence[int]) -> Array:
    """Return the last layer's output for each token that the model reads: (N, T) → (N, T, d)."""
    words = Tensor(client.params[client.model.word_table][inputs].astype(float))
    return client.model.encode(exact_params(client), words, attention(lengths)).data


def named_answers(client: TextClient) -> list[int]:
    """Return the hidden words, M numbers in ascending order, read off the output bias's gradient.

    Entry v of that gradient, times M, is Σ pᵥ − (how often v is the answer), and probabilities are
    small: so the answers are the M most negative entries, one that is left over counted again.
    """
    missing = -client.masked * client.gradients[OUTPUT_BIAS].astype(float)
    answers = []
    for _ in range(client.masked):
        answers.append(int(np.argmax(missing)))
        missing[answers[-1]] -= 1.0
    return sorted(answers)


def likeliest_inputs(client: TextClient, distances: Array, *, hide_all: bool = False) -> Array:
    """Return what the model has most likely read of one sentence, (T,).

    Of BERT, the start and the end are known, and [MASK] is at no more than M positions: in training
    some of the words to be predicted are shown, or others in their place. With `hide_all` it is at
    exactly M positions. `distances`, (T, V), are how far each token is from fitting at each
    position.
    """
    if client.model.causal:
        return np.argmin(distances, axis=1)
    special = client.special
    words = distances.copy()
    words[:, [special.pad, special.start, special.end, special.mask]] = np.inf
    by_mask = np.where(client.words[0], distances[:, special.mask], np.inf)
    hidden = np.argsort(by_mask)[: client.masked]
    if not hide_all:
        hidden = hidden[by_mask[hidden] < words[hidden].min(axis=1)]
    inputs = np.where(client.words[0], np.argmin(words, axis=1), client.known_tokens[0])
    inputs[hidden] = special.mask
    return inputs


def fill_in(client: TextClient, inputs: Array) -> Array:
    """Return the sentences, (N, T), from what the model has read of them.

    Of BERT, (N, T), the best words are put at hidden positions; of GPT-2, (1, T − 1), the last
    token is added.
    """
    if client.model.causal:
        return np.append(inputs, [[_last_token(client, inputs)]], axis=1)
    positions = inputs == client.special.mask
    if not positions.any():
        return inputs
    encoded = encode(client, inputs, client.lengths)
    if positions.sum() < client.masked < client.model.width:
        # In training BERT shows some of the words to be predicted, or others in their place.
        gradient = client.gradients[f"{OUTPUT_LAYER}.weight"]
        lying = LayerGradient(gradient, None, client.masked).row_space.holds(encoded)
        positions = lying if lying.sum() == client.masked else positions
    tokens = inputs.copy()
    tokens[positions] = _best_words(client, encoded[positions])
    return tokens


def _best_words(client: TextClient, encoded: Array) -> Array:
    """Return the word that was right at each hidden position, (M,), from its encoding, (M, d)."""
    model = client.model
    assert isinstance(model, Bert)
    known = np.column_stack([encoded, np.ones(len(encoded))])
    weight, bias = (client.gradients[f"{OUTPUT_LAYER}.{part}"] for part in ("weight", "bias"))
    found = (np.column_stack([weight, bias]).astype(float) @ np.linalg.pinv(known)).T  # δ, (M, d)
    params = exact_params(client, "cls.")
    layer = (params[f"{OUTPUT_LAYER}.{part}"].data for part in ("weight", "bias"))
    outputs = encoded @ next(layer).T + next(layer)
    # With respect to the logits z the gradient is softmax(z) − target, and z is linear in what is
    # multiplied with the table.
    table = client.params[model.word_table]
    logits = model.finish(params, Tensor(outputs)).data @ table.T + params[OUTPUT_BIAS].data
    probabilities = softmax(Tensor(logits)).data
    expected = probabilities @ table
    # The output bias has the gradient Σ_m (p_m − y_m) / M. It is negative at a word that was right,
    # unless the M probabilities of that word add up to 1.
    likely = probabilities.max(axis=0) > 0.5 / len(outputs)
    words = np.flatnonzero((client.gradients[OUTPUT_BIAS] < 0.0) | likely)
    if len(words) == 0:
        words = np.arange(model.vocabulary)
    cosines = []
    for some in np.array_split(words, 1 + outputs.size * len(words) // NUMBERS_AT_ONCE):
        cotangents = expected - table[some, np.newaxis]
        here = copies(outputs, len(some))
        _, (wanted,) = vjp(partial(model.finish, params), [here], Tensor(cotangents))
        # By direction, since a client may have clipped its gradient, or multiplied its loss.
        cosines.append((wanted.data * found).sum(-1) / np.linalg.norm(wanted.data, axis=-1))
    return np.asarray(words[np.argmax(np.concatenate(cosines), axis=0)])


def _last_token(client: TextClient, inputs: Array) -> int:
    """Return the last token of a GPT-2's sentence from those before it, (1, T − 1)."""
    model, length = client.model, inputs.shape[1]
    # The table's gradient is that of its use as embeddings too: at each token, its position's.
    by_position = client.gradients[model.position_table][:length].astype(float)
    last = np.linalg.pinv(encode(client, inputs, [length])[0])[:, -1]
    errors = client.gradients[model.word_table] @ last
    np.subtract.at(errors, inputs[0], by_position @ last)
    return int(np.argmin(errors))

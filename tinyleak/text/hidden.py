"""The words behind [MASK], once it is known what the model has read.

The loss reaches the network through its output layers, at the hidden places alone. Their first is
linear, so the gradient by its weight and bias is Σ_m δ_m [h_m, 1]ᵀ over the hidden places m. What
the model has read says what h_m is; and a few h_m are independent, so each δ_m follows. It says
which word was right: δ_m is affine in the target, and every word of the vocabulary can be tried.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyleak.backend import Array
from tinyleak.gradient import grad
from tinyleak.nn.losses import softmax
from tinyleak.nn.models.bert import OUTPUT_BIAS, WORDS
from tinyleak.ops import broadcast_to
from tinyleak.tensor import Tensor
from tinyleak.text.client import SharedText, attention

LAYER = "cls.predictions.transform.dense"

NUMBERS_AT_ONCE = 2**20
"""How many numbers the gradients are that are tried at once."""


def encode(shared: SharedText, inputs: Array, lengths: Sequence[int]) -> Array:
    """Return what the last layer says of each token that the model reads: (…, T, d) of (…, T)."""
    params = exact_params(shared)
    mask = attention(lengths)
    return shared.model.encode(params, shared.model.embed(params, inputs), mask).data


def exact_params(shared: SharedText, *starts: str) -> dict[str, Tensor]:
    """Return the weights in float64, so that no rounding is added to the client's.

    Args:
        shared: what the client shared.
        starts: how the names of those begin that are wanted; all are, if none is given.
    """
    return {
        name: Tensor(array.astype(float, copy=False))
        for name, array in shared.params.items()
        if name.startswith(starts or "")
    }


def fill_in(shared: SharedText, inputs: Array) -> Array:
    """Return what the model read, (N, T), with the most fitting word in place of each [MASK]."""
    places = inputs == shared.special.mask
    if not places.any():
        return inputs
    encoded = encode(shared, inputs, shared.lengths)[places]
    tokens = inputs.copy()
    tokens[places] = _best_words(shared, encoded)
    return tokens


def _best_words(shared: SharedText, encoded: Array) -> Array:
    """Return the word that was right at each hidden place, (M,), from its encoding, (M, d)."""
    known = np.concatenate([encoded, np.ones((len(encoded), 1))], axis=1)
    by_bias = shared.gradients[f"{LAYER}.bias"][:, np.newaxis]
    by_both = np.concatenate([shared.gradients[f"{LAYER}.weight"], by_bias], axis=1).astype(float)
    found = by_both @ np.linalg.pinv(known)  # (d, M): δ_m in columns
    found = found.T @ shared.params[f"{LAYER}.weight"]  # (M, d): by the encoding
    words = np.arange(shared.model.vocabulary)
    alike = []
    for some in np.array_split(words, 1 + encoded.size * len(words) // NUMBERS_AT_ONCE):
        wanted = _gradients_by_encoding(shared, encoded, some)
        # By direction, since a client may have clipped its gradient, or multiplied its loss.
        alike.append((wanted * found).sum(-1) / np.linalg.norm(wanted, axis=-1))
    return np.argmax(np.concatenate(alike), axis=0)


def _gradients_by_encoding(shared: SharedText, encoded: Array, words: Array) -> Array:
    """Return, for each word (V,) as the target, the loss's gradient by the encodings: (V, M, d)."""
    params = exact_params(shared, "cls.", WORDS)
    table, bias = params[WORDS].data, params[OUTPUT_BIAS].data
    copies = broadcast_to(Tensor(encoded), shape=(len(words), *encoded.shape))
    outputs = shared.model.transform(params, copies)
    # By the logits z the gradient is softmax(z) − target, and z is linear in the outputs.
    guesses = softmax(Tensor(outputs.data[0] @ table.T + bias)).data
    by_outputs = (guesses @ table) - table[words, np.newaxis]
    (gradients,) = grad(outputs, [copies], Tensor(by_outputs))
    return gradients.data

"""A client that trains a language model on sentences and shares its gradient.

As in BERT's training (Devlin et al. 2019, section 3.1) it hides 15 % of a sentence's tokens, each
behind the token [MASK], and has the model guess them: the loss is the mean cross-entropy at the
hidden places. As Deep Leakage from Gradients does (Zhu, Liu, Han 2019, section 4), it shares the
gradient of that loss by every parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.text import Special
from tinyleak.defenses import Defense, need_examples, protect
from tinyleak.gradient import grad
from tinyleak.nn.model import require_fit
from tinyleak.nn.models.bert import Bert, masked_loss
from tinyleak.ops import sum
from tinyleak.tensor import Tensor

MASKED = 0.15
"""The share of a sentence's tokens, without its start and end, that are to be guessed."""


def masked_count(length: int) -> int:
    """Return how many of a sentence's `length` tokens, start and end included, are hidden."""
    return max(1, round(MASKED * (length - 2)))


@dataclass(frozen=True)
class SharedText:
    """What the attacker has: all of this, and nothing of the sentences themselves.

    N sentences are laid out in N rows of T places, as many as the longest has tokens.

    Attributes:
        model: the network.
        params: its weights, by name.
        gradients: the gradient of the mean loss by each weight, after the client's defences. The
            output layer is the embedding table once more, so its gradient is in that table's.
        lengths: how many tokens each sentence has, its start and end included.
        special: the numbers of the tokens that are no words.
    """

    model: Bert
    params: dict[str, Array]
    gradients: dict[str, Array]
    lengths: tuple[int, ...]
    special: Special

    @property
    def shape(self) -> tuple[int, int]:
        """(N, T)."""
        return len(self.lengths), max(self.lengths)

    @property
    def attention(self) -> Array | None:
        """(N, T), true where there is a token; None where there is one everywhere."""
        return attention(self.lengths)

    @property
    def words(self) -> Array:
        """(N, T), true where there is a token that is not known from the start: no start, no end.

        Whatever is said to be recovered, is counted at these places only.
        """
        places = np.arange(self.shape[1])
        return (places >= 1) & (places < np.array(self.lengths)[:, np.newaxis] - 1)

    @property
    def masked(self) -> int:
        """M, how many places of the batch are hidden; which ones is not known."""
        return int(np.sum([masked_count(length) for length in self.lengths]))

    @property
    def dtype(self) -> str:
        """In which the client computed."""
        return str(next(iter(self.gradients.values())).dtype)


@dataclass(frozen=True)
class TextClient:
    """A client: what it shares, and the truth that an attack is judged by.

    Attributes:
        shared: what the attacker sees.
        tokens: (N, T), the sentences, whole numbers; padded at their ends.
        hidden: (N, T), true where a token is hidden behind [MASK].
    """

    shared: SharedText
    tokens: Array
    hidden: Array


def share_text(
    model: Bert,
    params: Mapping[str, Array],
    sentences: Sequence[Array],
    special: Special,
    *,
    rng: np.random.Generator,
    dtype: str = "float64",
    defenses: Sequence[Defense] = (),
    noise: np.random.Generator | None = None,
) -> TextClient:
    """Compute the gradient that a client with these sentences would share.

    Args:
        model: the network.
        params: its weights, by name.
        sentences: N of them, each (T,) tokens with start and end, as `Tokenizer.encode` gives.
        special: the tokens that are no words, as `Tokenizer.special` has them.
        rng: what decides which tokens are hidden.
        dtype: in which the client computes, "float64" or "float32".
        defenses: what it does to the gradient, in order, before it shares it.
        noise: where the noise of its defences comes from.

    Raises:
        ValueError: weights that do not fit the model or are not finite, no sentence, one without a
            word or with more tokens than the model has positions, a token out of range, an unknown
            dtype, or defences that do not go together or lack `noise`.
    """
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype {dtype!r} is unknown; choose float64 or float32")
    require_fit(model, params, "weights")
    lengths = tuple(len(sentence) for sentence in sentences)
    if not lengths or min(lengths) < 3 or max(lengths) > model.positions:
        raise ValueError(
            f"a client was given sentences of {list(lengths)} tokens; give at least one, each of "
            f"3 to {model.positions} tokens, start and end included"
        )
    tokens, hidden = lay_out(sentences, special, rng)
    targets = masked_targets(tokens, hidden, model.vocabulary, dtype)
    weights = {name: np.asarray(params[name], dtype=dtype) for name in model.shapes}
    inputs = np.where(hidden, special.mask, tokens)
    by_example = need_examples(defenses)
    gradients = (_example_gradients if by_example else _gradients)(
        model, weights, inputs, targets, attention(lengths)
    )
    if defenses:
        if noise is None:
            raise ValueError("defences draw noise, but none was given; give noise to share_text")
        gradients = protect(defenses, gradients, noise)
    shared = SharedText(model, weights, gradients, lengths, special)
    return TextClient(shared, tokens, hidden)


def lay_out(
    sentences: Sequence[Array], special: Special, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return a batch of sentences as (N, T) tokens, and (N, T), true at the places that are hidden.

    Args:
        sentences: N of them, each (T,) tokens with start and end; shorter ones are padded.
        special: the tokens that are no words.
        rng: what decides which tokens are hidden.
    """
    tokens = np.full((len(sentences), max(map(len, sentences))), special.pad)
    hidden = np.zeros(tokens.shape, bool)
    for row, sentence in enumerate(sentences):
        tokens[row, : len(sentence)] = sentence
        hidden[row, choose_hidden(len(sentence), rng)] = True
    return tokens, hidden


def masked_targets(tokens: Array, hidden: Array, vocabulary: int, dtype: str) -> Array:
    """Return (N, T, V) of zeros, but for a one at the token of each hidden place.

    Args:
        tokens: (N, T) whole numbers.
        hidden: (N, T), true where one is hidden.
        vocabulary: V.
        dtype: of the result.

    Raises:
        ValueError: a token that the vocabulary does not have.
    """
    wrong = tokens[(tokens < 0) | (tokens >= vocabulary)]
    if wrong.size:
        raise ValueError(
            f"token {wrong[0]} was given; with a vocabulary of {vocabulary} they are in "
            f"[0, {vocabulary})"
        )
    targets = np.zeros((*tokens.shape, vocabulary), dtype=dtype)
    targets[(*np.nonzero(hidden), tokens[hidden])] = 1.0
    return targets


def choose_hidden(length: int, rng: np.random.Generator) -> Array:
    """Return the places, in order, that a sentence of `length` tokens hides: 15 %, 1 at least."""
    return np.sort(1 + rng.choice(length - 2, masked_count(length), replace=False))


def attention(lengths: Sequence[int]) -> Array | None:
    """Return (N, T), true where each sentence has a token; None where all are equally long."""
    if len(set(lengths)) == 1:
        return None
    return np.arange(max(lengths)) < np.array(lengths)[:, np.newaxis]


def masked_gradients(
    model: Bert,
    params: Mapping[str, Tensor],
    words: Tensor,
    targets: Tensor,
    masked: int,
    attention: Array | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of the loss by each parameter: what a client shares, before defences.

    Where `words` is computed from the embedding table, the table's gradient holds that use of it
    too; where it is free, as an attacker's is, only the table's use as the output layer.

    Args:
        model: the network.
        params: its parameters, by name; with leading axes (R, …), R networks.
        words: (…, N, T, d), the embeddings of what the model reads.
        targets: (…, N, T, V), rows of probabilities at the hidden places, zeros at all others.
        masked: M, how many places are hidden.
        attention: (N, T), true where there is a token.

    Returns:
        For each name the gradient, of the parameter's shape.
    """
    losses = masked_loss(model(params, words, attention), targets, masked)
    # The sum over leading axes has, for each separate copy of the weights, that copy's gradient.
    gradients = grad(sum(losses), list(params.values()))
    return dict(zip(params, gradients, strict=True))


def _gradients(
    model: Bert, weights: Mapping[str, Array], inputs: Array, targets: Array, mask: Array | None
) -> dict[str, Array]:
    """Return the gradient of the loss over the whole batch by each weight."""
    params = {name: Tensor(weight) for name, weight in weights.items()}
    masked = int(targets.sum())
    words = model.embed(params, inputs)
    gradients = masked_gradients(model, params, words, Tensor(targets), masked, mask)
    return {name: gradient.data for name, gradient in gradients.items()}


def _example_gradients(
    model: Bert, weights: Mapping[str, Array], inputs: Array, targets: Array, mask: Array | None
) -> dict[str, Array]:
    """Return each sentence's own gradient, (N, …) by name."""
    each = [
        _gradients(model, weights, inputs[n : n + 1], targets[n : n + 1], here)
        for n, here in enumerate([None] * len(inputs) if mask is None else mask[:, np.newaxis])
    ]
    return {name: np.stack([one[name] for one in each]) for name in weights}

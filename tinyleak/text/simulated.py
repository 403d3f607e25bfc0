"""A client whose sentences are known, so that an attack on its gradient can be judged.

As Deep Leakage from Gradients does (Zhu, Liu, Han 2019, section 4), it shares the gradient of
BERT's masked-language loss with respect to every parameter.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.text import Special, Tokenizer, load_tokenizer
from tinyleak.defenses import Defense, need_examples, protect
from tinyleak.gradient import grad
from tinyleak.nn.fitting import require_fit
from tinyleak.nn.models.bert import Bert, masked_loss
from tinyleak.ops import sum
from tinyleak.tensor import Tensor
from tinyleak.text.client import TextClient, attention, masked_count
from tinyleak.text.files import require_lengths
from tinyleak.text.result import TextTruth


def simulate_text(
    sentences: str | Sequence[str],
    model: Bert | None = None,
    *,
    params: Mapping[str, Array] | None = None,
    tokenizer: Tokenizer | None = None,
    seed: int = 0,
    dtype: str = "float64",
    defenses: Sequence[Defense] = (),
) -> tuple[TextClient, TextTruth]:
    """Return a client with these sentences, and the truth about it.

    The weights come from `numpy.random.default_rng([seed, 0])`, the hidden words from `[seed, 1]`
    and the noise of the defences from `[seed, 2]`: one seed means one experiment, here and on the
    command line.

    Args:
        sentences: one text, or several as a batch.
        model: the network; a small BERT for the vocabulary, if None.
        params: its weights, by name; freshly initialised, if None.
        tokenizer: the vocabulary; the built-in one, if None.
        seed: 0 or more.
        dtype: in which the client computes, "float64" or "float32".
        defenses: what it does to the gradient, in order, before it shares it.

    Raises:
        ValueError: a sentence that is empty, too long or cannot be written; weights that do not fit
            the model or are not finite; a token out of range; an unknown dtype; defences that do
            not go together.
    """
    texts = [sentences] if isinstance(sentences, str) else list(sentences)
    tokenizer = load_tokenizer() if tokenizer is None else tokenizer
    model = Bert(len(tokenizer)) if model is None else model
    return share_text(
        model,
        model.init(np.random.default_rng([seed, 0])) if params is None else params,
        [tokenizer.encode(text, model.positions) for text in texts],
        tokenizer.special,
        rng=np.random.default_rng([seed, 1]),
        dtype=dtype,
        defenses=defenses,
        noise=np.random.default_rng([seed, 2]),
        tokenizer=tokenizer,
    )


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
    tokenizer: Tokenizer | None = None,
) -> tuple[TextClient, TextTruth]:
    """Compute the gradient that a client with these sentences would share.

    Other arguments, and errors, are those of `simulate_text`.

    Args:
        model: the network.
        params: its weights, by name.
        sentences: N of them, each (T,) tokens with start and end, as `Tokenizer.encode` gives.
        special: the tokens that are not words, as `Tokenizer.special` has them.
        rng: decides which tokens are hidden.
        noise: where the noise of its defences comes from; without it they are a ValueError.
    """
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype {dtype!r} is unknown; choose float64 or float32")
    require_fit(model, params, "weights")
    lengths = require_lengths(model, [len(sentence) for sentence in sentences])
    tokens, hidden = lay_out(sentences, special, rng)
    targets = masked_targets(tokens, hidden, model.vocabulary, dtype)
    weights = {name: np.array(params[name], dtype=dtype) for name in model.shapes}
    inputs = np.where(hidden, special.mask, tokens)
    compute = _example_gradients if need_examples(defenses) else _gradients
    gradients = compute(model, weights, inputs, targets, attention(lengths))
    if defenses:
        if noise is None:
            raise ValueError("defences draw noise, but none was given; give noise to share_text")
        gradients = protect(defenses, gradients, noise)
    client = TextClient(model, weights, gradients, lengths, special, tokenizer)
    return client, TextTruth(tokens, hidden)


def lay_out(
    sentences: Sequence[Array], special: Special, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return a batch of sentences as (N, T) tokens, and (N, T), true at the hidden positions.

    Each sentence is (T,) tokens with start and end; shorter ones are padded.
    """
    tokens = np.full((len(sentences), max(map(len, sentences))), special.pad)
    hidden = np.zeros(tokens.shape, bool)
    for row, sentence in enumerate(sentences):
        tokens[row, : len(sentence)] = sentence
        words = len(sentence) - 2
        hidden[row, 1 + rng.choice(words, masked_count(words + 2), replace=False)] = True
    return tokens, hidden


def masked_targets(tokens: Array, hidden: Array, vocabulary: int, dtype: str) -> Array:
    """Return (N, T, V) of zeros, but for a one at the token of each hidden position.

    A token that the vocabulary, of V, does not have is a ValueError.
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


def masked_gradients(
    model: Bert,
    params: Mapping[str, Tensor],
    words: Tensor,
    targets: Tensor,
    masked: int,
    attention: Array | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of the loss with respect to each parameter: what a client shares.

    Where `words` is computed from the embedding table, the table's gradient includes that use of
    it; where it is free, as an attacker's is, only the table's use as the output layer.

    Args:
        model: the network.
        params: its parameters, by name; with leading axes (R, …), R networks.
        words: (…, N, T, d), the embeddings of what the model reads.
        targets: (…, N, T, V), rows of probabilities at the M `masked` positions, zeros elsewhere.
        attention: (N, T), true where there is a token.
    """
    losses = masked_loss(model(params, words, attention), targets, masked)
    # The sum over leading axes has, for each separate copy of the weights, that copy's gradient.
    gradients = grad(sum(losses), list(params.values()))
    return dict(zip(params, gradients, strict=True))


def _gradients(
    model: Bert, weights: Mapping[str, Array], inputs: Array, targets: Array, mask: Array | None
) -> dict[str, Array]:
    """Return the gradient of the loss over the whole batch with respect to each weight."""
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

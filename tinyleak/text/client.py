"""What is known of a client that trains a language model on sentences, before any attack.

A client trains on sentences and shares the gradient of its loss with respect to every parameter.
BERT hides some tokens of each sentence behind [MASK] and guesses them (Devlin et al. 2019, section
3.1); GPT-2 guesses every token but the first from those before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from tinyleak.analytic.layer_gradient import LayerGradient, TableGradient
from tinyleak.backend import Array
from tinyleak.client.facts import Fact
from tinyleak.data.files import PathLike
from tinyleak.data.text import UNKNOWN, Special, Tokenizer, load_tokenizer
from tinyleak.nn.fitting import require_fit
from tinyleak.nn.models.bert import SEGMENTS
from tinyleak.nn.models.checkpoint import LanguageModel, tied
from tinyleak.text.files import (
    count_hidden,
    named_arrays,
    published_special,
    read_language_model,
    read_length,
    require_lengths,
)

MASKED = 0.15
"""The share of a sentence's tokens, without its start and end, that are hidden (BERT's)."""

FROZEN = "bert.embeddings."
"""How the names begin of weights that a client may not train, and so has no gradient of."""


def masked_count(length: int) -> int:
    """Return how many of a sentence's `length` tokens, start and end included, BERT hides."""
    return max(1, round(MASKED * (length - 2)))


@dataclass(frozen=True, eq=False, repr=False)
class TextClient:
    """What an attacker has: all of this, and nothing of the sentences themselves.

    N sentences are laid out in N rows of T positions, as many as the longest has tokens.
    """

    model: LanguageModel  # the network
    params: dict[str, Array]  # its weights, by name
    # The gradient of the mean loss with respect to each weight, after the client's defences. The
    # output layer is the embedding table, so it shares that table's gradient.
    gradients: dict[str, Array]
    lengths: tuple[int, ...]  # how many tokens each sentence has, its start and end included
    special: Special = UNKNOWN  # the numbers of the tokens that are not words
    tokenizer: Tokenizer | None = None  # what writes tokens as words, if it is known
    # How many "sentences", "hidden" positions and "heads" there are, and the "lengths" and "special
    # tokens"; each said, read off or assumed. A simulated client needs none.
    facts: dict[str, Fact] = field(default_factory=dict)
    hidden: int | None = None  # at how many positions BERT predicts a word; 15 % of them, if None

    @classmethod
    def from_files(
        cls,
        weights: PathLike | Mapping[str, Array],
        gradients: PathLike | Mapping[str, Array],
        vocabulary: PathLike | Tokenizer | None = None,
        *,
        lengths: Sequence[int] | None = None,
        heads: int | None = None,
    ) -> TextClient:
        """Return a client that is known by its files, of a BERT or a GPT-2.

        The gradient is of one backward pass without dropout (PyTorch's `model.eval()`), with all
        tokens in the first segment.

        Args:
            weights: .safetensors or .npz, as Hugging Face's `BertForMaskedLM` or `GPT2LMHeadModel`
                saves them, or the arrays by name. A config.json beside the file is read too.
            gradients: the gradient with respect to each weight, under the same names. Those of
                BERT's embeddings may be missing: they are often frozen.
            vocabulary: BERT's vocab.txt or GPT-2's vocab.json. Without one, tokens are numbers,
                and BERT's special tokens are assumed to be those of its published vocabularies.
            lengths: how many tokens each sentence has; several are a batch. If None, one sentence
                is assumed, and its length is read off the gradient of the table of positions.
            heads: attention heads in each layer; as config.json says, if None, or 64 wide.

        Raises:
            ValueError: files that cannot be used, or do not belong together; lengths that cannot
                be read off, or that the model does not have; a batch of a GPT-2.
            OSError: a file cannot be read.
        """
        tokenizer = vocabulary if isinstance(vocabulary, Tokenizer) else None
        if not (vocabulary is None or isinstance(vocabulary, Tokenizer)):
            tokenizer = load_tokenizer(vocabulary)
        tokens = None if tokenizer is None else len(tokenizer)
        model, params, fact = read_language_model(weights, heads, tokens)
        client = known_client(model, params, named_arrays(gradients), tokenizer, lengths)
        return replace(client, facts={**client.facts, "heads": fact})

    def __repr__(self) -> str:
        lengths = ", ".join(map(str, self.lengths[:20])) + ", …" * (len(self.lengths) > 20)
        return (
            f"TextClient({type(self.model).__name__} of {self.model.layers} layers, width "
            f"{self.model.width}, {self.model.vocabulary} tokens; sentences of {lengths} tokens)"
        )

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
        """(N, T), true where a token is not known from the start: BERT's starts and ends are.

        What is recovered is counted at these positions only.
        """
        positions = np.arange(self.shape[1])
        first, last = (0, 0) if self.model.causal else (1, 1)
        return (positions >= first) & (positions < np.array(self.lengths)[:, np.newaxis] - last)

    @property
    def masked(self) -> int:
        """M, at how many positions of the batch a token is predicted; BERT's are hidden ones."""
        if self.model.causal:
            return self.records
        if self.hidden is not None:
            return self.hidden
        return sum(masked_count(length) for length in self.lengths)

    @property
    def records(self) -> int:
        """How many tokens of the batch act on the loss: all, but not a GPT-2's last."""
        return sum(self.lengths) - self.model.causal * len(self.lengths)

    @cached_property
    def first_layer(self) -> LayerGradient:
        """The gradient of the layers that see the tokens' vectors themselves, each scaled to 1.

        Zeros are a ValueError.
        """
        return LayerGradient.stacked(self.model.first_layer(self.gradients), self.records)

    @cached_property
    def first_layer_as_shared(self) -> LayerGradient:
        """The same gradient with nothing scaled, so that noise on it is the same everywhere."""
        rows = np.concatenate(self.model.first_layer(self.gradients))
        return LayerGradient(rows, None, self.records)

    @cached_property
    def tables(self) -> TableGradient:
        """The gradient of the tables of positions and, of BERT, segments, one below the other.

        No token stands behind the longest sentence's end, and none is of another segment than the
        first.
        """
        positions = self.gradients[self.model.position_table]
        segments = self.gradients.get(SEGMENTS, positions[:0])
        used = (np.arange(len(positions)) < self.shape[1], np.arange(len(segments)) < 1)
        table = np.concatenate([positions, segments])
        return TableGradient(table, looked_up=np.concatenate(used))

    @property
    def noise(self) -> float:
        """The variance of the noise on the gradient; exactly 0 where none was added, or shows."""
        return self.tables.noise or 0.0

    @property
    def known_tokens(self) -> Array:
        """(N, T), the tokens that are known from the start: BERT's starts, ends and padding.

        Where a word stands there is padding too.
        """
        tokens = np.full(self.shape, self.special.pad)
        tokens[:, 0] = self.special.start
        tokens[np.arange(len(tokens)), np.array(self.lengths) - 1] = self.special.end
        return tokens

    @property
    def dtype(self) -> str:
        """In which the client computed."""
        return str(next(iter(self.gradients.values())).dtype)

    def as_words(self, tokens: Array) -> list[list[str]]:
        """Return the tokens of each sentence, (N, T), as they are written in the vocabulary."""
        rows = [row[:length] for row, length in zip(tokens, self.lengths, strict=True)]
        if self.tokenizer is None:
            return [[str(token) for token in row] for row in rows]
        return [self.tokenizer.words(row) for row in rows]

    def as_sentences(self, tokens: Array) -> list[str]:
        """Return the sentences (N, T) as texts, without their starts and ends."""
        rows = [row[there] for row, there in zip(tokens, self.words, strict=True)]
        if self.tokenizer is None:
            return [" ".join(map(str, row)) for row in rows]
        return [self.tokenizer.decode(row) for row in rows]


def known_client(
    model: LanguageModel,
    params: dict[str, Array],
    gradients: Mapping[str, Array],
    tokenizer: Tokenizer | None = None,
    lengths: Sequence[int] | None = None,
) -> TextClient:
    """Return the client that these arrays belong to; they are not copied.

    Args:
        model: the network.
        params: its weights, by its names.
        gradients: as `TextClient.from_files` takes them; those that are missing are taken as zero.
        tokenizer: the vocabulary, if it is known.
        lengths: how many tokens each sentence has; else read off, with ValueErrors as there.
    """
    shared, facts = tied(gradients), {}
    withheld = [name for name in model.shapes if name not in shared and name.startswith(FROZEN)]
    if withheld:
        shared |= {n: np.zeros(model.shapes[n], params[n].dtype) for n in withheld}
        facts["not shared"] = Fact(", ".join(withheld), "read off", "taken as zero")
    require_fit(model, shared, "gradients")
    if lengths is None:
        lengths = require_lengths(model, [read_length(model, shared)])
        facts["sentences"] = Fact(1, "assumed")
        where = "the gradient of the table of positions"
        facts["lengths"] = Fact(lengths[0], "read off", where)
    else:
        lengths = require_lengths(model, lengths)
        facts["sentences"] = Fact(len(lengths), "said")
        facts["lengths"] = Fact(", ".join(map(str, lengths)), "said")
    special = published_special(model) if tokenizer is None else tokenizer.special
    if tokenizer is None and not model.causal:
        facts["special tokens"] = Fact("BERT's", "assumed", "by the size of the vocabulary")
    client = TextClient(model, params, shared, lengths, special, tokenizer, facts)
    if model.causal:
        return client
    hidden = count_hidden(shared, client.records, client.noise)
    facts["hidden"] = (
        Fact(client.masked, "assumed", "15 % of the tokens")
        if hidden is None
        else Fact(hidden, "read off", "the rank of the first output layer's gradient")
    )
    return replace(client, hidden=hidden)


def attention(lengths: Sequence[int]) -> Array | None:
    """Return (N, T), true where each sentence has a token; None where all are equally long."""
    if len(set(lengths)) == 1:
        return None
    return np.arange(max(lengths)) < np.array(lengths)[:, np.newaxis]

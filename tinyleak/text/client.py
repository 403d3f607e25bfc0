"""What is known of a client that trains a language model on sentences, before any attack.

A client trains on sentences and shares the gradient of its loss with respect to every parameter.
BERT hides some tokens of each sentence behind [MASK] and guesses them (Devlin et al. 2019, section
3.1); GPT-2 guesses every token but the first from those before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.backend import Array
from tinyleak.data.files import PathLike
from tinyleak.data.tensors import read_tensors
from tinyleak.data.text import PUBLISHED, UNKNOWN, Special, Tokenizer, load_tokenizer
from tinyleak.nn.model import require_fit
from tinyleak.nn.models.bert import OUTPUT_LAYER
from tinyleak.nn.models.checkpoint import LanguageModel, language_model, read_config, tied

MASKED = 0.15
"""The share of a sentence's tokens, without its start and end, that are hidden (BERT's)."""


def masked_count(length: int) -> int:
    """Return how many of a sentence's `length` tokens, start and end included, BERT hides."""
    return max(1, round(MASKED * (length - 2)))


@dataclass(frozen=True, eq=False, repr=False)
class TextClient:
    """What an attacker has: all of this, and nothing of the sentences themselves.

    N sentences are laid out in N rows of T positions, as many as the longest has tokens.

    Attributes:
        model: the network.
        params: its weights, by name.
        gradients: the gradient of the mean loss with respect to each weight, after the client's
            defences. The output layer is the embedding table, so it shares that table's gradient.
        lengths: how many tokens each sentence has, its start and end included.
        special: the numbers of the tokens that are not words.
        tokenizer: what writes tokens as words, if it is known.
        sources: for "sentences", "lengths", "hidden", "heads" and "special tokens", how each is
            known: "said", "read off" or "assumed".
        hidden: at how many positions of the batch BERT predicts a word; 15 % of them, if None.
    """

    model: LanguageModel
    params: dict[str, Array]
    gradients: dict[str, Array]
    lengths: tuple[int, ...]
    special: Special = UNKNOWN
    tokenizer: Tokenizer | None = None
    sources: dict[str, str] = field(default_factory=dict)
    hidden: int | None = None

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

        Args:
            weights: .safetensors or .npz, as Hugging Face's `BertForMaskedLM` or `GPT2LMHeadModel`
                saves them, or the arrays by name. A config.json beside the file is read too.
            gradients: the gradient with respect to each weight, under the same names.
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
        model, params, how = read_language_model(weights, heads, tokens)
        client = known_client(model, params, _arrays(gradients), tokenizer, lengths)
        client.sources["heads"] = how
        return client

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
            return self.traces
        if self.hidden is not None:
            return self.hidden
        return sum(masked_count(length) for length in self.lengths)

    @property
    def traces(self) -> int:
        """How many tokens of the batch act on the loss: all, but not a GPT-2's last."""
        return sum(self.lengths) - self.model.causal * len(self.lengths)

    @cached_property
    def first_layer(self) -> LayerGradient:
        """The gradient of the layers that see the tokens' vectors themselves, each scaled to 1.

        Raises:
            ValueError: it is zero.
        """
        return LayerGradient.stacked(self.model.first_layer(self.gradients), self.traces)

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
    """Return a client from arrays, which are not copied; see `TextClient.from_files`."""
    shared = tied(gradients)
    require_fit(model, shared, "gradients")
    sources = dict.fromkeys(("sentences", "lengths", "special tokens"), "said")
    if tokenizer is None:
        sources["special tokens"] = "assumed"
    if lengths is None:
        sources |= {"sentences": "assumed", "lengths": "read off"}
        lengths = [_read_length(model, shared)]
    require_lengths(model, lengths)
    special = _special(model) if tokenizer is None else tokenizer.special
    client = TextClient(model, params, shared, tuple(lengths), special, tokenizer, sources)
    hidden = _count_hidden(client)
    sources["hidden"] = "assumed" if hidden is None else "read off"
    return replace(client, hidden=hidden)


def read_language_model(
    weights: PathLike | Mapping[str, Array], heads: int | None = None, tokens: int | None = None
) -> tuple[LanguageModel, dict[str, Array], str]:
    """Return the network of a checkpoint, its weights, and how the number of heads is known.

    A config.json beside the file is read too.

    Args:
        weights: a file, or arrays by name.
        heads: attention heads in each layer, if they are known otherwise.
        tokens: how many the vocabulary has, if there is one.

    Raises:
        ValueError: as `language_model`, or a config.json that cannot be used, or a vocabulary of
            another size than the network's.
        OSError: a file cannot be read.
    """
    arrays, config = _arrays(weights), {}
    if not isinstance(weights, Mapping):
        config = read_config(Path(weights).with_name("config.json"))
    if heads is not None:
        config["heads"] = heads
    where = "a checkpoint" if isinstance(weights, Mapping) else repr(str(weights))
    try:
        model, params = language_model(arrays, **config)
    except ValueError as error:
        raise ValueError(f"{where} cannot be used: {error}") from error
    if tokens is not None and tokens != model.vocabulary:
        raise ValueError(
            f"{where} is made for {model.vocabulary} tokens, and the vocabulary has {tokens}; give "
            "the one it was trained with as --vocabulary"
        )
    return model, params, "said" if "heads" in config else "assumed"


def _arrays(source: PathLike | Mapping[str, Array]) -> dict[str, Array]:
    """Return named arrays, of a file or of a caller, who may change his own later."""
    if isinstance(source, Mapping):
        return {name: np.array(array) for name, array in source.items()}
    return read_tensors(source)


def attention(lengths: Sequence[int]) -> Array | None:
    """Return (N, T), true where each sentence has a token; None where all are equally long."""
    if len(set(lengths)) == 1:
        return None
    return np.arange(max(lengths)) < np.array(lengths)[:, np.newaxis]


def _special(model: LanguageModel) -> Special:
    """Return the special tokens of the published vocabulary of this size."""
    if model.causal:
        return UNKNOWN
    if model.vocabulary not in PUBLISHED:
        raise ValueError(
            f"the network has {model.vocabulary} tokens, which is not the size of one of BERT's "
            "published vocabularies, so nothing says which of them is [MASK]; give its vocabulary"
        )
    return PUBLISHED[model.vocabulary]


def _count_hidden(client: TextClient) -> int | None:
    """Return at how many positions a BERT predicts: the rank of its first output layer's gradient.

    None if it cannot be told, since there are as many tokens as a vector has numbers.
    """
    if client.model.causal or client.traces >= client.model.width:
        return None
    gradient = client.gradients[f"{OUTPUT_LAYER}.weight"]
    return LayerGradient(gradient, None, client.traces).rank or None


def _read_length(model: LanguageModel, gradients: Mapping[str, Array]) -> int:
    """Return how many tokens the longest sentence has: each position in use has a gradient.

    The last token of a GPT-2's sentence has none, since no token follows that it could predict.
    """
    used = np.flatnonzero(gradients[model.position_table].any(axis=1))
    if len(used) == 0 or len(used) == model.positions:
        rows = "every row" if len(used) else "no row"
        raise ValueError(
            f"the length of the sentence cannot be read off: {rows} of the gradient of "
            f"{model.position_table} differs from zero; give it as lengths (--lengths)"
        )
    return int(used[-1]) + 1 + model.causal


def require_lengths(model: LanguageModel, lengths: Sequence[int]) -> None:
    """Check that sentences of these lengths are some that a model takes, and an attack reads.

    Raises:
        ValueError: they are not.
    """
    least = 2 if model.causal else 3
    if not lengths or min(lengths) < least or max(lengths) > model.positions:
        raise ValueError(
            f"a client was given sentences of {list(lengths)} tokens; give at least one, each of "
            f"{least} to {model.positions} tokens, start and end included"
        )
    if model.causal and len(lengths) > 1:
        raise ValueError(
            f"a batch of {len(lengths)} sentences was given, but of a GPT-2 only the gradient of "
            "one sentence is read; give one length"
        )

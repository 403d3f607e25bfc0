"""What is known of a client by its files: what they hold, and what can be read off them."""

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.analytic.subspace import MARGIN
from tinyleak.backend import Array
from tinyleak.client.facts import Fact
from tinyleak.data.files import PathLike
from tinyleak.data.tensors import read_tensors
from tinyleak.data.text import PUBLISHED, UNKNOWN, Special
from tinyleak.interop import as_array
from tinyleak.nn.models.bert import OUTPUT_LAYER
from tinyleak.nn.models.checkpoint import LanguageModel, language_model, read_config


def read_language_model(
    weights: PathLike | Mapping[str, Array], heads: int | None = None, tokens: int | None = None
) -> tuple[LanguageModel, dict[str, Array], Fact]:
    """Return the network of a checkpoint, its weights, and how many heads it has.

    Beside a file of weights a config.json is read too; `heads` are said otherwise, and `tokens` is
    how many the vocabulary has. A ValueError as `language_model`'s, or for a config.json that
    cannot be used, or a vocabulary of another size than the network's; an OSError if a file cannot
    be read.
    """
    arrays, config = named_arrays(weights), {}
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
    fact = Fact(model.heads, "assumed", "64 wide, as published")
    return model, params, Fact(model.heads, "said") if "heads" in config else fact


def named_arrays(source: PathLike | Mapping[str, Array]) -> dict[str, Array]:
    """Return named arrays, of a file, or copied from a caller, who may change them later."""
    if isinstance(source, Mapping):
        return {name: as_array(array, copy=True) for name, array in source.items()}
    return read_tensors(source)


def published_special(model: LanguageModel) -> Special:
    """Return the special tokens of BERT's published vocabulary of a model's size, or ValueError."""
    if model.causal:
        return UNKNOWN
    if model.vocabulary not in PUBLISHED:
        raise ValueError(
            f"the network has {model.vocabulary} tokens, which is not the size of one of BERT's "
            "published vocabularies, so nothing says which of them is [MASK]; give its vocabulary"
        )
    return PUBLISHED[model.vocabulary]


def count_hidden(gradients: Mapping[str, Array], tokens: int, noise: float = 0.0) -> int | None:
    """Return at how many positions a BERT predicts: the rank of its first output layer's gradient.

    None if it cannot be told, since the batch has as many tokens as a vector has numbers. `noise`
    is the variance of what was added to each entry.
    """
    gradient = gradients[f"{OUTPUT_LAYER}.weight"]
    if tokens >= len(gradient):
        return None
    layer = LayerGradient(gradient, None, tokens)
    if noise == 0.0:
        # Rounding is not even: it may stand out from itself, but not by so much.
        noise = MARGIN**2 * layer.variance
    return layer.standing_out(noise) or None


def read_length(model: LanguageModel, gradients: Mapping[str, Array]) -> int:
    """Return how many tokens the longest sentence has: each position in use has a gradient.

    The last token of a GPT-2's sentence has none, since no token follows that it could predict.
    Where no position has a gradient, or each has one, as under noise, ValueError is raised.
    """
    used = np.flatnonzero(gradients[model.position_table].any(axis=1))
    if len(used) == 0 or len(used) == model.positions:
        rows = "every row" if len(used) else "no row"
        raise ValueError(
            f"the length of the sentence cannot be read off: {rows} of the gradient of "
            f"{model.position_table} differs from zero; give it as lengths (--lengths)"
        )
    return int(used[-1]) + 1 + model.causal


def require_lengths(model: LanguageModel, lengths: Sequence[int]) -> tuple[int, ...]:
    """Return lengths of sentences, if a model takes and an attack reads such sentences.

    Otherwise ValueError is raised, or TypeError if they are no whole numbers.
    """
    try:
        lengths = tuple(map(operator.index, lengths))
    except TypeError as error:
        raise TypeError(
            f"lengths {lengths!r} were given; give a list of whole numbers, one for each sentence"
        ) from error
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
    return lengths

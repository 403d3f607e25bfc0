"""What the gradient of a language model gives away without any optimisation.

A word's embedding is looked up, so its row of the table is the only one whose gradient is not zero
(Melis, Song, De Cristofaro and Shmatikov 2019, section 4.1). A position's row tells how long a
sentence is. The bias of an output layer has the gradient p − y, which is negative at words that
were to be guessed. And of a BERT or a GPT-2 a whole sentence is read, by the attack `span`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyleak.audit.shared import FLOAT32_ROUNDING
from tinyleak.audit.text_findings import Table, TextAudit
from tinyleak.backend import Array
from tinyleak.data.text import Tokenizer
from tinyleak.interop import called
from tinyleak.nn.models.checkpoint import language_model
from tinyleak.text import INTERRUPTED, FoundText, TextClient, attack, known_client

TABLE = re.compile(r"embed|\bwte\b|\bwpe\b")
"""How a table of embeddings is named: GPT-2 calls its two wte and wpe."""

NOT_WORDS = re.compile(r"position|wpe|type|segment")
"""How one is named that is of positions or kinds of sentence."""

MOST_NUMBERS = 2**32
"""How many numbers the candidate words' vectors may have for a sentence to be read: a minute's."""


def audit_text(
    params: Mapping[str, Array] | TextClient,
    gradients: Mapping[str, Array] | None = None,
    vocabulary: Tokenizer | Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> TextAudit:
    """Find what a language model's gradient names, whatever the network is beyond its tables.

    Args:
        params: its weights, by name; or a client, and then the other arguments are not needed.
        gradients: a shared gradient, by the same names.
        vocabulary: a tokenizer, or the words in the order of the table's rows.
        settings: the heads, activation and epsilon of a BERT or a GPT-2, as `language_model` takes
            them; as in the published models, if None.

    Raises:
        TypeError: a client that shares no text.
        ValueError: no table of embeddings; a gradient that lacks one or has another shape, or is
            zero everywhere; a vocabulary of another length than the table.
    """
    client = None
    if isinstance(params, TextClient):
        client, gradients, vocabulary = params, params.gradients, params.tokenizer
        params = client.params
    if not isinstance(params, Mapping):
        raise TypeError(
            f"audit_text was given {called(params)}; give a TextClient, or a language "
            "model's weights by name (of images: audit)"
        )
    tokenizer = vocabulary if isinstance(vocabulary, Tokenizer) else None
    words = vocabulary.vocabulary if isinstance(vocabulary, Tokenizer) else vocabulary
    shapes = {name: array.shape for name, array in params.items()}
    # Tables of words come first, and the largest of them is that of the model's vocabulary.
    names = [name for name, shape in shapes.items() if TABLE.search(name.lower())]
    names = [name for name in names if len(shapes[name]) == 2 and shapes[name][0] > 1]
    names.sort(key=lambda name: (NOT_WORDS.search(name.lower()) is not None, -shapes[name][0]))
    if not names:
        raise ValueError(
            "the weights have no table of embeddings: none of two axes whose name holds 'embed', "
            "'wte' or 'wpe'; choose the --model that they are of, or give the table such a name"
        )
    if words is not None and len(words) != shapes[names[0]][0]:
        raise ValueError(
            f"the vocabulary has {len(words)} words, but {names[0]} has "
            f"{shapes[names[0]][0]} rows; give the model's own vocabulary"
        )
    if gradients is not None:
        for name in names:
            if name not in gradients or gradients[name].shape != shapes[name]:
                raise ValueError(
                    f"the gradients hold no {name} of shape {shapes[name]}, as the weights do; "
                    "give the gradient of the same network"
                )
        if not any(array.any() for array in gradients.values()):
            raise ValueError(
                "the gradients are zero everywhere, so nothing can be read from them; check that "
                "the client's backward pass was run before they were saved"
            )
        client = client or _client(params, gradients, tokenizer, settings)
    found, interrupted = None, False
    try:
        found = None if client is None else _read(client)
    except KeyboardInterrupt:
        interrupted = True
    return TextAudit(
        sum(array.size for array in params.values()),
        [Table(name, shapes[name][0], _touched(name, gradients)) for name in names],
        _guessed(shapes[names[0]][0], gradients),
        words,
        found,
        interrupted,
    )


def _client(
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    tokenizer: Tokenizer | None,
    settings: Mapping[str, Any] | None,
) -> TextClient | None:
    """Return the client, if the arrays determine its network and the length of its sentence."""
    try:
        model, weights = language_model(params, **(settings or {}))
        return known_client(model, weights, gradients, tokenizer)
    except ValueError:
        return None


def _read(client: TextClient) -> FoundText | None:
    """Return the sentence that the gradient determines, if it leaves no choice."""
    if client.shape[1] * client.model.vocabulary * client.model.width > MOST_NUMBERS:
        return None
    try:
        found = attack(client, "span")
    except ValueError:  # too many tokens for the width, or a gradient of zeros
        return None
    if found.reason == INTERRUPTED:
        raise KeyboardInterrupt
    return found if found.explained else None


def _touched(name: str, gradients: Mapping[str, Array] | None) -> list[int] | None:
    if gradients is None:
        return None
    return np.flatnonzero(gradients[name].any(axis=1)).tolist()


def _guessed(words: int, gradients: Mapping[str, Array] | None) -> list[int] | None:
    """Return where the output layer's bias has a negative gradient, if that can be relied on.

    Over the words p − y adds up to zero. Where it does not, there is noise, or it is another bias.
    """
    for name, array in (gradients or {}).items():
        if name.endswith("bias") and array.shape == (words,):
            values = np.asarray(array, dtype=float)
            if abs(values.sum()) < FLOAT32_ROUNDING * np.abs(values).sum():
                return np.flatnonzero(values < 0).tolist()
    return None

"""A language model of any size, read off the names and shapes of its checkpoint.

Names are those of Hugging Face's `BertForMaskedLM` and `GPT2LMHeadModel`. What a checkpoint has
besides, for other tasks, as a buffer or twice over, is left out. What shapes do not tell (heads,
activation, epsilon) is in the `config.json` beside it, or is as in the published models.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tinyleak.backend import Array
from tinyleak.nn.models.bert import POSITIONS, SEGMENTS, WORDS, Bert
from tinyleak.nn.models.gpt2 import Gpt2
from tinyleak.nn.models.transformer import ACTIVATIONS

LanguageModel: TypeAlias = Bert | Gpt2
"""The networks for text."""

UNUSED = re.compile(
    r"bert\.pooler\.|cls\.seq_relationship\.|.*embeddings\.position_ids$|.*\.attn\.(masked_)?bias$"
)
"""Parameters that predicting words does not use, and buffers."""

HEADS = {
    "cls.predictions.decoder.weight": WORDS,
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "lm_head.weight": Gpt2.word_table,
}
"""Names under which a tied output layer is saved a second time, and the first."""

OLD_NAMES = {r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"}
"""What early BERT checkpoints call a normalisation's weight and bias."""

BARE_GPT2 = re.compile(r"(wte|wpe|ln_f|h\.\d{1,3})\.")
"""How names begin in a GPT-2 that was saved without its output layer, as the published ones."""

LAYER = re.compile(r"(?:bert\.encoder\.layer|transformer\.h)\.(\d{1,3})\.")
BERT_HIDDEN = "bert.encoder.layer.0.intermediate.dense.weight"
GPT2_HIDDEN = "transformer.h.0.mlp.c_fc.weight"

HEAD_WIDTH = 64  # how wide a head is in all published BERTs and GPT-2s; shapes do not tell
MAX_CONFIG = 2**20  # the longest config.json that is read, in bytes

CONFIG = {
    **{"num_attention_heads": ("heads", int), "n_head": ("heads", int)},
    **{"hidden_act": ("activation", str), "activation_function": ("activation", str)},
    **{"layer_norm_eps": ("epsilon", float), "layer_norm_epsilon": ("epsilon", float)},
}
"""What is read of a config.json: BERT's name and GPT-2's, what it is called here, and its type."""


def language_model(
    tensors: Mapping[str, Array],
    heads: int | None = None,
    activation: str | None = None,
    epsilon: float | None = None,
) -> tuple[LanguageModel, dict[str, Array]]:
    """Return the network whose weights these are, and the weights by its names, as they are.

    Args:
        tensors: by name, as `BertForMaskedLM` or `GPT2LMHeadModel` saves them.
        heads: attention heads in each layer; as many as are 64 wide, if None.
        activation: one of `transformer.ACTIVATIONS`; the published models', if None.
        epsilon: what layer normalisation adds to the variance; the published models', if None.

    Raises:
        ValueError: they are of another network, or some are missing, or have other shapes than
            the rest asks for, or the output layer is not the embedding table.
    """
    named = tied(tensors)
    of_gpt2 = Gpt2.word_table in named
    kind = "GPT2LMHeadModel" if of_gpt2 else "BertForMaskedLM"
    tables = (
        (Gpt2.word_table, Gpt2.position_table, GPT2_HIDDEN)
        if of_gpt2
        else (WORDS, POSITIONS, SEGMENTS, BERT_HIDDEN)
    )
    absent = [name for name in tables if name not in named or named[name].ndim != 2]
    if absent:
        raise ValueError(
            f"the checkpoint's {len(tensors)} tensors have no table {absent[0]!r}; give one that "
            "Hugging Face's BertForMaskedLM or GPT2LMHeadModel saved"
        )
    vocabulary, width = named[tables[0]].shape
    sizes: dict[str, Any] = {
        "vocabulary": vocabulary,
        "layers": 1 + max(int(found[1]) for name in named if (found := LAYER.match(name))),
        "width": width,
        "heads": max(1, width // HEAD_WIDTH) if heads is None else heads,
        "positions": len(named[tables[1]]),
    }
    sizes |= {} if activation is None else {"activation": activation}
    sizes |= {} if epsilon is None else {"epsilon": epsilon}
    model: LanguageModel
    if of_gpt2:
        model = Gpt2(intermediate=named[GPT2_HIDDEN].shape[1], **sizes)
    else:
        segments = len(named[SEGMENTS])
        model = Bert(intermediate=len(named[BERT_HIDDEN]), segments=segments, **sizes)
    for name, shape in model.shapes.items():
        if name not in named or named[name].shape != shape:
            given = f"shape {named[name].shape}" if name in named else "missing"
            raise ValueError(
                f"the checkpoint does not fit {model}: {name} is {given}, and should be {shape}; "
                f"give one that Hugging Face's {kind} saved"
            )
    extra = sorted(set(named) - set(model.shapes))
    if extra:
        raise ValueError(
            f"the checkpoint has {extra[0]!r}, which {model} does not; give one that Hugging "
            f"Face's {kind} saved"
        )
    return model, {name: named[name] for name in model.shapes}


def tied(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return weights or gradients under the names that the models here have, each once.

    An output layer that is not the embedding table is a ValueError.
    """
    named = {_modern(name): array for name, array in tensors.items() if not UNUSED.match(name)}
    for name, first in HEADS.items():
        again = named.pop(name, None)
        if again is not None and not np.array_equal(again, named.setdefault(first, again)):
            raise ValueError(
                f"{name} differs from {first}, but the output layer is taken to be the embedding "
                "table; give a network that ties the two, as BERT and GPT-2 do by default"
            )
    return named


def _modern(name: str) -> str:
    for old, new in OLD_NAMES.items():
        name = re.sub(old, new, name)
    return f"transformer.{name}" if BARE_GPT2.match(name) else name


def read_config(path: Path) -> dict[str, Any]:
    """Return the settings in a config.json that shapes do not tell: heads, activation, epsilon.

    The result is empty if the file is not there. A ValueError if it is not a JSON object, or holds
    a value that cannot be; an OSError if it cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_CONFIG))  # a longer one breaks off
        if not isinstance(content, dict):
            raise TypeError("not an object")
        said = {
            ours: kind(content[theirs])
            for theirs, (ours, kind) in CONFIG.items()
            if theirs in content
        }
        if not 0 < said.get("epsilon", 1e-12) < 1:
            raise ValueError("the epsilon of layer normalisation is not a small positive number")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is not the config.json of a BERT or a GPT-2 ({type(error).__name__}); "
            "put it right or take it away"
        ) from error
    if said.get("activation", "gelu") not in ACTIVATIONS:
        raise ValueError(
            f"{str(path)!r} says that the activation is {said['activation'][:40]!r}; "
            f"{', '.join(ACTIVATIONS)} are known"
        )
    return said

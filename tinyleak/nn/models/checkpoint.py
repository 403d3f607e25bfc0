"""A BERT of any size, read off the names and shapes of its checkpoint.

Names are those of Hugging Face's `BertForMaskedLM`. What a checkpoint has besides, for other tasks
or twice over, is left out; early ones call a normalisation's weight and bias gamma and beta.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from tinyleak.backend import Array
from tinyleak.nn.models.bert import POSITIONS, SEGMENTS, WORDS, Bert

ELSEWHERE = ("bert.pooler.", "cls.seq_relationship.", "cls.predictions.decoder.")
"""Parameters that guessing words does not use, or, the last, the embedding table once more."""

LAYER = re.compile(r"bert\.encoder\.layer\.(\d{1,3})\.")
HIDDEN = "bert.encoder.layer.0.intermediate.dense.weight"

HEAD_WIDTH = 64
"""How wide a head is in all BERTs that Google published; the shapes do not say."""


def bert_from_checkpoint(
    tensors: Mapping[str, Array],
    heads: int | None = None,
    activation: str = "gelu",
    epsilon: float = 1e-12,
) -> tuple[Bert, dict[str, Array]]:
    """Return the network whose weights these are, and the weights, in float64, by its names.

    Args:
        tensors: by name, as `BertForMaskedLM` saves them.
        heads: attention heads in each layer; as many as are 64 wide, if None.
        activation: one of `tinyleak.nn.models.bert.ACTIVATIONS`.
        epsilon: what layer normalisation adds to the variance.

    Raises:
        ValueError: they are no BERT's for masked-language modelling, or some are missing, or have
            other shapes than the rest asks for.
    """
    named = {_modern(name): a for name, a in tensors.items() if not name.startswith(ELSEWHERE)}
    tables = (WORDS, POSITIONS, SEGMENTS, HIDDEN)
    absent = [name for name in tables if name not in named or named[name].ndim != 2]
    if absent:
        raise ValueError(
            f"the checkpoint's {len(tensors)} tensors have no table {absent[0]!r}; give one that "
            "Hugging Face's BertForMaskedLM saved"
        )
    vocabulary, width = named[WORDS].shape
    model = Bert(
        vocabulary,
        layers=1 + max(int(found[1]) for name in named if (found := LAYER.match(name))),
        width=width,
        heads=max(1, width // HEAD_WIDTH) if heads is None else heads,
        intermediate=len(named[HIDDEN]),
        positions=len(named[POSITIONS]),
        segments=len(named[SEGMENTS]),
        activation=activation,
        epsilon=epsilon,
    )
    for name, shape in model.shapes.items():
        if name not in named or named[name].shape != shape:
            given = f"shape {named[name].shape}" if name in named else "missing"
            raise ValueError(
                f"the checkpoint does not fit {model}: {name} is {given}, and should be {shape}; "
                "give one that Hugging Face's BertForMaskedLM saved"
            )
    extra = sorted(set(named) - set(model.shapes))
    if extra:
        raise ValueError(
            f"the checkpoint has {extra[0]!r}, which {model} does not; give one that Hugging "
            "Face's BertForMaskedLM saved"
        )
    return model, {name: np.asarray(named[name], dtype=float) for name in model.shapes}


def _modern(name: str) -> str:
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)

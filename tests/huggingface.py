"""Hugging Face's BERT, to compare with."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here is downloaded, and nothing is asked for

from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

from tinyleak.nn.models.bert import Bert

TIED = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}


def theirs(model: Bert, params: dict[str, np.ndarray]) -> Any:
    """Hugging Face's model with the same weights."""
    config = BertConfig(
        vocab_size=model.vocabulary,
        hidden_size=model.width,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        intermediate_size=model.intermediate,
        max_position_embeddings=model.positions,
        type_vocab_size=model.segments,
        hidden_act=model.activation,
        layer_norm_eps=model.epsilon,
    )
    config._attn_implementation = "eager"
    made = BertForMaskedLM(config).double().eval()
    state = {name: torch.tensor(array) for name, array in params.items()}
    missing, unexpected = made.load_state_dict(state, strict=False)
    assert set(missing) == TIED
    assert unexpected == []
    return made

"""Hugging Face's BERT and GPT-2, to compare with, and files as a client of theirs writes them."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here is downloaded, and nothing is asked for

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers  # whose models are imported when they are asked for
from safetensors.torch import save_file

from tinyleak.nn.models.bert import Bert

TIED = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}


def theirs(model: Bert, params: dict[str, np.ndarray]) -> Any:
    """Hugging Face's model with the same weights."""
    config = transformers.BertConfig(
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
    made = transformers.BertForMaskedLM(config).double().eval()
    state = {name: torch.tensor(array) for name, array in params.items()}
    missing, unexpected = made.load_state_dict(state, strict=False)
    assert set(missing) == TIED
    assert unexpected == []
    return made


def bert_files(
    directory: Path,
    sentence: list[int],
    hidden: list[int],
    read: list[int] | None = None,
    *,
    mask: int = 4,
    **config: Any,
) -> None:
    """Write weights.safetensors, gradients.safetensors and config.json of a client, in float32.

    Args:
        directory: where.
        sentence: its tokens.
        hidden: the positions that are to be predicted.
        read: what the network reads, if that is not `mask` at these positions.
        mask: the token that hides.
        config: of the network, as `BertConfig` has it.
    """
    model = transformers.BertForMaskedLM(transformers.BertConfig(**config))
    inputs, labels = torch.tensor([sentence]), torch.full((1, len(sentence)), -100)
    labels[0, hidden] = inputs[0, hidden]
    inputs[0, hidden] = mask
    _write(directory, model, inputs if read is None else torch.tensor([read]), labels)


def gpt2_files(directory: Path, *sentences: list[int], **config: Any) -> None:
    """Write the same of a client with a GPT-2."""
    inputs = torch.tensor(sentences)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config, **ends))
    _write(directory, model, inputs, inputs)


def _write(directory: Path, model: Any, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    model.eval()
    model(input_ids=inputs, labels=labels).loss.backward()
    # A state_dict has the tied output layer once more; named_parameters has it once.
    weights = {name: array.clone() for name, array in model.state_dict().items()}
    save_file(weights, directory / "weights.safetensors")
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    save_file(gradients, directory / "gradients.safetensors")
    model.config.save_pretrained(directory)

"""The language model of `tinyleak text`: one of a size that was asked for, or a checkpoint's."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.cli.options import whole_number
from tinyleak.data.files import read_bounded
from tinyleak.data.tensors import read_tensors
from tinyleak.data.text import Tokenizer
from tinyleak.nn.models.bert import ACTIVATIONS, Bert
from tinyleak.nn.models.checkpoint import bert_from_checkpoint
from tinyleak.text import train

LAYERS, WIDTH, HEADS = 2, 64, 4

MAX_CONFIG = 2**20
"""The longest config.json that is read, in bytes."""


@dataclass(frozen=True)
class Network:
    """A language model, its weights by name, and a few words on where they come from."""

    model: Bert
    params: dict[str, Array]
    origin: str


def add_language_model_options(parser: argparse.ArgumentParser) -> None:
    """Which network the client trains."""
    group = parser.add_argument_group("the client's network, a BERT")
    sizes = {"layers": LAYERS, "width": WIDTH, "heads": HEADS}
    for name, usual in sizes.items():
        group.add_argument(
            f"--{name}", metavar="K", type=whole_number(1), help=f"(default: {usual})"
        )
    group.add_argument(
        "--vocabulary",
        metavar="FILE",
        type=Path,
        help="its tokens, one a line, as BERT's vocab.txt (default: a built-in one of 500)",
    )
    group.add_argument(
        "--weights",
        metavar="CHECKPOINT",
        type=Path,
        help=".safetensors or .npz, as Hugging Face's BertForMaskedLM saves it; a config.json "
        "beside it is read too (default: drawn at random)",
    )
    group.add_argument(
        "--train",
        metavar="STEPS",
        type=whole_number(0),
        default=0,
        help="train that long on the built-in text before the gradient is shared (default: 0)",
    )
    group.add_argument(
        "--dtype",
        choices=("float64", "float32"),
        default="float64",
        help="of the client (default: %(default)s)",
    )


def build_network(args: argparse.Namespace, tokenizer: Tokenizer) -> Network:
    """Return the network that was asked for.

    Raises:
        ValueError: sizes that do not go together; a checkpoint that is none, or is made for
            another vocabulary.
        OSError: the checkpoint is not there.
    """
    if args.weights is None:
        model = Bert(
            len(tokenizer),
            layers=args.layers or LAYERS,
            width=args.width or WIDTH,
            heads=args.heads or HEADS,
            intermediate=4 * (args.width or WIDTH),
        )
        network = Network(model, model.init(np.random.default_rng([args.seed, 0])), "at random")
    else:
        network = _from_checkpoint(args, tokenizer)
    if not args.train:
        return network
    sentences = [tokenizer.encode(sentence) for sentence in tokenizer.sentences]
    trained = train(
        network.model,
        network.params,
        sentences,
        tokenizer.special,
        steps=args.train,
        seed=args.seed,
    )
    return Network(network.model, trained.params, f"{network.origin}, trained {args.train} steps")


def _from_checkpoint(args: argparse.Namespace, tokenizer: Tokenizer) -> Network:
    if args.layers is not None or args.width is not None:
        raise ValueError(
            "--layers and --width make a network, but --weights was given, which has its own; "
            "leave one of the two out"
        )
    tensors = read_tensors(args.weights)
    said = _config(args.weights.with_name("config.json"))
    try:
        model, params = bert_from_checkpoint(
            tensors,
            heads=args.heads or said.get("num_attention_heads"),
            activation=said.get("hidden_act", "gelu"),
            epsilon=said.get("layer_norm_eps", Bert.epsilon),
        )
    except ValueError as error:
        raise ValueError(f"{str(args.weights)!r} cannot be used: {error}") from error
    if model.vocabulary != len(tokenizer):
        raise ValueError(
            f"{str(args.weights)!r} is made for {model.vocabulary} tokens, and the vocabulary has "
            f"{len(tokenizer)}; give the one it was trained with as --vocabulary"
        )
    return Network(model, params, str(args.weights))


def _config(path: Path) -> dict[str, Any]:
    """Return what a config.json says of what shapes do not tell, or nothing if it is not there.

    Raises:
        ValueError: it is no JSON object, or says what cannot be.
    """
    if not path.is_file():
        return {}
    kinds = {"num_attention_heads": int, "hidden_act": str, "layer_norm_eps": float}
    try:
        with path.open("rb") as file:
            content = json.loads(read_bounded(file, MAX_CONFIG))
        if not isinstance(content, dict):
            raise TypeError("no object")
        said = {name: kind(content[name]) for name, kind in kinds.items() if name in content}
        if not 0 < said.get("layer_norm_eps", Bert.epsilon) < 1:
            raise ValueError("layer_norm_eps is no small positive number")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is no config.json of a BERT ({type(error).__name__}); put it right or "
            "take it away"
        ) from error
    if said.get("hidden_act", "gelu") not in ACTIVATIONS:
        raise ValueError(
            f"{str(path)!r} says hidden_act {said['hidden_act'][:40]!r}; "
            f"{', '.join(ACTIVATIONS)} are known"
        )
    return said

"""The client of `tinyleak text`: one known by its files, or a simulated one."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tinyleak.backend import Array
from tinyleak.cli.options import flag, whole_number
from tinyleak.data.text import Tokenizer, load_tokenizer
from tinyleak.defenses import parse
from tinyleak.nn.models.bert import Bert
from tinyleak.text import TextClient, TextTruth, read_language_model, simulate_text, train

LAYERS, WIDTH, HEADS = 2, 64, 4

OF_SIMULATED = ("sentence", "index", "batch", "layers", "width", "train", "dtype", "defense")
"""Options that describe a simulated client."""


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
        help="its tokens, one a line, as BERT's vocab.txt, or GPT-2's vocab.json (default: a "
        "built-in one of 500)",
    )
    group.add_argument(
        "--weights",
        metavar="CHECKPOINT",
        type=Path,
        help=".safetensors or .npz, as Hugging Face's BertForMaskedLM saves it, or with "
        "--gradients GPT2LMHeadModel; a config.json beside it is read too (default: drawn at "
        "random)",
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
        help="of the client (default: float64; of files, as they are)",
    )


def read_client(args: argparse.Namespace) -> tuple[TextClient, str]:
    """Return the client whose files were given, and where its weights come from.

    Raises:
        ValueError: options of a simulated client, no weights, or as `TextClient.from_files`.
        OSError: a file cannot be read.
    """
    given = [name for name in OF_SIMULATED if getattr(args, name)]
    if given:
        options = " and ".join("a sentence" if n == "sentence" else flag(n) for n in given)
        raise ValueError(
            f"--gradients is of a client that is known by its files, but {options} was given, "
            "which simulates one; leave one of the two out"
        )
    if args.weights is None:
        raise ValueError("--gradients are of a network; give its --weights too")
    client = TextClient.from_files(
        args.weights,
        args.gradients,
        load_tokenizer(args.vocabulary),
        lengths=args.lengths,
        heads=args.heads,
    )
    return client, str(args.weights)


def simulate_client(args: argparse.Namespace) -> tuple[TextClient, TextTruth, str]:
    """Return the client that was asked for, the truth, and where its weights come from.

    Raises:
        ValueError: sentences or sizes that do not go together, or a checkpoint that cannot be used.
        OSError: a file cannot be read.
    """
    if args.lengths is not None:
        raise ValueError("--lengths is of a client's files; give its --gradients, or leave it out")
    defenses = [parse(written) for written in args.defense]
    tokenizer = load_tokenizer(args.vocabulary)
    sentences = _sentences(args, tokenizer)
    model, params, origin = _network(args, tokenizer)
    if args.train:
        encoded = [tokenizer.encode(sentence) for sentence in tokenizer.sentences]
        trained = train(model, params, encoded, tokenizer.special, steps=args.train, seed=args.seed)
        params = trained.params
        origin += f", trained {args.train} steps"
    client, truth = simulate_text(
        sentences,
        model,
        params=params,
        tokenizer=tokenizer,
        seed=args.seed,
        dtype=args.dtype or "float64",
        defenses=defenses,
    )
    return client, truth, origin


def _sentences(args: argparse.Namespace, tokenizer: Tokenizer) -> list[str]:
    """Return the sentences that were asked for.

    Raises:
        ValueError: sentences given beside built-in ones, or more built-in ones than there are.
    """
    if args.sentence:
        if args.index is not None or args.batch is not None:
            raise ValueError(
                "--index and --batch choose built-in sentences, but a sentence was given; leave "
                "one of the two out"
            )
        return list(args.sentence)
    first, built_in = args.index or 0, tokenizer.sentences
    last = first + (args.batch or 1) - 1
    if last >= len(built_in):
        raise ValueError(
            f"sentence {last} was asked for, but {len(built_in)} of the built-in ones can be "
            f"written in this vocabulary, 0 to {len(built_in) - 1}; lower --index or --batch"
        )
    return built_in[first : last + 1]


def _network(args: argparse.Namespace, tokenizer: Tokenizer) -> tuple[Bert, dict[str, Array], str]:
    """Return a network of the size that was asked for, or a checkpoint's, in float64."""
    if args.weights is None:
        width = args.width or WIDTH
        model = Bert(
            len(tokenizer),
            args.layers or LAYERS,
            width,
            args.heads or HEADS,
            intermediate=4 * width,
        )
        return model, model.init(np.random.default_rng([args.seed, 0])), "at random"
    if args.layers is not None or args.width is not None:
        raise ValueError(
            "--layers and --width make a network, but --weights was given, which has its own; "
            "leave one of the two out"
        )
    found, weights, _ = read_language_model(args.weights, args.heads, len(tokenizer))
    if not isinstance(found, Bert):
        raise ValueError(
            f"{str(args.weights)!r} is a GPT-2's, and only clients with a BERT are simulated; give "
            "the client's own --gradients"
        )
    return found, {name: array.astype(float) for name, array in weights.items()}, str(args.weights)

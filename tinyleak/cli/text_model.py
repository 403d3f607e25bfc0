"""The client of `tinyleak text`: one known by its files, or a simulated one."""

import argparse

import numpy as np

from tinyleak.backend import Array
from tinyleak.cli import options
from tinyleak.data.text import Tokenizer, load_tokenizer
from tinyleak.defenses import parse
from tinyleak.nn.models.bert import Bert
from tinyleak.text import TextClient, TextTruth, read_language_model, simulate_text, train

SIZES = {"layers": Bert.layers, "width": Bert.width, "heads": Bert.heads}

OF_SIMULATED = ("index", "batch", "layers", "width", "train", "dtype", "defense")
"""Options that describe a simulated client."""


def read_client(args: argparse.Namespace) -> tuple[TextClient, str]:
    """Return the client whose files were given, and where its weights come from."""
    why = (
        "--gradients is of a client that is known by its files, but {} was given, which simulates "
        "one; leave one of the two out"
    )
    if args.sentence:
        raise ValueError(why.format("a sentence"))
    options.refuse(args, (name for name in OF_SIMULATED if getattr(args, name)), why)
    if args.weights is None:
        raise ValueError("--gradients are of a network; give its --weights too")
    files = options.given(TextClient.from_files, args)
    files["vocabulary"] = load_tokenizer(args.vocabulary)
    return TextClient.from_files(**files), str(args.weights)


def simulate_client(args: argparse.Namespace) -> tuple[TextClient, TextTruth, str]:
    """Return the client that was asked for, the truth, and where its weights come from."""
    options.refuse(
        args, ["lengths"], "{} is of a client's files; give its --gradients, or leave it out"
    )
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
    """Return the sentences that were asked for."""
    if args.sentence:
        if args.index is not None or args.batch is not None:
            raise ValueError(
                "--index and --batch choose built-in sentences, but a sentence was given; leave "
                "one of the two out"
            )
        return list(args.sentence)
    first, built_in = args.index or 0, tokenizer.sentences
    last = first + (args.batch or 1) - 1
    if not built_in:
        raise ValueError(
            "no built-in sentence can be written in this vocabulary; give one: "
            'tinyleak text "…" --vocabulary …'
        )
    if last >= len(built_in):
        raise ValueError(
            f"sentence {last} was asked for, but {len(built_in)} of the built-in ones can be "
            f"written in this vocabulary, 0 to {len(built_in) - 1}; lower --index or --batch"
        )
    return built_in[first : last + 1]


def _network(args: argparse.Namespace, tokenizer: Tokenizer) -> tuple[Bert, dict[str, Array], str]:
    """Return a network of the size that was asked for, or a checkpoint's, in float64."""
    if args.weights is None:
        layers, width, heads = (getattr(args, name) or usual for name, usual in SIZES.items())
        model = Bert(len(tokenizer), layers, width, heads, intermediate=4 * width)
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

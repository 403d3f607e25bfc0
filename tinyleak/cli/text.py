"""`tinyleak text`: a client with known sentences shares its gradient, and they are recovered.

The client is simulated, so that what is found can be judged by the truth.
"""

from __future__ import annotations

import argparse

import numpy as np

from tinyleak import text
from tinyleak.cli.options import add_defense_option, whole_number
from tinyleak.cli.output import add_output_options, end, output_directory
from tinyleak.cli.text_model import add_language_model_options, build_network
from tinyleak.cli.text_result import FILES, TextReport, reading_bar
from tinyleak.data.text import Tokenizer, load_tokenizer
from tinyleak.defenses import parse

NAME = "text"
SUMMARY = "recover a client's sentences from the gradient that a language model makes of them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("the client's sentences")
    group.add_argument(
        "sentence",
        metavar="SENTENCE",
        nargs="*",
        help="in quotation marks; several are a batch (default: a built-in one)",
    )
    group.add_argument(
        "--index",
        metavar="I",
        type=whole_number(0),
        help="the first of the built-in sentences (default: 0)",
    )
    group.add_argument(
        "--batch",
        metavar="N",
        type=whole_number(1),
        help="how many built-in sentences, I to I+N-1 (default: 1)",
    )
    add_language_model_options(parser)
    add_defense_option(parser.add_argument_group("what the client does about it"))
    group = parser.add_argument_group("the attack")
    group.add_argument(
        "--attack",
        choices=text.METHODS,
        default=text.DEFAULT,
        help="rows: read the words off the embedding table's gradient; match: move dummy words "
        "until their gradient matches, that table's hidden; span: try which words lie in the row "
        "space of the first layer's gradient; span+match: match within it (default: %(default)s)",
    )
    group.add_argument(
        "--iterations",
        metavar="K",
        type=whole_number(1),
        help="of an attack that optimises, at most (default: its own)",
    )
    group.add_argument(
        "--seed",
        metavar="S",
        type=whole_number(0),
        default=0,
        help="decides the weights, the hidden words, the noise and the start (default: 0)",
    )
    add_output_options(parser, ", ".join(FILES))


def run(args: argparse.Namespace) -> int:
    """Attack, judge, write, summarise: 0 if every word was recovered in its place, else 1.

    Raises:
        ValueError: a request that cannot be met.
        OSError: files that cannot be read or written.
    """
    with output_directory(args.out, force=args.force) as directory:
        defenses = [parse(written) for written in args.defense]
        tokenizer = load_tokenizer(args.vocabulary)
        written = _sentences(args, tokenizer)
        network = build_network(args, tokenizer)
        client = text.share_text(
            network.model,
            network.params,
            [tokenizer.encode(sentence, network.model.positions) for sentence in written],
            tokenizer.special,
            rng=np.random.default_rng([args.seed, 1]),
            dtype=args.dtype,
            defenses=defenses,
            noise=np.random.default_rng([args.seed, 2]),
        )
        options = {} if args.iterations is None else {"iterations": args.iterations}
        with reading_bar(tokenizer, quiet=args.quiet) as on_reading:
            result = text.attack(
                client, args.attack, seed=args.seed, on_reading=on_reading, **options
            )
        report = TextReport(args, network, tokenizer, client, result)
        if directory is not None:
            report.write(directory)
    return end(
        args,
        report.summary,
        succeeded=result.succeeded,
        interrupted=result.reason == text.INTERRUPTED,
    )


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

"""`tinyleak text`: sentences are recovered from the gradient of a language model.

The client is simulated, so that what is found can be judged by the truth; or, with --gradients, it
is known by its files, and success is that the sentences explain the gradient.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tinyleak import text
from tinyleak.cli.interrupts import undisturbed
from tinyleak.cli.options import add_defense_option, whole_number
from tinyleak.cli.output import add_output_options, end, output_directory
from tinyleak.cli.text_model import add_language_model_options, read_client, simulate_client
from tinyleak.cli.text_result import FILES, TextReport, snapshot_bar

NAME = "text"
SUMMARY = "recover a client's sentences from the gradient that a language model makes of them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("the client's sentences")
    group.add_argument(
        "sentence",
        metavar="SENTENCE",
        type=_sentence,
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
    group.add_argument(
        "--gradients",
        metavar="G",
        type=Path,
        help="instead of sentences: the gradient that a client shared, .safetensors or .npz by "
        "parameter name; with --weights and --vocabulary",
    )
    group.add_argument(
        "--lengths",
        metavar="T,...",
        type=_lengths,
        help="with --gradients: how many tokens each sentence has, its start and end included "
        "(default: one sentence, its length read off the gradient)",
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
    """Attack, judge, write, summarise.

    Returns:
        0 if every word was recovered in its position, or, where no truth is known, if the
        sentences explain the gradient; else 1.

    Raises:
        ValueError: a request that cannot be met.
        OSError: files that cannot be read or written.
    """
    with output_directory(args, FILES) as directory:
        options = {} if args.iterations is None else {"iterations": args.iterations}
        if options and "iterations" not in text.keywords_of(args.attack):
            raise ValueError(
                f"--iterations is of an attack that optimises, and {args.attack} does not; leave "
                "it out"
            )
        truth = None
        if args.gradients is not None:
            client, origin = read_client(args)
        else:
            client, truth, origin = simulate_client(args)
        with snapshot_bar(client, quiet=args.quiet) as on_progress:
            found = text.attack(
                client, args.attack, seed=args.seed, on_progress=on_progress, **options
            )
        with undisturbed():
            outcome = text.explain(found) if truth is None else truth.judge(found)
            report = TextReport(args, outcome, origin)
            if directory is not None:
                report.write(directory)
    return end(
        args,
        report.summary,
        succeeded=outcome.succeeded,
        interrupted=found.reason == text.INTERRUPTED,
    )


def _sentence(written: str) -> str:
    """Read a sentence as UTF-8, whatever encoding the terminal claims to have."""
    try:
        return written.encode(errors="surrogateescape").decode()
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(
            f"{written!r} is not text in UTF-8; write the sentence in that encoding"
        ) from None


def _lengths(written: str) -> list[int]:
    """Parse the lengths of sentences."""
    try:
        return [int(part) for part in written.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{written!r} is not a list of lengths such as 22,16"
        ) from None

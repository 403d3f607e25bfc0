"""`tinyleak text`: sentences are recovered from the gradient of a language model.

The client is simulated, so that what is found can be judged by the truth; or, with --gradients, it
is known by its files, and success is that the sentences explain the gradient.
"""

import argparse

from tinyleak import text
from tinyleak.cli import options
from tinyleak.cli.interrupts import undisturbed
from tinyleak.cli.output import add_output_options, end, output_directory
from tinyleak.cli.text_model import SIZES, read_client, simulate_client
from tinyleak.cli.text_result import FILES, TextReport, snapshot_bar
from tinyleak.data import Dataset
from tinyleak.nn.models.bert import Bert

NAME = "text"
SUMMARY = "recover a client's sentences from the gradient that a language model makes of them"

SENTENCE = "in quotation marks; several are a batch (default: a built-in one)"
BUILT_IN = {
    "index": "the first of the built-in sentences (default: 0)",
    "batch": "how many built-in sentences, from there on (default: 1)",
}
SHARED = {
    "gradients": "instead of sentences: the gradient that a client shared, .safetensors or .npz by "
    "parameter name; with --weights and --vocabulary",
    "lengths": "with --gradients: how many tokens each sentence has, its start and end included "
    "(default: one sentence, its length read off the gradient)",
}
NETWORK = {
    "vocabulary": "its tokens, one a line, as BERT's vocab.txt, or GPT-2's vocab.json (default: a "
    "built-in one of 500)",
    "weights": ".safetensors or .npz, as Hugging Face's BertForMaskedLM saves it, or with "
    "--gradients GPT2LMHeadModel; a config.json beside it is read too (default: drawn at random)",
}
TRAIN = "train so many steps on the built-in text before the gradient is shared (default: 0)"
DTYPE = {"dtype": "of the client (default: float64; of files, as they are)"}
ATTACK = (
    "rows: read the words off the embedding table's gradient; match: move dummy words until their "
    "gradient matches, that table's hidden; span: try which words lie in the row space of the "
    "first layer's gradient; span+match: match within it (default: %(default)s)"
)
ITERATIONS = "of an attack that optimises, at most (default: its own)"
SEED = "decides the weights, the hidden words, the noise and the start (default: 0)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("the client's sentences")
    group.add_argument("sentence", metavar="SENTENCE", type=_sentence, nargs="*", help=SENTENCE)
    options.add_options(group, Dataset.consecutive, BUILT_IN)
    options.add_options(group, text.TextClient.from_files, SHARED)
    group = parser.add_argument_group("the client's network, a BERT")
    options.add_options(group, Bert, {name: f"(default: {usual})" for name, usual in SIZES.items()})
    options.add_options(group, text.TextClient.from_files, NETWORK)
    group.add_argument("--train", metavar="N", type=options.whole_number(0), default=0, help=TRAIN)
    options.add_options(group, text.simulate_text, DTYPE)
    options.add_defense_option(parser.add_argument_group("what the client does about it"))
    add = parser.add_argument_group("the attack").add_argument
    add("--attack", choices=text.METHODS, default=text.DEFAULT, help=ATTACK)
    add("--iterations", metavar="N", type=options.whole_number(1), help=ITERATIONS)
    add("--seed", metavar="N", type=options.whole_number(0), default=0, help=SEED)
    add_output_options(parser, ", ".join(FILES))


def run(args: argparse.Namespace) -> int:
    """Attack, judge, write, summarise: 0 if it succeeded, else 1.

    Success is that every word was recovered in its position, or, where no truth is known, that the
    sentences explain the gradient.
    """
    with output_directory(args, FILES) as directory:
        asked = {} if args.iterations is None else {"iterations": args.iterations}
        if asked and "iterations" not in text.keywords_of(args.attack):
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
                client, args.attack, seed=args.seed, on_progress=on_progress, **asked
            )
        with undisturbed():
            outcome = text.explain(found) if truth is None else truth.judge(found)
            report = TextReport(args, outcome, origin)
            if directory is not None:
                report.write(directory)
    interrupted = found.reason == text.INTERRUPTED
    return end(args, report.summary, succeeded=outcome.succeeded, interrupted=interrupted)


def _sentence(written: str) -> str:
    """Read a sentence as UTF-8, whatever encoding the terminal claims to have."""
    try:
        return written.encode(errors="surrogateescape").decode()
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(
            f"{written!r} is not text in UTF-8; write the sentence in that encoding"
        ) from None

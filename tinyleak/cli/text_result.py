"""What `tinyleak text` shows and leaves behind: a bar, the files of --out, and a summary."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.cli.output import paragraphs, readable, versions, written
from tinyleak.cli.progress import bar_on_terminal
from tinyleak.cli.text_model import Network
from tinyleak.data.text import Tokenizer
from tinyleak.metrics import token_accuracy
from tinyleak.report import Stage, save, sentence_figure, write_json, write_sentence_table
from tinyleak.text import Reading, TextClient, TextResult
from tinyleak.text.result import OnReading

FILES = ("result.json", "sentences.txt", "sentences.png")

MOST_SHOWN = 4
"""How many sentences of a batch are drawn, and shown on the screen."""


@dataclass(frozen=True)
class TextReport:
    """An attack on text that has ended.

    Attributes:
        args: what was asked for.
        network: the client's.
        tokenizer: which words its tokens are.
        client: the client.
        result: what was found, beside the truth.
    """

    args: argparse.Namespace
    network: Network
    tokenizer: Tokenizer
    client: TextClient
    result: TextResult

    def as_dict(self) -> dict[str, Any]:
        """Return what result.json says: the outcome, and all that it takes to get it again."""
        args, result = self.args, self.result
        return {
            "succeeded": result.succeeded,
            "reason": result.reason,
            "token_accuracy": result.token_accuracy,
            "bag_accuracy": result.bag_accuracy,
            "tokens_true": self._words(result.tokens_true),
            "tokens_recovered": self._words(result.tokens_recovered),
            "sentences_true": self._sentences(result.tokens_true),
            "sentences_recovered": self._sentences(result.tokens_recovered),
            "iterations": result.iterations,
            "evaluations": result.evaluations,
            "seconds": result.seconds,
            "history": [
                {
                    "iteration": reading.iteration,
                    "distance": reading.distance,
                    "token_accuracy": self._accuracy(reading),
                    "sentences": self._sentences(reading.tokens),
                }
                for reading in result.history
            ],
            "settings": {
                "attack": args.attack,
                "sentence": args.sentence,
                "index": args.index,
                "batch": args.batch,
                "model": asdict(self.network.model),
                "vocabulary": readable(args.vocabulary),
                "weights": readable(args.weights),
                "train": args.train,
                "dtype": args.dtype,
                "defenses": args.defense,
                "iterations": args.iterations,
                "seed": args.seed,
            },
            "versions": versions("cpu"),
        }

    def write(self, directory: Path) -> None:
        """Write all `FILES` into the directory.

        Raises:
            OSError: a file cannot be written.
        """
        write_json(directory / "result.json", self.as_dict())
        truth = self._words(self.result.tokens_true)
        # Of two readings after the same iteration, the later one is the better.
        readings = {reading.iteration: reading.tokens for reading in self.result.history}
        stages = [Stage(iteration, self._words(tokens)) for iteration, tokens in readings.items()]
        write_sentence_table(directory / "sentences.txt", stages, truth)
        shown = [Stage(s.iteration, s.sentences[:MOST_SHOWN]) for s in stages]
        save(sentence_figure(shown, truth[:MOST_SHOWN]), directory / "sentences.png")

    def summary(self) -> str:
        """Return the few lines that tell a person what happened."""
        args, result, model = self.args, self.result, self.network.model
        right = int(round(result.token_accuracy * self.client.shared.words.sum()))
        lines = {
            "attacked": f"a BERT of {model.layers} layers, width {model.width}, {model.heads} "
            f"heads, {model.vocabulary} tokens, weights {self.network.origin}, seed {args.seed}",
        }
        if args.defense:
            lines["defended"] = ", ".join(args.defense)
        verdict = "success" if result.succeeded else "NO success"
        lines["result"] = f"{verdict}: {args.attack}, {result.reason}"
        lines["words"] = (
            f"{right} of {int(self.client.shared.words.sum())} in place "
            f"({result.token_accuracy:.0%}), {result.bag_accuracy:.0%} in whatever place"
        )
        found = self._sentences(result.tokens_recovered)
        true = self._sentences(result.tokens_true)
        for number, (recovered, wanted) in enumerate(zip(found, true, strict=True)):
            if number == MOST_SHOWN:
                break
            said = recovered if recovered == wanted else f"{recovered} (in truth: {wanted})"
            lines["found" if len(found) == 1 else f"found {number}"] = said
        lines["cost"] = (
            f"{result.iterations} iterations, {result.evaluations} evaluations, "
            f"{result.seconds:.1f} s"
        )
        lines["files"] = written(args.out, FILES, "the result, a table and a picture")
        return paragraphs(lines)

    def _words(self, tokens: Array) -> list[list[str]]:
        """Return the tokens of each sentence as they are written, its start and end included."""
        lengths = self.client.shared.lengths
        return [self.tokenizer.words(row[:n]) for row, n in zip(tokens, lengths, strict=True)]

    def _sentences(self, tokens: Array) -> list[str]:
        places = self.client.shared.words
        return [self.tokenizer.decode(row[at]) for row, at in zip(tokens, places, strict=True)]

    def _accuracy(self, reading: Reading) -> float:
        return token_accuracy(reading.tokens, self.result.tokens_true, self.client.shared.words)


@contextmanager
def reading_bar(tokenizer: Tokenizer, *, quiet: bool = False) -> Iterator[OnReading | None]:
    """Give an attack's `on_reading` that shows the current reading on the standard error.

    Nothing is shown where that is no terminal.

    Args:
        tokenizer: which words the tokens are.
        quiet: show nothing anyway.
    """
    with bar_on_terminal(quiet=quiet, bar_format="{desc}", leave=False) as bar:

        def show(reading: Reading) -> None:
            said = " | ".join(tokenizer.decode(row) for row in np.asarray(reading.tokens))
            bar.set_description_str(
                f"iteration {reading.iteration}, distance {reading.distance:.1e}: {said}"
            )

        yield None if bar is None else show

"""What `tinyleak text` shows and leaves behind: a bar, the files of --out, and a summary."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyleak.cli.output import counted, paragraphs, readable, versions, written
from tinyleak.cli.progress import bar_on_terminal
from tinyleak.metrics import token_accuracy
from tinyleak.report import Stage, save, sentence_figure, write_json, write_sentence_table
from tinyleak.text import FoundText, OnProgress, Snapshot, TextClient, TextOutcome

FILES = ("result.json", "sentences.txt", "sentences.png")

MOST_SHOWN = 4
"""How many sentences of a batch are drawn, and shown on the screen."""

SETTINGS = (
    *("attack", "sentence", "index", "batch", "vocabulary", "weights", "gradients", "lengths"),
    *("train", "iterations", "seed"),
)
"""The options that result.json repeats as they were given."""


@dataclass(frozen=True)
class TextReport:
    """An attack on text that has ended.

    Attributes:
        args: what was asked for.
        client: the client.
        found: what the attack gave back.
        outcome: that beside the truth; None if no truth is known.
        origin: where the weights come from, in a few words.
    """

    args: argparse.Namespace
    client: TextClient
    found: FoundText
    outcome: TextOutcome | None
    origin: str

    @property
    def succeeded(self) -> bool:
        """Whether every word is right; with no truth known, whether the gradient is explained."""
        return self.found.explained if self.outcome is None else self.outcome.succeeded

    def as_dict(self) -> dict[str, Any]:
        """Return what result.json says: the outcome, and all that it takes to get it again.

        What only the truth tells is null where no truth is known.
        """
        found, outcome, client = self.found, self.outcome, self.client
        tokens = found.tokens if outcome is None else outcome.tokens_recovered
        true = None if outcome is None else outcome.tokens_true
        history = found.history if outcome is None else outcome.history
        given = {name: getattr(self.args, name) for name in SETTINGS}
        return {
            "succeeded": self.succeeded,
            "explained": found.explained,
            "reason": found.reason,
            "token_accuracy": None if outcome is None else outcome.token_accuracy,
            "bag_accuracy": None if outcome is None else outcome.bag_accuracy,
            "tokens_true": None if true is None else client.as_words(true),
            "tokens_recovered": client.as_words(tokens),
            "sentences_true": None if true is None else client.as_sentences(true),
            "sentences_recovered": client.as_sentences(tokens),
            "iterations": found.iterations,
            "evaluations": found.evaluations,
            "seconds": found.seconds,
            "lengths": list(client.lengths),
            "known": client.sources,
            "history": [
                {
                    "iteration": snapshot.iteration,
                    "distance": snapshot.distance,
                    "token_accuracy": self._accuracy(snapshot),
                    "sentences": client.as_sentences(snapshot.tokens),
                }
                for snapshot in history
            ],
            "settings": {
                **{k: readable(v) if isinstance(v, Path) else v for k, v in given.items()},
                "model": asdict(client.model),
                "dtype": client.dtype,
                "defenses": self.args.defense,
            },
            "versions": versions("cpu"),
        }

    def write(self, directory: Path) -> None:
        """Write all `FILES` into the directory.

        Raises:
            OSError: a file cannot be written.
        """
        write_json(directory / "result.json", self.as_dict())
        truth = None if self.outcome is None else self.client.as_words(self.outcome.tokens_true)
        history = self.found.history if self.outcome is None else self.outcome.history
        # Of two snapshots after the same iteration, the later one is the better.
        last = {snapshot.iteration: snapshot.tokens for snapshot in history}
        stages = [Stage(iteration, self.client.as_words(row)) for iteration, row in last.items()]
        write_sentence_table(directory / "sentences.txt", stages, truth)
        shown = [Stage(s.iteration, s.sentences[:MOST_SHOWN]) for s in stages]
        shown_truth = None if truth is None else truth[:MOST_SHOWN]
        save(sentence_figure(shown, shown_truth), directory / "sentences.png")

    def summary(self) -> str:
        """Return the few lines that tell a person what happened."""
        args, found, client, model = self.args, self.found, self.client, self.client.model
        kind = "a GPT-2" if model.causal else "a BERT"
        lines = {
            "attacked": f"{kind} of {model.layers} layers, width {model.width}, {model.heads} "
            f"heads, {model.vocabulary} tokens, weights {self.origin}"
            + (f", seed {args.seed}" if args.gradients is None else "")
        }
        if args.gradients is not None:
            lines["client"] = _known(client)
        if args.defense:
            lines["defended"] = ", ".join(args.defense)
        verdict = "success" if self.succeeded else "NO success"
        lines["result"] = f"{verdict}: {args.attack}, {found.reason}"
        sentences = found.sentences
        if self.outcome is not None:
            outcome, words = self.outcome, int(client.words.sum())
            lines["words"] = (
                f"{round(outcome.token_accuracy * words)} of {words} in place "
                f"({outcome.token_accuracy:.0%}), {outcome.bag_accuracy:.0%} in whatever place"
            )
            pairs = zip(
                client.as_sentences(outcome.tokens_recovered),
                client.as_sentences(outcome.tokens_true),
                strict=True,
            )
            sentences = [
                said if said == wanted else f"{said} (in truth: {wanted})" for said, wanted in pairs
            ]
        for number, sentence in enumerate(sentences[:MOST_SHOWN]):
            lines["found" if len(sentences) == 1 else f"found {number}"] = sentence
        lines["cost"] = (
            f"{found.iterations} iterations, {found.evaluations} evaluations, {found.seconds:.1f} s"
        )
        lines["files"] = written(args.out, FILES, "the result, a table and a picture")
        return paragraphs(lines)

    def _accuracy(self, snapshot: Snapshot) -> float | None:
        if self.outcome is None:
            return None
        return token_accuracy(snapshot.tokens, self.outcome.tokens_true, self.client.words)


def _known(client: TextClient) -> str:
    """Return what is known of a client, and how."""
    how, lengths = client.sources, client.lengths
    return (
        f"{counted(len(lengths), 'sentence')} ({how['sentences']}) of "
        f"{', '.join(map(str, lengths))} tokens ({how['lengths']}); {client.model.heads} heads "
        f"({how['heads']})"
    )


@contextmanager
def snapshot_bar(client: TextClient, *, quiet: bool = False) -> Iterator[OnProgress | None]:
    """Give an attack's `on_progress` that shows the current snapshot on the standard error.

    Nothing is shown where that is not a terminal.

    Args:
        client: the client, who says which words tokens are.
        quiet: show nothing anyway.
    """
    with bar_on_terminal(quiet=quiet, bar_format="{desc}", leave=False) as bar:

        def show(snapshot: Snapshot) -> None:
            said = " | ".join(client.as_sentences(snapshot.tokens))
            bar.set_description_str(
                f"iteration {snapshot.iteration}, distance {snapshot.distance:.1e}: {said}"
            )

        yield None if bar is None else show

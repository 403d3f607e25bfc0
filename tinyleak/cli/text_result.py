"""What `tinyleak text` shows and leaves behind: a bar, the files of --out, and a summary."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyleak.backend import Array
from tinyleak.cli.output import paragraphs, readable, versions, written
from tinyleak.cli.progress import bar_on_terminal
from tinyleak.metrics import token_accuracy
from tinyleak.report import (
    SentenceSnapshot,
    printable,
    save,
    sentence_figure,
    sentence_table,
    write_atomically,
    write_json,
)
from tinyleak.text import OnProgress, Snapshot, TextClient, TextOutcome

FILES = ("result.json", "sentences.txt", "sentences.png")

MOST_SHOWN = 4  # how many sentences of a batch are drawn, and shown on the screen

SETTINGS = (
    *("attack", "sentence", "index", "batch", "vocabulary", "weights", "gradients", "lengths"),
    *("train", "iterations", "seed"),
)
"""The options that result.json repeats as they were given."""


@dataclass(frozen=True)
class TextReport:
    """An attack on text that has ended."""

    args: argparse.Namespace  # what was asked for
    outcome: TextOutcome  # what was found, judged
    origin: str  # where the weights come from, in a few words

    def as_dict(self) -> dict[str, Any]:
        """Return the content of result.json: the outcome, and all that it takes to reproduce it.

        What only the truth tells is null where no truth is known.
        """
        outcome, found, client = self.outcome, self.outcome.found, self.outcome.found.client
        true = outcome.tokens_true
        given = {name: getattr(self.args, name) for name in SETTINGS}
        return {
            "succeeded": outcome.succeeded,
            "explained": found.explained,
            "reason": found.reason,
            "token_accuracy": outcome.token_accuracy,
            "bag_accuracy": outcome.bag_accuracy,
            "tokens_true": None if true is None else client.as_words(true),
            "tokens_recovered": client.as_words(outcome.tokens_recovered),
            "sentences_true": outcome.sentences_true,
            "sentences_recovered": outcome.sentences,
            "iterations": found.iterations,
            "evaluations": found.evaluations,
            "seconds": found.seconds,
            "lengths": list(client.lengths),
            "known": {topic: str(fact) for topic, fact in client.facts.items()},
            "history": [self._as_dict(snapshot) for snapshot in outcome.history],
            "settings": {
                **{k: readable(v) if isinstance(v, Path) else v for k, v in given.items()},
                "model": asdict(client.model),
                "dtype": client.dtype,
                "defenses": self.args.defense,
            },
            "versions": versions("cpu"),
        }

    def _as_dict(self, snapshot: Snapshot) -> dict[str, Any]:
        client, true = self.outcome.found.client, self.outcome.tokens_true
        right = None if true is None else token_accuracy(snapshot.tokens, true, client.words)
        return {
            "iteration": snapshot.iteration,
            "distance": snapshot.distance,
            "token_accuracy": right,
            "sentences": client.as_sentences(snapshot.tokens),
        }

    def write(self, directory: Path) -> None:
        """Write all `FILES` into the directory."""
        write_json(directory / "result.json", self.as_dict())
        outcome, client = self.outcome, self.outcome.found.client

        def as_words(tokens: Array) -> list[list[str]]:
            return [[printable(w).replace("\n", "\\n") for w in s] for s in client.as_words(tokens)]

        truth = None if outcome.tokens_true is None else as_words(outcome.tokens_true)
        # Of two snapshots after the same iteration, the later one is the better.
        last = {snapshot.iteration: snapshot.tokens for snapshot in outcome.history}
        snapshots = [
            SentenceSnapshot(iteration, as_words(tokens)) for iteration, tokens in last.items()
        ]
        table = sentence_table(snapshots, truth).encode()
        write_atomically(directory / "sentences.txt", lambda file: file.write(table))
        shown = [SentenceSnapshot(s.iteration, s.sentences[:MOST_SHOWN]) for s in snapshots]
        shown_truth = None if truth is None else truth[:MOST_SHOWN]
        save(sentence_figure(shown, shown_truth), directory / "sentences.png")

    def summary(self) -> str:
        """Return the few lines that tell a person what happened."""
        args, outcome, found = self.args, self.outcome, self.outcome.found
        client, model = found.client, found.client.model
        kind = "a GPT-2" if model.causal else "a BERT"
        seed = f", seed {args.seed}" if args.gradients is None else ""
        lines = {
            "attacked": f"{kind} of {model.layers} layers, width {model.width}, {model.heads} "
            f"heads, {model.vocabulary} tokens, weights {self.origin}{seed}",
            **{topic: str(fact) for topic, fact in client.facts.items()},
        }
        if args.defense:
            lines["defended"] = ", ".join(args.defense)
        verdict = "success" if outcome.succeeded else "NO success"
        lines["result"] = f"{verdict}: {args.attack}, {found.reason}"
        if outcome.token_accuracy is not None:
            words = int(client.words.sum())
            lines["words"] = (
                f"{round(outcome.token_accuracy * words)} of {words} in place "
                f"({outcome.token_accuracy:.0%}), {outcome.bag_accuracy:.0%} in whatever place"
            )
        sentences = outcome.sentences
        pairs = zip(sentences, outcome.sentences_true or sentences, strict=True)
        for number, (said, true) in enumerate(list(pairs)[:MOST_SHOWN]):
            name = "found" if len(sentences) == 1 else f"found {number}"
            lines[name] = said if said == true else f"{said} (in truth: {true})"
        lines["cost"] = (
            f"{found.iterations} iterations, {found.evaluations} evaluations, {found.seconds:.1f} s"
        )
        lines["files"] = written(args.out, FILES, "the result, a table and a picture")
        return paragraphs(lines)


@contextmanager
def snapshot_bar(client: TextClient, *, quiet: bool = False) -> Iterator[OnProgress | None]:
    """Give an attack's `on_progress` that shows its sentences; None as `bar_on_terminal` does."""
    with bar_on_terminal(quiet=quiet, bar_format="{desc}", leave=False) as bar:

        def show(snapshot: Snapshot) -> None:
            said = " | ".join(client.as_sentences(snapshot.tokens))
            said = f"iteration {snapshot.iteration}, distance {snapshot.distance:.1e}: {said}"
            bar.set_description_str(printable(said).replace("\n", " "))

        yield None if bar is None else show

"""How much of a sentence each attack on text reads, by length, weights and defence.

    python benchmarks/text.py                       every attack; what is in the table stays
    python benchmarks/text.py --only match          some of it: experiments whose name has this in
    python benchmarks/text.py --print               only print the table, as far as it has come

Every attack is appended to a table, a line each, as soon as it has ended: stopped and started
again, this goes on where it was. Lengths count a sentence's start and end, accuracies do not.
Untrained weights are drawn anew for every sentence; the trained ones saw 200 steps of the text.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from timing import table

from tinyleak import text
from tinyleak.backend import Array
from tinyleak.data.text import load_tokenizer
from tinyleak.defenses import parse
from tinyleak.nn.models.bert import Bert

RESULTS = Path(__file__).parent / "results" / "text.jsonl"
SENTENCES = 20
LENGTHS = (8, 16, 30)
WEIGHTS = ("untrained", "trained")
NOISE = "gaussian:1e-12"
DEFENSES = (
    *("gaussian:1e-10", "gaussian:1e-6", "gaussian:1e-3", "float16", "bfloat16", "int8"),
    *("prune:0.2", "prune:0.9", "clip:0.1", "dpsgd:1,0.001"),
)
DEFENDED = 5
"""Sentences attacked behind each of the defences."""

TOKENIZER = load_tokenizer()
MODEL = Bert(len(TOKENIZER))


class Experiment(NamedTuple):
    """Sentences of one length under one attack."""

    attack: str
    length: int
    weights: str
    sentences: int = SENTENCES
    batch: int = 1
    defense: str = "none"
    dtype: str = "float64"

    @property
    def name(self) -> str:
        parts = [self.attack, f"{self.batch}x{self.length}", self.weights, self.defense, self.dtype]
        return " ".join(parts)


def experiments() -> Iterator[Experiment]:
    """Yield all of them, what is quick and most asked for first."""
    for weights in WEIGHTS:
        for length in LENGTHS:
            for dtype in ("float64", "float32"):
                for attack in ("rows", "span"):
                    yield Experiment(attack, length, weights, dtype=dtype)
            yield Experiment("span", length, weights, defense=NOISE)
            yield Experiment("span+match", length, weights)
    for weights in WEIGHTS:
        yield Experiment("match", 8, weights)
    yield Experiment("match", 16, "untrained")
    yield Experiment("span+match", 30, "untrained", defense=NOISE)
    for weights in reversed(WEIGHTS):
        yield Experiment("span", 8, weights, batch=4)
        yield Experiment("span+match", 8, weights, batch=4)
    yield Experiment("match", 16, "trained")
    yield Experiment("span+match", 30, "trained", defense=NOISE)
    for attack in ("rows", "span", "match", "span+match"):
        for defense in ("none", *DEFENSES):
            yield Experiment(attack, 8, "untrained", DEFENDED, defense=defense)
    for weights in WEIGHTS:
        yield Experiment("span+match", 30, weights, defense="gaussian:1e-10")
    for weights in WEIGHTS:
        yield Experiment("match", 30, weights)


@cache
def trained() -> dict[str, Array]:
    """Return weights that have seen the text briefly."""
    sentences = [TOKENIZER.encode(sentence) for sentence in TOKENIZER.sentences]
    start = MODEL.init(np.random.default_rng(0))
    return text.train(MODEL, start, sentences, TOKENIZER.special).params


def client(experiment: Experiment, index: int) -> tuple[text.TextClient, text.TextTruth]:
    """Return a client whose sentences, weights and hidden words follow from the index."""
    length = experiment.length
    found = [one for one in TOKENIZER.sentences if len(TOKENIZER.encode(one)) == length]
    first = index * experiment.batch
    chosen = [found[(first + n) % len(found)] for n in range(experiment.batch)]
    if experiment.weights == "trained":
        params = trained()
    else:
        params = MODEL.init(np.random.default_rng([index, 0]))
    return text.share_text(
        MODEL,
        params,
        [TOKENIZER.encode(sentence) for sentence in chosen],
        TOKENIZER.special,
        rng=np.random.default_rng([index, 1]),
        dtype=experiment.dtype,
        defenses=[] if experiment.defense == "none" else [parse(experiment.defense)],
        noise=np.random.default_rng([index, 2]),
    )


def run(experiment: Experiment, index: int) -> dict[str, Any]:
    """Attack one client; return a line of the table."""
    known, truth = client(experiment, index)
    began = time.process_time()
    line: dict[str, Any] = {"experiment": experiment.name, "index": index}
    try:
        found = text.attack(known, experiment.attack, seed=index)
    except ValueError as error:
        # An attack that refuses has read nothing.
        return {**line, "tokens": 0.0, "bag": 0.0, "reason": str(error), "seconds": 0.0}
    outcome = truth.judge(found)
    line |= {
        "tokens": round(outcome.token_accuracy, 4),
        "bag": round(outcome.bag_accuracy, 4),
        "reason": found.reason,
        "seconds": round(time.process_time() - began, 2),
        "evaluations": found.evaluations,
    }
    if not outcome.succeeded:
        line["true"] = [TOKENIZER.decode(row) for row in outcome.tokens_true]
        line["read"] = [TOKENIZER.decode(row) for row in outcome.tokens_recovered]
    return line


def read(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the lines that are there, by experiment and index; a torn last one is left out."""
    lines = {}
    for written in path.read_text().splitlines() if path.exists() else []:
        try:
            line = json.loads(written)
        except ValueError:
            continue
        lines[line["experiment"], line["index"]] = line
    return lines


def show(lines: dict[tuple[str, int], dict[str, Any]], failures: bool = True) -> None:
    """Print a row for each experiment, and what was read where it was not the truth."""
    header = ("attack", "sentences", "weights", "defence", "dtype", "attacked", "whole")
    header += ("tokens in place", "tokens as a bag", "seconds each")
    rows: dict[str, tuple[str, ...]] = {}
    for experiment in experiments():
        mine = [line for (name, _), line in lines.items() if name == experiment.name]
        if mine:
            rows[experiment.name] = (
                experiment.attack,
                f"{experiment.batch} × {experiment.length}",
                *(experiment.weights, experiment.defense, experiment.dtype, str(len(mine))),
                str(sum(line["tokens"] == 1.0 for line in mine)),
                *(f"{np.mean([line[what] for line in mine]):.1%}" for what in ("tokens", "bag")),
                f"{np.mean([line['seconds'] for line in mine]):.1f}",
            )
    print(table(header, list(rows.values())))
    if failures:
        print(
            "\nWhere not every word was in its place, without a defence and behind faint noise:\n"
        )
        for line in lines.values():
            if "read" in line and ("none" in line["experiment"] or NOISE in line["experiment"]):
                print(f"{line['experiment']}, {line['index']}: {line['tokens']:.0%}")
                for true, found in zip(line["true"], line["read"], strict=True):
                    print(f"    {true}\n    {found}")


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=RESULTS, help="the file of results")
    parser.add_argument("--only", default="", help="only experiments whose name has this in it")
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="of each, at most")
    parser.add_argument("--print", action="store_true", help="run nothing")
    options = parser.parse_args()
    lines = read(options.table)
    if options.table.exists() and not options.table.read_text().endswith("\n"):
        options.table.write_text(options.table.read_text() + "\n")  # its last line is torn
    for experiment in () if options.print else experiments():
        for index in range(min(experiment.sentences, options.sentences)):
            if options.only in experiment.name and (experiment.name, index) not in lines:
                line = run(experiment, index)
                lines[experiment.name, index] = line
                with options.table.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(experiment.name, index, f"{line['tokens']:.0%}", file=sys.stderr, flush=True)
    show(lines)


if __name__ == "__main__":
    main()

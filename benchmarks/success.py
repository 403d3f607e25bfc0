"""How often the attack succeeds, and how many seconds a success takes.

    python benchmarks/success.py --data-dir FOLDER --peers

Random triples of an MNIST digit, weights and a start, for each initialisation and by each recipe.
A row is written as soon as its attack has ended, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

from timing import environment, write_json

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
from recipes import GOALS, SCHEMES, Row, Triple, recipes
from success_tables import (
    TITLES,
    failures,
    of_init,
    speed,
    speed_table,
    success_table,
    summary,
    with_ended_peers,
)

ROWS = Path(__file__).resolve().parents[1] / "results" / "success.jsonl"

Work: TypeAlias = tuple[tuple[str, ...], tuple[Triple, ...]]
"""Recipes to be run, in turn, on the same triples."""

Found: TypeAlias = list[tuple[str, Triple, Row]]


class Store:
    """The rows measured so far, in a file of one JSON object a line.

    Attributes:
        rows: by recipe, then by triple.
    """

    def __init__(self, path: Path) -> None:
        self.rows: dict[str, dict[Triple, Row]] = {name: {} for name in TITLES}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        if path.exists():
            self._read()

    def add(self, found: Found) -> None:
        """Keep rows, in the file too."""
        with self._path.open("a", encoding="utf-8") as file:
            for name, triple, row in found:
                self.rows[name][triple] = row
                line = {"recipe": name, "triple": triple._asdict(), "row": row}
                file.write(json.dumps(line) + "\n")

    def _read(self) -> None:
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        # A run that was killed may have left half a line, which must not spoil the next one.
        os.truncate(self._path, len(whole))
        for line in whole.splitlines():
            entry = json.loads(line)
            self.rows[entry["recipe"]][Triple(**entry["triple"])] = entry["row"]


def plan(options: argparse.Namespace, inits: Sequence[str], store: Store) -> list[Work]:
    """Return what is still to be done: recipes triple by triple, and many triples at once."""
    works: list[Work] = []
    counts = {
        "default": options.triples,
        "paper": min(options.timed, options.triples),
        "goal": min(options.timed, options.triples),
        "torch-paper": min(options.peers, options.triples),
        "torch-best": min(options.peers, options.triples),
    }
    for init in inits:
        triples = [Triple(options.data, init, seed) for seed in range(options.triples)]
        for triple in triples:
            missing = tuple(
                name
                for name, count in counts.items()
                if triple.seed < count and triple not in store.rows[name]
            )
            if missing:
                works.append((missing, (triple,)))
        timed = triples[: options.timed]
        for start in range(0, len(timed), options.at_once):
            group = tuple(timed[start : start + options.at_once])
            if any(triple not in store.rows["many"] for triple in group):
                works.append((("many",), group))
    return works


def do(work: Work, quick: bool) -> Found:
    """Run recipes in turn, so that a moment in which the machine is slow hits all of them."""
    names, triples = work
    known = recipes(triples[0].init, quick)
    return [
        (name, triple, row)
        for name in names
        for triple, row in zip(triples, known[name].run(triples), strict=True)
    ]


def results(works: Sequence[Work], jobs: int, quick: bool) -> Iterator[Found]:
    """Yield what each piece of work found, as it ends; each job is a process of one thread."""
    if jobs == 1:
        yield from (do(work, quick) for work in works)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(do, work, quick) for work in works]):
            yield future.result()


def report(store: Store, inits: Sequence[str]) -> dict[str, Any]:
    """Print the tables of each initialisation, and return their numbers."""
    numbers: dict[str, Any] = {"environment": environment()}
    for init in inits:
        rows = of_init(with_ended_peers(store.rows), init)
        summaries = {name: summary(list(mine.values())) for name, mine in rows.items()}
        failed, costs = failures(rows), speed(rows)
        print(f"\nInitial weights: {init}; the goal is a distance of {GOALS[init]:g}\n")
        print(success_table(summaries))
        print(f"\nFailures: {'' if failed else 'none'}")
        print("\n".join(failed))
        if "torch-paper" in rows:
            print(f"\nHow many times faster, on the same {costs['triples']} triples\n")
            print(speed_table(costs), flush=True)
        numbers[init] = {
            "goal": GOALS[init],
            "recipes": summaries,
            "failures": failed,
            "speed": costs,
        }
    return numbers


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description="how often the attack succeeds, and how fast")
    parser.add_argument("--triples", type=int, default=300, help="for each initialisation (300)")
    parser.add_argument("--init", choices=("both", *SCHEMES), default="both")
    parser.add_argument(
        "--timed", type=int, default=100, help="triples that our other recipes run as well (100)"
    )
    parser.add_argument(
        "--peers",
        type=int,
        nargs="?",
        const=40,
        default=0,
        metavar="COUNT",
        help="run PyTorch's recipes on so many triples (40 if no number is given)",
    )
    parser.add_argument(
        "--at-once", type=int, default=10, help="triples to a program when many are run (10)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each (1)")
    parser.add_argument("--data", choices=("mnist", "glyphs"), default="mnist")
    parser.add_argument(
        "--data-dir", type=Path, help="MNIST's folder (else TINYLEAK_MNIST, else the user's cache)"
    )
    parser.add_argument(
        "--rows", type=Path, default=ROWS, metavar="FILE", help="where rows are kept as they come"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables there, too")
    parser.add_argument(
        "--quick", action="store_true", help="built-in digits, few and short attacks: a smoke test"
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Run what is missing, and print the tables of all there is."""
    options = parse()
    if options.data_dir is not None:
        os.environ["TINYLEAK_MNIST"] = str(options.data_dir)
    inits = list(SCHEMES) if options.init == "both" else [options.init]
    if options.quick:
        options.data, options.triples, options.timed, options.at_once = "glyphs", 2, 2, 2
        options.rows = Path(tempfile.mkdtemp()) / "success.jsonl"
    store = Store(options.rows)
    works = plan(options, inits, store)
    try:
        for done, found in enumerate(results(works, options.jobs, options.quick), start=1):
            store.add(found)
            if sys.stderr.isatty() or done == len(works):
                print(f"\r{done} of {len(works)}", end="", file=sys.stderr, flush=True)
    except (OSError, ValueError) as error:
        raise SystemExit(f"success.py: {error}") from None
    print(file=sys.stderr)
    numbers = report(store, inits)
    if options.json is not None:
        write_json(options.json, numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())

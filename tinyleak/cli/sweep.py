"""`tinyleak sweep`: every combination of defences, images, seeds and more, into one table."""

import argparse
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from tinyleak import data
from tinyleak.cli import options
from tinyleak.cli.interrupts import undisturbed
from tinyleak.cli.output import require_apart, say
from tinyleak.cli.progress import bar_on_terminal
from tinyleak.cli.simulated import network
from tinyleak.data.networks import SUFFIX
from tinyleak.defenses import FORMS
from tinyleak.nn import ACTIVATIONS
from tinyleak.sweep import (
    Request,
    Table,
    complete,
    files_of_table,
    grid,
    parse_numbers,
    parse_strengths,
    summary,
)
from tinyleak.sweep.combinations import ATTACKERS, LABELS
from tinyleak.sweep.request import UNDEFENDED

NAME = "sweep"
SUMMARY = "run a grid of attacks, defence by strength by image by seed, into a durable table"

NUMBERS = {
    "--images": ("I", 0, "first images, such as 0-9 12"),
    "--seeds": ("S", 0, "each decides the weights and the start, such as 0-4"),
    "--batch": ("N", 1, "how many images an attack is on, I to I+N-1"),
}
NAMES: dict[str, tuple[Collection[str], str]] = {
    "--attacker": (ATTACKERS, "naive"),
    "--model": (options.CHOICES["model"], "lenet"),
    "--activation": (ACTIVATIONS, "sigmoid"),
    "--init": (options.SCHEMES, "U"),
    "--labels": (LABELS, "optimise"),
}
"""Options that take several values, each with what is taken unless it is given."""

DEFENSES = (
    f"{UNDEFENDED}, {', '.join(FORMS)}; gaussian:1e-4/1e-3 is one at two strengths, "
    f"prune:0.2+gaussian:1e-3 one after the other (default: {UNDEFENDED})"
)
RUN = {
    "restarts": "starts of an attack that are run side by side (default: 1)",
    "device": "(default: cpu)",
}
JOBS = os.cpu_count() or 1
TABLE = (
    "a SQLite file, one row an attack (default: %(default)s). Attacks that it holds are not run "
    "again, so the same command finishes a sweep that was stopped, and a larger grid adds to it"
)
FLAGS = {
    "--retry-failed": "run those again whose row is an error",
    "--keep-images": "write each reconstruction, with its curves, to FILE.images/ID.npz",
    "--quiet": "no progress bar and no summary",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group(
        "the grid", "Every combination is an attack. Each option takes several values."
    )
    add = group.add_argument
    add("--defense", metavar="D", nargs="+", default=[UNDEFENDED], help=DEFENSES)
    for option, (metavar, least, text) in NUMBERS.items():
        more: dict[str, Any] = {"type": options.checked(parse_numbers(least)), "default": [[least]]}
        add(option, metavar=metavar, nargs="+", help=f"{text} (default: {least})", **more)
    for option, (names, default) in NAMES.items():
        more = {"choices": names, "default": [default]}
        add(option, nargs="+", help=f"(default: {default})", **more)
    options.add_weights_option(group)
    options.add_data_options(group, nargs="+")
    options.add_recipe_options(parser)
    group = parser.add_argument_group("how it is run")
    options.add_options(group, grid, RUN)
    add = group.add_mutually_exclusive_group().add_argument
    text = "processes of this machine, one thread each (default: %(default)s)"
    add("--jobs", metavar="J", type=options.whole_number(1), default=JOBS, help=text)
    add("--dask", metavar="ADDRESS", help="run on the Dask cluster with this scheduler instead")
    add = parser.add_argument_group("what comes out").add_argument
    add("--table", metavar="FILE", type=Path, default=Path("sweep.sqlite"), help=TABLE)
    add("--csv", metavar="FILE", type=Path, help="write the whole table as CSV too, at the end")
    for option, text in FLAGS.items():
        add(option, action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    """Run what the table lacks: 0 if the whole grid is there without an error, else 1."""
    for name in ("images", "batch", "seeds"):
        setattr(args, name, [number for numbers in getattr(args, name) for number in numbers])
    outputs = {"--table": files_of_table(args.table)}
    outputs |= {} if args.csv is None else {"--csv": [args.csv]}
    require_apart(args, outputs)
    requests = _requests(args)
    if args.dask is not None:
        logging.disable()  # Dask tells by pages what is said here in a line
    with Table(args.table, tuple(requests[0].columns)) as table:
        finished = table.finished(with_failed=not args.retry_failed, images=args.keep_images)
        missing = [request for request in requests if request.id not in finished]
        if not args.quiet:
            say(
                f"{len(requests)} attacks; {len(requests) - len(missing)} are in {args.table}, "
                f"{len(missing)} to run"
            )
        interrupted = False
        if missing:
            table.begin(_plain(args))
            try:
                with _progress_bar(len(missing), quiet=args.quiet) as on_result:
                    complete(missing, table, jobs=args.jobs, dask=args.dask, on_result=on_result)
            except KeyboardInterrupt:
                interrupted = True
        with undisturbed():
            if args.csv is not None:
                table.export_csv(args.csv)
            held = {row["id"]: row for row in table.rows()}
        rows = [held[request.id] for request in requests if request.id in held]
    if not args.quiet:
        say(summary(rows))
    if interrupted:
        say(
            f"tinyleak: interrupted; {len(rows)} of {len(requests)} attacks are in {args.table}, "
            "and the same command runs the rest",
            error=True,
        )
    done = len(rows) == len(requests) and all(row["error"] is None for row in rows)
    return 0 if done else 1


def _requests(args: argparse.Namespace) -> list[Request]:
    dataset = data.choose(args.data, **options.given(data.choose, args))
    kinds = dict.fromkeys(
        (kind, None if kind.endswith(SUFFIX) else activation)
        for kind, activation in product(args.model, args.activation)
    )
    asked = {
        "defenses": [steps for text in args.defense for steps in parse_strengths(text)],
        "attackers": args.attacker,
        "batches": args.batch,
        "inits": [options.SCHEMES[name] for name in args.init],
        "settings": options.build_settings(args),
    }
    about = dataset.images.shape[1:], dataset.classes
    models = [network(kind, *about, activation, args.weights) for kind, activation in kinds]
    return grid(dataset, models, **options.given(grid, args), **asked)


def _plain(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was asked for, as JSON can hold it."""
    told = {name: value for name, value in vars(args).items() if not callable(value)}
    plain: dict[str, Any] = json.loads(json.dumps(told, default=str))
    return plain


@contextmanager
def _progress_bar(
    total: int, *, quiet: bool
) -> Iterator[Callable[[Request, Mapping[str, Any]], None] | None]:
    """Give a sweep's `on_result` that moves a bar; None as `bar_on_terminal` does."""
    counts = {"recovered": 0, "failed": 0}
    with bar_on_terminal(quiet=quiet, total=total, unit="attack") as bar:

        def on_result(request: Request, result: Mapping[str, Any]) -> None:
            counts["recovered"] += bool(result["succeeded"])
            counts["failed"] += result["error"] is not None
            bar.set_postfix(counts, refresh=False)
            bar.update()

        yield None if bar is None else on_result

"""`tinyleak attack`: a client with known images shares its gradient, and the attack recovers them.

The client is simulated, so that the reconstruction can be judged by the truth; unless --weights
and --gradients are a real one's (`attack_files`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from tinyleak.attack import Method, attack
from tinyleak.cli.attack_files import run_on_files
from tinyleak.cli.attacker import add_attacker_options, equip, read_defenses
from tinyleak.cli.client import add_client_options, has_files
from tinyleak.cli.directory import output_directory
from tinyleak.cli.options import (
    SCHEMES,
    add_data_options,
    add_network_options,
    add_recipe_options,
    build_model,
    build_settings,
    fill_simulated,
    read_data,
    take_batch,
    whole_number,
)
from tinyleak.cli.progress import progress_bar
from tinyleak.cli.result import FILES, Result
from tinyleak.victim import judge, simulate

NAME = "attack"
SUMMARY = "recover a client's images from the gradient that it shares"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_options(parser)
    add_network_options(parser)
    add_client_options(parser)
    add_recipe_options(parser)
    add_attacker_options(parser)
    group = parser.add_argument_group("how it is run")
    group.add_argument(
        "--seed",
        metavar="S",
        type=whole_number(0),
        default=0,
        help="decides the weights and the noise that the attack starts from (default: %(default)s)",
    )
    group.add_argument(
        "--method",
        choices=get_args(Method),
        default="lbfgs",
        help="what minimises the distance: L-BFGS as in the paper; Levenberg-Marquardt, which "
        "takes batches to the rounding error, best with --labels infer; or the one to finish "
        "after the other (default: %(default)s)",
    )
    group.add_argument(
        "--restarts",
        metavar="R",
        type=whole_number(1),
        default=1,
        help="starts that are run side by side; the nearest counts (default: %(default)s)",
    )
    group.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)"
    )
    group = parser.add_argument_group("what comes out")
    group.add_argument(
        "--out", metavar="DIR", type=Path, help=f"a new directory for {', '.join(FILES)}"
    )
    group.add_argument("--force", action="store_true", help="write into DIR even if it exists")
    group.add_argument("--quiet", action="store_true", help="no progress bar and no summary")


def run(args: argparse.Namespace) -> int:
    """Attack, judge, write, summarise: 0 if every image and label was recovered, else 1.

    Raises:
        ValueError: a request that cannot be met.
        OSError: files that cannot be read or written.
    """
    if has_files(args):
        return run_on_files(args)
    fill_simulated(args)
    with output_directory(args.out, force=args.force) as directory:
        settings = build_settings(args)
        defenses = read_defenses(args)
        dataset = read_data(args)
        images, labels = take_batch(args, dataset)
        model = build_model(args, dataset)
        victim = simulate(
            model,
            images,
            labels,
            seed=args.seed,
            scheme=SCHEMES[args.init],
            dtype=settings.dtype,
            defenses=defenses,
        )
        attacker = equip(args, model, victim, settings, defenses)
        with progress_bar(images, settings, quiet=args.quiet) as on_progress:
            found = attack(
                model,
                victim.params,
                victim.gradients,
                batch=args.batch,
                labels=attacker.labels,
                precision=attacker.precision,
                seed=args.seed,
                restarts=args.restarts,
                method=args.method,
                settings=attacker.settings,
                device=args.device,
                on_progress=on_progress,
            )
            # Still under the bar, since drawing takes seconds.
            outcome = judge(victim, found)
            result = Result(args, model, attacker, victim, found, outcome)
            if directory is not None:
                result.write(directory)
    if not args.quiet:
        print(result.summary())
    if found.reason == "interrupted":
        kept = "was not kept, for want of --out" if directory is None else f"is in {directory}"
        print(f"tinyleak: interrupted; the best so far {kept}", file=sys.stderr)
        return 1
    return 0 if outcome.succeeded else 1

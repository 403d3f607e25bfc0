"""`tinyleak attack`: a client with known images shares its gradient, and the attack recovers them.

The client is simulated, so that the reconstruction can be judged by the truth; unless --weights
and --gradients are a real one's (`attack_files`).
"""

from __future__ import annotations

import argparse
from typing import get_args

from tinyleak.attacks import Method, attack
from tinyleak.cli.attack_files import run_on_files
from tinyleak.cli.attacker import (
    add_attacker_options,
    equip,
    first_images,
    read_defenses,
)
from tinyleak.cli.client import add_client_options, has_files
from tinyleak.cli.options import add_recipe_options, build_settings, whole_number
from tinyleak.cli.output import add_output_options, end, output_directory
from tinyleak.cli.progress import progress_bar
from tinyleak.cli.result import FILES, Result
from tinyleak.cli.simulated import (
    add_data_options,
    add_network_options,
    fill_simulated,
    simulated_client,
)
from tinyleak.client.simulated import judge

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
    add_output_options(parser, ", ".join(FILES))


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
        model, victim = simulated_client(args, dtype=settings.dtype, defenses=defenses)
        attacker = equip(args, model, victim, settings, defenses)
        start = first_images(
            args, model, victim.params, victim.gradients, attacker.labels, attacker.precision
        )
        with progress_bar(victim.images, settings, quiet=args.quiet) as on_progress:
            found = attack(
                model,
                victim.params,
                victim.gradients,
                batch=args.batch,
                labels=attacker.labels,
                precision=attacker.precision,
                seed=args.seed,
                start=start,
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
    return end(
        args,
        result.summary,
        succeeded=outcome.succeeded,
        interrupted=found.reason == "interrupted",
    )

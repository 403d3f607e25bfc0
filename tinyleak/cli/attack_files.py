"""`tinyleak attack --weights W --gradients G`: an attack on a client known only by its files.

Or --weights-after: then the gradient is what one step of SGD changed, or several steps' sum.

No truth is known. Success is that what was found explains the shared gradient (`explained`), and
the pictures show what was found. Keys of result.json that need the truth are null.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from tinyleak.analytic import LabelInference, LayerGradient, infer_labels
from tinyleak.attacks import attack
from tinyleak.cli.attacker import Attacker, aim, first_images, read_defenses
from tinyleak.cli.client import Client, read_client
from tinyleak.cli.explained import explain
from tinyleak.cli.file_result import FileResult
from tinyleak.cli.options import build_settings
from tinyleak.cli.output import end, output_directory
from tinyleak.cli.progress import progress_bar


def run_on_files(args: argparse.Namespace) -> int:
    """Attack, judge by the gradient, write, summarise: 0 if the gradient is explained, else 1.

    Raises:
        ValueError: a request that cannot be met.
        OSError: files that cannot be read or written.
    """
    with output_directory(args.out, force=args.force) as directory:
        settings, defenses = build_settings(args), read_defenses(args)
        client = read_client(args)
        settings, precision = aim(args, settings, defenses, client.shared, client.batch)
        if not client.loss.exact:
            settings = replace(settings, direction=True)
        labels, inference = _labels(args, client)
        attacker = Attacker(settings, labels, precision, inference)
        if args.start != "noise" and client.local is not None:
            raise ValueError(
                "--start recursion reads the gradient of one step, but several local steps have "
                "only their sum; leave one of the two out"
            )
        start = first_images(args, client.model, client.params, client.shared, labels, precision)
        with progress_bar(None, settings, quiet=args.quiet) as on_progress:
            found = attack(
                client.model,
                client.params,
                client.shared,
                batch=client.batch,
                labels=labels,
                precision=precision,
                seed=args.seed,
                start=start,
                restarts=args.restarts,
                settings=settings,
                method=args.method,
                local=client.local,
                device=args.device,
                on_progress=on_progress,
            )
            explained = explain(client, found, precision, settings.dtype)
            result = FileResult(args, client, attacker, found, explained)
            if directory is not None:
                result.write(directory)
    return end(
        args,
        result.summary,
        succeeded=explained.succeeded,
        interrupted=found.reason == "interrupted",
    )


def _labels(
    args: argparse.Namespace, client: Client
) -> tuple[list[int] | None, LabelInference | None]:
    """Return the labels to go by, and where they are from; None to find them with the images."""
    if args.labels == "optimise":
        return None, None
    # Over several steps the gradient hardly turns: their mean is about one.
    steps = 1 if client.local is None else client.local.count
    mean = {name: array / steps for name, array in client.shared.items()}
    inference = infer_labels(LayerGradient.last(client.model, client.params, mean, client.batch))
    if args.labels == "infer":
        if inference.warning is not None:
            print(f"tinyleak: {inference.warning}", file=sys.stderr)
        return inference.labels.tolist(), inference
    return (inference.labels.tolist() if inference.trusted else None), inference

"""`tinyleak audit --model text`: which words a language model's gradient names by itself."""

import argparse
from pathlib import Path
from typing import Any

from tinyleak import __version__
from tinyleak.audit import Audit, TextAudit, audit_text
from tinyleak.cli import options
from tinyleak.cli.interrupts import undisturbed
from tinyleak.cli.output import paragraphs, readable
from tinyleak.data.tensors import read_tensors
from tinyleak.data.text import load_tokenizer
from tinyleak.nn.models.checkpoint import read_config
from tinyleak.report import write_json

OF_IMAGES = ("classes", "activation", "rename", "init", "seed", "image", "data_dir")
"""Options that a language model has no use for."""


def run_text(args: argparse.Namespace, directory: Path | None) -> tuple[str, bool]:
    """Audit a language model, write the files, and return the summary.

    Beside it, whether Ctrl-C came before all was measured.
    """
    given = [name for name in OF_IMAGES if getattr(args, name)]
    options.refuse(args, given, "--model text reads no images, but {} was given; leave it out")
    if args.weights is None:
        raise ValueError("--model text looks at the tables in a network's --weights; give them")
    params = read_tensors(args.weights)
    gradients = None if args.gradients is None else read_tensors(args.gradients)
    words = None if args.vocabulary is None else load_tokenizer(args.vocabulary)
    found = audit_text(params, gradients, words, _settings(args.weights))
    subject = f"a language model, weights {args.weights}"
    if directory is not None:
        files = {n: readable(getattr(args, n)) for n in ("weights", "gradients", "vocabulary")}
        write_audit(directory, found, found.as_dict(), subject, {"model": "text", **files})
    return paragraphs({"audited": subject, **found.lines()}), found.interrupted


def write_audit(
    directory: Path,
    found: Audit | TextAudit,
    result: dict[str, Any],
    subject: str,
    settings: dict[str, Any],
    **more: Any,
) -> None:
    """Write audit.json, with the settings and more beside the result, and audit.html."""
    versions = {"tinyleak": __version__}
    with undisturbed():
        told = {**result, "settings": settings, "versions": versions, **more}
        write_json(directory / "audit.json", told)
        found.save(directory / "audit.html", subject=subject)


def _settings(weights: Path) -> dict[str, Any]:
    """Return the settings in the config.json beside the weights, if it is a BERT's or a GPT-2's."""
    try:
        return read_config(weights.with_name("config.json"))
    except ValueError:  # another network's: only its tables are looked at
        return {}

"""The command called in this process: what it answers, and that it turns a bad request down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tinyleak.cli import main
from tinyleak.metrics import match_batch, mse


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Answer]
Refused = Callable[..., str]


def runner(capsys: pytest.CaptureFixture[str], *first: str) -> Run:
    """Return what calls `main` with these arguments, and more after them."""

    def call(*arguments: object) -> Answer:
        try:
            code = main([str(argument) for argument in (*first, *arguments)])
        except SystemExit as stop:  # argparse: --help, --version, or what it cannot parse
            code = int(stop.code or 0)
        return Answer(code, *capsys.readouterr())

    return call


def refuser(run: Run) -> Refused:
    """Return what expects a request to be turned down in one line, and returns that line."""

    def call(*arguments: object) -> str:
        answer = run(*arguments)
        assert (answer.code, answer.out) == (2, "")
        assert re.fullmatch(r"tinyleak: [^\n]+\n", answer.err), answer.err
        return answer.err.strip()

    return call


def read_result(folder: Path) -> dict[str, Any]:
    """Return what the result.json there says."""
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def errors(folder: Path, truth: np.ndarray) -> np.ndarray:
    """Return the mean squared errors of what an attack wrote there, in the order that fits."""
    found = np.load(folder / "reconstruction.npz")["images"]
    return mse(found[match_batch(found, truth)], truth)

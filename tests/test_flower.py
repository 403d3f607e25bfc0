"""A real Flower server that keeps what it is sent, and what leaks from that."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES = 10
"""As many does a strategy need to keep what the server is sent, its first one included."""


def strategy(text: str) -> list[str]:
    """Return the lines of the listening strategy, without its docstring and empty lines."""
    body = re.search(r"^class Listening\(FedAvg\):\n((?: .*\n|\n)+)", text, re.MULTILINE)
    assert body is not None
    lines = [line.rstrip() for line in body.group(1).splitlines()]
    return [line for line in lines if line and '"""' not in line]


def test_a_strategy_that_listens_is_ten_lines() -> None:
    shown = strategy((ROOT / "benchmarks" / "flower_app.py").read_text())
    assert len(shown) + 1 == LINES
    assert strategy((ROOT / "README.md").read_text()) == shown


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("flwr") is None, reason="Flower is not here: pip install -e '.[bench]'"
)
def test_what_a_flower_server_is_sent_is_the_images() -> None:
    """Three rounds of a server and two clients, all processes of their own, over the loopback."""
    script = ROOT / "benchmarks" / "flower.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers, back, _, largest, verdicts = done.stdout.splitlines()[-1].split("|")[3:8]
    assert (answers.strip(), back.strip(), verdicts.strip()) == ("6", "6 of 6", "6 exact")
    assert float(largest) < 1e-10

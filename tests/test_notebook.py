"""The README's notebook cells: each runs alone, in a few lines, and shows itself."""

from __future__ import annotations

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

TASKS = {
    "train": "train(",
    "batch of four": "levenberg-marquardt",
    "gradient file": "from_files(",
    "sentence": "simulate_text(",
    "audit": "audit(client)",
}
SHOWN = {
    "train": "text/plain",
    "batch of four": "image/png",
    "gradient file": "image/png",
    "sentence": "text/html",
    "audit": "text/html",
}
"""What a cell's last expression shows itself as."""

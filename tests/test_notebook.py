"""The README's notebook cells: each runs alone, in a few lines, and shows itself."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_readme import blocks, lines_of_code

from tinyleak import LeNet, Reconstruction, Truth, data, simulate
from tinyleak.client import Client
from tinyleak.client.writing import write_client

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

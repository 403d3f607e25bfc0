"""How the benchmarks measure: one thread, in turns, medians of processor time.

Processor time is the process's own, of all its threads: what other programs on the machine take
does not count, and on an idle machine it is what the clock shows, since nothing here waits.

Import this module before NumPy, PyTorch or JAX: they read how many threads they may use when they
are first imported.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}

TURN_SECONDS = 0.02


class Contestant(NamedTuple):
    """Something to be timed, and how many evaluations one call of it comprises."""

    call: Callable[[], object]
    evaluations: int = 1


def medians(
    contestants: Mapping[str, Contestant],
    turns: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Return the median seconds an evaluation of each contestant.

    They take turns, A B C A B C, so that a machine that slows down for a while slows all of them.
    In its turn each is called for about 20 ms in a row, since an attack repeats its evaluation in
    a cache that holds nothing else. A turn's first call finds a cold cache and is not counted.
    """
    counts = {}
    for name, one in contestants.items():
        one.call()
        seconds = min(_timed(one.call, clock), _timed(one.call, clock))
        counts[name] = max(2, round(TURN_SECONDS / seconds))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(turns):
        for name, one in contestants.items():
            one.call()
            times[name] += [_timed(one.call, clock) for _ in range(counts[name])]
    return {name: median(times[name]) / contestants[name].evaluations for name in contestants}


def _timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns also line up as plain text."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        text.append(f"| {' | '.join(cells)} |")
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def environment() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    libraries = {}
    for name in ("numpy", "torch", "jax", "cupy-cuda12x", "cupy-cuda13x"):
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "libraries": libraries,
    }


def write_json(path: Path, content: object) -> None:
    """Write a file of results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)

"""A soak: all that tinyleak does, again and again, interrupted and killed, in one process and many.

    python benchmarks/soak.py --minutes 10

What must not grow is measured: the memory and the open files of one process in which attacks,
audits and attacks on text run by turns. What must not be lost is counted: rows of a sweep that is
killed, interrupted and whose data change under its feet; directories left empty, and temporary
files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from timing import environment

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
COUNT, SIDE = 12, 28
ALLOWED = 30e6
"""Bytes that the process may have grown by in the second half: what an allocator keeps."""


def write_digits(folder: Path, seed: int) -> None:
    """Write a few images in MNIST's format, all of them or none of them new."""
    pixels = np.random.default_rng(seed).integers(0, 256, COUNT * SIDE * SIDE, np.uint8)
    header = np.array([2051, COUNT, SIDE, SIDE], ">u4").tobytes()
    labels = np.array([2049, COUNT], ">u4").tobytes() + bytes(range(10)) + bytes(COUNT - 10)
    for name, content in (
        ("t10k-images-idx3-ubyte", header + pixels.tobytes()),
        ("t10k-labels-idx1-ubyte", labels),
    ):
        (folder / f"{name}.new").write_bytes(content)
        (folder / f"{name}.new").replace(folder / name)


def memory() -> int:
    """How much memory this process has, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def command(*arguments: object) -> list[str]:
    """Return the command as a process of its own is given it."""
    return [sys.executable, "-m", "tinyleak", *map(str, arguments)]


def inside(folder: Path, turn: int, random_: random.Random) -> str:
    """Run one command in this process, sometimes interrupted; return which."""
    from tinyleak.cli import main

    data = ("--data", "mnist", "--data-dir", folder / "data", "--quiet")
    out = ("--out", folder / "out", "--force")
    kinds = {
        "attack": ("attack", *data, "--iterations", 40, "--index", turn % COUNT, *out),
        "attack by least squares": (
            *("attack", *data, "--method", "levenberg-marquardt", "--iterations", 3),
            *("--model", "mlp", *out),
        ),
        "text": ("text", "--attack", "match", "--iterations", 20, "--quiet", "--layers", 1, *out),
        "audit": (
            *("audit", "--shape", "1,8,8", "--model", "mlp", "--examples", 2, "--quiet", *out),
        ),
    }
    kind = list(kinds)[turn % len(kinds)]
    if turn % 3 == 2:
        signal.setitimer(signal.ITIMER_REAL, random_.uniform(0.05, 1.0))
    try:
        main([str(argument) for argument in kinds[kind]])
    except KeyboardInterrupt:
        kind = f"{kind}, interrupted outside"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return kind


def rows(table: Path) -> int:
    """How many rows a table has, none where it is not there yet."""
    if not table.exists():
        return 0
    database = sqlite3.connect(table, timeout=60)
    try:
        return int(database.execute("SELECT count(*) FROM attacks").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        database.close()


def outside(folder: Path, turn: int, random_: random.Random, found: Counter[str]) -> None:
    """Run one command in processes of its own, and interrupt or kill it."""
    data = ("--data", "mnist", "--data-dir", folder / "data", "--quiet")
    table = folder / "t.sqlite"
    sweep = ("sweep", *data, "--table", table, "--model", "mlp", "--iterations", 30, "--jobs", 2)
    sweep = (*sweep, "--seeds", "0-4", "--images", f"0-{turn % COUNT}", "--keep-images")
    out = folder / f"out{turn}"
    arguments = [sweep, ("attack", *data, "--iterations", 3000, "--out", out)][turn % 2]
    before = rows(table)
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    number = random_.choice([None, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
    time.sleep(random_.uniform(0.5, 4.0))
    if turn % 5 == 4:
        write_digits(folder / "data", turn)
        found["data replaced"] += 1
    if number is not None:
        os.killpg(process.pid, number)
    _, err = process.communicate(timeout=120)
    what = "left alone" if number is None else signal.Signals(number).name
    found[f"{arguments[0]}, {what}"] += 1
    if "Traceback" in err:
        found["tracebacks"] += 1
        print(err, file=sys.stderr)
    if rows(table) < before:
        found["tables that lost rows"] += 1
    if number != signal.SIGKILL and out.exists() and not (out / "result.json").exists():
        found["directories left empty"] += 1


def unfinished(folder: Path) -> list[str]:
    """Whatever a file was called while it was written, and is called no more."""
    return [path.name for path in folder.rglob("*") if path.name.endswith((".part", "-journal"))]


def main() -> int:
    """Run for so many minutes, print what was found, and return 1 if something grew or was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random_, found = random.Random(0), Counter[str]()
    measured: list[tuple[float, int, int]] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        write_digits(folder / "data", 0)
        turn = 0
        while (passed := time.monotonic() - began) < 60 * minutes:
            found[inside(folder, turn, random_)] += 1
            if turn % 3 == 0:
                outside(folder, turn // 3, random_, found)
            measured.append((passed, memory(), len(list(Path("/proc/self/fd").iterdir()))))
            turn += 1
        parts = unfinished(folder)
        # What was killed is finished by the same command, and nothing of it is run twice.
        table = folder / "t.sqlite"
        there = rows(table)
        last = (
            "--data",
            "mnist",
            "--data-dir",
            folder / "data",
            "--table",
            table,
            "--model",
            "mlp",
        )
        last = ("sweep", *last, "--iterations", 30, "--seeds", "0-4", "--images", "0-11")
        subprocess.run(command(*last, "--quiet"), check=False, cwd=ROOT)
        subprocess.run(command(*last, "--quiet"), check=False, cwd=ROOT)
        database = sqlite3.connect(table)
        failed = database.execute("SELECT count(*) FROM attacks WHERE error IS NOT NULL").fetchone()
        database.close()
        images = len(list(table.with_name(f"{table.name}.images").glob("*.npz")))
        print(json.dumps(environment()), end="\n\n")
        for what, count in sorted(found.items()):
            print(f"{count:>6} {what}")
        print(
            f"{rows(table):>6} rows of the sweep, {there} before its last run; {failed[0]} failed"
        )
        print(f"{images:>6} reconstructions kept")
        print(f"{len(parts):>6} temporary files left: {', '.join(parts) or 'none'}")
    half = len(measured) // 2
    grown = measured[-1][1] - measured[half][1]
    files = measured[-1][2] - measured[half][2]
    for label, (seconds, size, open_) in (
        ("in the first turn", measured[0]),
        ("half-way", measured[half]),
        ("at the end", measured[-1]),
    ):
        print(f"{label:>18}: {seconds:6.0f} s, {size / 1e6:6.1f} MB, {open_} open files")
    lost = found["tracebacks"] + found["tables that lost rows"] + found["directories left empty"]
    bad = grown > ALLOWED or files > 0 or lost or parts
    print("something grew or was lost" if bad else "nothing grew and nothing was lost")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())

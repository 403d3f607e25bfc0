"""How time and memory grow with the batch, N, and with the attacks at once, R, beside PyTorch's.

    python benchmarks/growth.py

One evaluation of the attack's objective: the distance between gradients and its own gradient.
PyTorch takes R attacks one after the other. Time is taken in turns; peak memory in a fresh process
for each point, as what the process has grown by since its libraries were imported and its data were
there, tracing included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from timing import Contestant, environment, medians, table, write_json

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
from problems import Problem, installed

RESULTS = Path(__file__).resolve().parent / "results"
BATCHES = (1, 2, 4, 8, 16, 32, 64)
ATTACKS = (4, 16, 64, 256)
TITLES = {"tinyleak": "tinyleak", "torch": "PyTorch"}
COLOURS = {"tinyleak": "#1f6f8b", "torch": "#c8553d"}


def time_point(batch: int, attacks: int, dtype: str, turns: int) -> dict[str, float]:
    """Return the seconds that an evaluation of all attacks takes in each library."""
    problem = Problem.draw(batch, attacks, dtype)
    contestants = {"tinyleak": Contestant(problem.ours())}
    if installed("torch"):
        contestants["torch"] = Contestant(problem.torch())
    return medians(contestants, turns)


def memory_point(library: str, batch: int, attacks: int, dtype: str) -> int:
    """Return the bytes by which a fresh process grows for an evaluation."""
    arguments = [sys.executable, __file__, "--point", library, str(batch), str(attacks), dtype]
    done = subprocess.run(arguments, capture_output=True, check=True, text=True)
    return int(done.stdout)


def grow(library: str, batch: int, attacks: int, dtype: str) -> int:
    """Return the bytes by which this process grows for an evaluation."""
    problem = Problem.draw(batch, attacks, dtype)
    evaluate = problem.ours() if library == "tinyleak" else problem.torch()
    forget_peak()
    before = peak_bytes()
    for _ in range(3):
        evaluate()
    return peak_bytes() - before


def forget_peak() -> None:
    """Begin anew to watch how much memory this process takes at most, where that can be done."""
    # Importing leaves a peak behind that would hide a small evaluation; Linux can forget it.
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """Return how many bytes of memory this process has taken at most."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    # Elsewhere; on Linux this would count the parent's memory from before the child began, too.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(points: list[tuple[int, int]], dtype: str, turns: int) -> list[dict[str, Any]]:
    """Return time and memory of each library at each (N, R)."""
    results = []
    for batch, attacks in points:
        seconds = time_point(batch, attacks, dtype, turns)
        memory = {name: memory_point(name, batch, attacks, dtype) for name in seconds}
        results.append({"batch": batch, "attacks": attacks, "seconds": seconds, "bytes": memory})
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return results


def growth_table(results: list[dict[str, Any]]) -> str:
    """Return the figures as a table: milliseconds, how many times faster, and MiB."""
    lines = []
    for point in results:
        seconds, memory = point["seconds"], point["bytes"]
        there = "torch" in seconds
        lines.append(
            [
                f"N = {point['batch']}, R = {point['attacks']}",
                f"{1e3 * seconds['tinyleak']:.2f}",
                f"{1e3 * seconds['torch']:.2f}" if there else "-",
                f"{seconds['torch'] / seconds['tinyleak']:.2f}×" if there else "-",
                f"{memory['tinyleak'] / 2**20:.1f}",
                f"{memory['torch'] / 2**20:.1f}" if there else "-",
            ]
        )
    header = ["", "tinyleak ms", "PyTorch ms", "faster", "tinyleak MiB", "PyTorch MiB"]
    return table(header, lines)


def slower(results: list[dict[str, Any]]) -> str:
    """Say where PyTorch is faster, if anywhere."""
    points = [
        f"N = {point['batch']}, R = {point['attacks']}"
        for point in results
        if point["seconds"]["tinyleak"] > point["seconds"].get("torch", float("inf"))
    ]
    return f"Slower than PyTorch at: {'; '.join(points) or 'none of these'}."


def plot(growth: dict[str, list[dict[str, Any]]], dtype: str, path: Path) -> None:
    """Draw time and memory against N and against R, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(8, 6), sharex="col", constrained_layout=True)
    columns = [("batch", "images in the batch, N"), ("attacks", "attacks at once, R")]
    for column, (size, label) in enumerate(columns):
        points = growth[size]
        for name in points[0]["seconds"]:
            sizes = [point[size] for point in points]
            seconds = [1e3 * point["seconds"][name] for point in points]
            memory = [point["bytes"][name] / 2**20 for point in points]
            style = {"color": COLOURS[name], "marker": "o", "markersize": 4, "linewidth": 1.5}
            axes[0, column].plot(sizes, seconds, label=TITLES[name], **style)
            axes[1, column].plot(sizes, memory, label=TITLES[name], **style)
        for axis in axes[:, column]:
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks(sizes, [str(one) for one in sizes])
            axis.grid(visible=True, color="0.9")
            axis.spines[["top", "right"]].set_visible(False)
        axes[1, column].set_xlabel(label)
    axes[0, 0].set_title("a larger batch (R = 1)")
    axes[0, 1].set_title("more attacks (N = 1; PyTorch in a loop)")
    axes[0, 0].set_ylabel("ms for one evaluation")
    axes[1, 0].set_ylabel("peak memory, MiB")
    axes[0, 0].legend(frameon=False)
    figure.suptitle(f"The attack's objective, LeNet on 1×28×28 images, {dtype}, one thread")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Measure, print and draw what the command line asks for."""
    parser = argparse.ArgumentParser(description="how time and memory grow with N and R")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where to write")
    parser.add_argument("--turns", type=int, default=15, help="turns of each library (15)")
    parser.add_argument("--quick", action="store_true", help="one point, one turn: a smoke test")
    parser.add_argument("--point", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point is not None:
        library, batch, attacks, dtype = options.point
        print(grow(library, int(batch), int(attacks), dtype))
        return 0
    turns = 1 if options.quick else options.turns
    batches, attacks = ((), (2,)) if options.quick else (BATCHES, ATTACKS)
    larger = measure([(count, 1) for count in batches], options.dtype, turns)
    more = measure([(1, count) for count in attacks], options.dtype, turns)
    print(growth_table([*larger, *more]))
    print(f"\n{slower([*larger, *more])}")
    if not options.quick:
        growth = {"batch": larger, "attacks": [larger[0], *more]}
        plot(growth, options.dtype, options.out / f"growth-{options.dtype}.png")
        content = {"environment": environment(), "dtype": options.dtype, **growth}
        write_json(options.out / f"growth-{options.dtype}.json", content)
    return 0


if __name__ == "__main__":
    sys.exit(main())

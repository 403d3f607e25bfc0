"""Compare tinyleak's speed with PyTorch's and JAX's, side by side in one run.

    python benchmarks/compare.py
    python benchmarks/compare.py --device cuda

What is timed is the whole objective of the attack: the distance between gradients and its own
gradient, LeNet on MNIST's shapes. One thread, in turns, medians of processor time. The goals stand
in `ROWS`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from timing import Contestant, environment, medians, table, write_json

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
from problems import Problem, installed

from tinyleak.optim import lbfgs
from tinyleak.program import trace

PEERS = {"torch": "PyTorch", "jax": "JAX jit"}


class Row(NamedTuple):
    """A line of the table: a problem's size, and how many times faster than each peer to be."""

    title: str
    batch: int
    attacks: int
    dtype: str
    goals: dict[str, float]


ROWS = [
    Row("N = 1, float32", 1, 1, "float32", {"torch": 8.0, "jax": 2.5}),
    Row("N = 1, float64", 1, 1, "float64", {"torch": 4.0, "jax": 4.0}),
    Row("N = 8, float64", 8, 1, "float64", {"torch": 2.0, "jax": 5.0}),
    Row("16 attacks at once, float32, each", 1, 16, "float32", {"torch": 8.0, "jax": 8.0}),
]
TRACING_GOAL = 20.0
IMPORT_GOAL = 0.25
LBFGS_GOAL = 0.15e-3


def compare_objective(row: Row, turns: int) -> dict[str, Any]:
    """Time one row's evaluation in every library that is installed."""
    problem = Problem.draw(row.batch, row.attacks, row.dtype)
    contestants = {"tinyleak": Contestant(problem.ours(), row.attacks)}
    if installed("torch"):
        contestants["torch"] = Contestant(problem.torch(), row.attacks)
    if installed("jax"):
        contestants["jax"] = Contestant(problem.jax(), row.attacks)
    seconds = medians(contestants, turns)
    ratios = {peer: seconds[peer] / seconds["tinyleak"] for peer in PEERS if peer in seconds}
    met = {peer: ratio >= row.goals[peer] for peer, ratio in ratios.items()}
    return {
        "title": row.title,
        "seconds": seconds,
        "ratios": ratios,
        "goals": row.goals,
        "met": met,
    }


def objective_table(results: list[dict[str, Any]]) -> str:
    """Return the table of milliseconds and ratios."""
    lines = []
    for result in results:
        cells = [result["title"], f"{1e3 * result['seconds']['tinyleak']:.3f}"]
        for peer in PEERS:
            there = peer in result["ratios"]
            cells.append(f"{1e3 * result['seconds'][peer]:.3f}" if there else "not installed")
        for peer in PEERS:
            goal = f"goal {result['goals'][peer]:g}×"
            if peer in result["ratios"]:
                verdict = "met" if result["met"][peer] else "MISSED"
                cells.append(f"{result['ratios'][peer]:.1f}× ({goal}: {verdict})")
            else:
                cells.append(f"- ({goal})")
        lines.append(cells)
    names = list(PEERS.values())
    header = ["ms an evaluation", "tinyleak", *names, *(f"faster than {name}" for name in names)]
    return table(header, lines)


def tracing_cost(row: Row, repetitions: int) -> dict[str, Any]:
    """Return what tracing the objective costs, in seconds and in evaluations of its program."""
    problem = Problem.draw(row.batch, row.attacks, row.dtype)
    evaluate = problem.matching().value_and_gradient
    z = problem.z[0] if problem.attacks == 1 else problem.z
    costs, evaluations = [], []
    program = None
    for _ in range(repetitions):
        del program  # which takes a while, and is not part of tracing
        start = time.process_time()
        program = trace(evaluate, z, check=False)
        costs.append(time.process_time() - start)
        for _ in range(20):
            start = time.process_time()
            program(z)
            evaluations.append(time.process_time() - start)
    cost, evaluation = median(costs), median(evaluations)
    return {"title": row.title, "seconds": cost, "evaluations": cost / evaluation}


def import_seconds(modules: str, repetitions: int) -> float:
    """Return the median time to import modules in a fresh interpreter."""
    code = (
        "import time; start = time.process_time(); "
        f"import {modules}; print(time.process_time() - start)"
    )
    root = Path(__file__).resolve().parents[1]
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
        for _ in range(repetitions)
    ]
    return median(float(run.stdout) for run in runs)


def badly_scaled(n: int) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return a start, and the gradient of a quadratic that L-BFGS takes long to minimise."""
    curvatures = np.geomspace(1e-3, 1e3, n)
    return np.ones(n), lambda x: curvatures * x


def our_lbfgs_seconds(n: int, history: int, iterations: int) -> float:
    """Return the median time of an iteration with a full history, besides the objective."""
    start, gradient = badly_scaled(n)
    inside = [0.0]

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        began = time.process_time()
        g = gradient(x)
        value = 0.5 * float(g @ x)
        inside[0] += time.process_time() - began
        return value, g

    spent, began = [], time.process_time()
    iterates = lbfgs(
        objective, start, history=history, max_iterations=iterations, tolerance_change=0.0
    )
    for _ in iterates:
        now = time.process_time()
        spent.append(now - began - inside[0])
        inside[0], began = 0.0, now
    return median(spent[history + 1 :])


def torch_lbfgs_seconds(n: int, history: int, iterations: int) -> float:
    """Return the same of PyTorch's L-BFGS, without a line search, from closure to closure."""
    import torch

    start, _ = badly_scaled(n)
    curvatures = torch.as_tensor(np.geomspace(1e-3, 1e3, n))
    x = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [x],
        max_iter=iterations,
        max_eval=2 * iterations,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        history_size=history,
    )
    spent: list[float] = []
    left = time.process_time()

    def closure() -> torch.Tensor:
        nonlocal left
        spent.append(time.process_time() - left)
        x.grad = curvatures * x.detach()
        value = 0.5 * (x.grad * x.detach()).sum()
        left = time.process_time()
        return value

    optimiser.step(closure)
    return median(spent[history + 1 :])


def report(turns: int, quick: bool) -> dict[str, Any]:
    """Run everything on the CPU, print it, and return it."""
    repetitions = 1 if quick else 15
    rows = ROWS[:1] if quick else ROWS
    objective = [compare_objective(row, turns) for row in rows]
    print(objective_table(objective), flush=True)

    tracing = [tracing_cost(row, repetitions) for row in rows]
    print()
    for line in tracing:
        print(
            f"tracing, {line['title']}: {1e3 * line['seconds']:.1f} ms, as much as "
            f"{line['evaluations']:.1f} evaluations (goal: under {TRACING_GOAL:g})",
            flush=True,
        )
    imports = {
        what: import_seconds(what, repetitions)
        for what in ("tinyleak", "tinyleak.attacks", "tinyleak.attacks, tinyleak.data, tinyleak.nn")
    }
    for what, seconds in imports.items():
        print(f"import {what}: {seconds:.3f} s (goal: under {IMPORT_GOAL:g})", flush=True)

    iterations = 110 if quick else 400
    lbfgs_seconds = {"tinyleak": our_lbfgs_seconds(794, 100, iterations)}
    if installed("torch"):
        lbfgs_seconds["torch"] = torch_lbfgs_seconds(794, 100, iterations)
    print(
        "an L-BFGS iteration besides the objective, n = 794, history 100: "
        + ", ".join(f"{name} {1e3 * value:.3f} ms" for name, value in lbfgs_seconds.items())
        + f" (goal: at most {1e3 * LBFGS_GOAL:g})"
    )
    return {
        "environment": environment(),
        "objective": objective,
        "tracing": tracing,
        "import": imports,
        "lbfgs": lbfgs_seconds,
    }


def main() -> int:
    """Run the comparison that the command line asks for."""
    parser = argparse.ArgumentParser(description="tinyleak's speed beside PyTorch's and JAX's")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--turns", type=int, default=40, help="turns of each library (40)")
    parser.add_argument("--quick", action="store_true", help="one row, one turn: a smoke test")
    options = parser.parse_args()
    turns = 1 if options.quick else options.turns
    if options.device == "cuda":
        from gpu import report_gpu

        results = report_gpu(turns)
    else:
        results = report(turns, options.quick)
    if options.json is not None:
        write_json(options.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

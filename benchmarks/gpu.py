"""The comparison on a GPU: ours as a CUDA graph beside PyTorch, eager and as a CUDA graph.

Nothing leaves the GPU but each evaluation's value, which an attack reads once an iteration. That
read also makes the clock wait for the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from peers import torch_matching
from problems import Problem, installed
from recipes import GOALS, Ours, PyTorch, Row, Triple
from timing import Contestant, environment, medians, table

from tinyleak.attacks import Settings
from tinyleak.backend import DeviceError, device_module, to_numpy

Call = Callable[[], object]

ONE_GOAL = 10.0
MANY = 256
MANY_GOAL = 100.0
LOOPED = 4


def report_gpu(turns: int) -> dict[str, Any]:
    """Run everything on the GPU, print it, and return it.

    Raises:
        SystemExit: there is no GPU, or no CuPy, or no PyTorch that sees the GPU.
    """
    _require_gpu()
    objective = [
        compare(attacks, dtype, turns) for attacks in (1, MANY) for dtype in ("float32", "float64")
    ]
    names = ["tinyleak", "PyTorch eager", "PyTorch graph"]
    lines = []
    for result in objective:
        rates = result["evaluations_per_second"]
        cells = [f"{rates[name]:,.0f}" if name in rates else "refused" for name in names]
        ratio = f"{result['ratio']:.1f}× (goal {result['goal']:g}×)"
        lines.append([result["title"], *cells, ratio])
    header = ["evaluations a second", *names, "faster than eager"]
    print(table(header, lines), flush=True)
    attacks = whole_attacks(MANY)
    for name, one in attacks.items():
        print(
            f"{name}: {one['attacks_per_second']:.2f} attacks a second from noise to a distance "
            f"of {GOALS['U']:g}, {one['successes']} of {one['attacks']} successful"
        )
    return {"environment": environment(), "objective": objective, "attacks": attacks}


def _require_gpu() -> None:
    try:
        device_module("cuda")
    except DeviceError as error:
        raise SystemExit(f"compare.py --device cuda: {error}") from None
    if not installed("torch"):
        raise SystemExit("compare.py --device cuda: PyTorch, to compare with, is not installed")
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(
            "compare.py --device cuda: CuPy finds a GPU but PyTorch does not; "
            "install a PyTorch that was built for CUDA"
        )


def compare(attacks: int, dtype: str, turns: int) -> dict[str, Any]:
    """Time one evaluation of so many attacks; PyTorch takes several in a loop."""
    problem = Problem.draw(1, attacks, dtype)
    contestants = {
        "tinyleak": Contestant(_ours(problem), attacks),
        # A loop costs the same an evaluation however long it is.
        "PyTorch eager": Contestant(_torch_eager(problem)),
    }
    graph = _torch_graph(problem)
    if graph is not None:
        contestants["PyTorch graph"] = Contestant(graph)
    seconds = medians(contestants, turns, clock=time.perf_counter)
    rates = {name: 1.0 / value for name, value in seconds.items()}
    return {
        "title": f"{attacks} at once, {dtype}" if attacks > 1 else f"one attack, {dtype}",
        "evaluations_per_second": rates,
        "ratio": rates["tinyleak"] / rates["PyTorch eager"],
        "goal": ONE_GOAL if attacks == 1 else MANY_GOAL,
    }


def _ours(problem: Problem) -> Call:
    evaluate = problem.ours("cuda")

    def call() -> np.ndarray:
        values, _ = evaluate()
        return to_numpy(values)

    return call


def _torch_eager(problem: Problem) -> Call:
    import torch

    objective = torch_matching(problem.params, problem.shared, problem.batch, "cuda")
    z = torch.tensor(problem.z[0], device="cuda")

    def call() -> float:
        value, _ = objective(z)
        return value.item()

    return call


def _torch_graph(problem: Problem) -> Call | None:
    """Return PyTorch's evaluation as a CUDA graph, or None, with the reason, if it refuses.

    `torch.cuda.make_graphed_callables` does not support a gradient of a gradient, so the whole
    evaluation is captured by hand, both gradients in one graph.
    """
    import torch

    objective = torch_matching(problem.params, problem.shared, problem.batch, "cuda")
    z = torch.tensor(problem.z[0], device="cuda")
    z_next = z.clone()
    try:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # its libraries must have chosen their kernels before
            for _ in range(3):
                expected, _ = objective(z)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value, _ = objective(z)
        graph.replay()
        if not torch.allclose(value, expected, rtol=1e-3):
            raise RuntimeError("the graph's value is not the eager one's")
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        print(f"PyTorch's evaluation was not captured as a CUDA graph: {reason}")
        return None

    def call() -> float:
        z.copy_(z_next)  # as an attack would, which evaluates a new dummy each time
        graph.replay()
        return value.item()

    return call


def whole_attacks(count: int) -> dict[str, dict[str, Any]]:
    """Attack so many clients from noise to the goal: ours as one program, PyTorch's in a loop."""
    triples = [Triple("glyphs", "U", seed) for seed in range(count)]
    ours = Ours(Settings(goal=GOALS["U"]), device="cuda")
    theirs = PyTorch("float64", "strong_wolfe", GOALS["U"], device="cuda")
    ours.run(triples[:2])  # compiles what is compiled once
    return {
        f"tinyleak, {count} at once": _rate(ours.run(triples)),
        "PyTorch, float64, strong Wolfe, in a loop": _rate(
            [row["at_goal"] or row for row in theirs.run(triples[:LOOPED])]
        ),
    }


def _rate(rows: list[Row]) -> dict[str, Any]:
    return {
        "attacks": len(rows),
        "successes": sum(row["succeeded"] for row in rows),
        "attacks_per_second": len(rows) / sum(row["seconds"] for row in rows),
    }

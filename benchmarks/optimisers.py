"""L-BFGS and least squares on standard problems, beside SciPy's, PyTorch's and optax's.

    python benchmarks/optimisers.py

A run counts as a success when it ends at a known local minimum: nearer to its value than 10⁻⁶ of
that value, or than 10⁻⁹ of the way down from the start. Its evaluations are those until it first
was there; so it does not matter when each library thinks that it is done. All get the same values
and gradients, computed for R problems in one call where the library can use that.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from timing import environment

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
from problems import installed
from scipy.optimize import least_squares, minimize
from standard_problems import BEYOND, MGH, NIST, Problem

from tinyleak.optim import lbfgs, lbfgs_many, levenberg_marquardt

MOST, FEW = 3000, 500
"""Evaluations of a run, at most; and of one of many."""

SIDE_BY_SIDE = 256
AT_ONCE = (1, 5, 7, 8, 15, 21, 28, 30, 35)
"""The problems whose starts, spread as below, all lead to one minimum in a few evaluations."""
SPREAD = 0.1
"""How far the starts of the R problems are from the standard one, relative to its size."""

BOUNDED = 0.05
"""How far the bounds are from the solution, relative to its size, in the problems with bounds."""


class Run(NamedTuple):
    """How a run ended: the value, evaluations until it was there (None: never), and seconds."""

    value: float
    evaluations: int | None
    seconds: float
    said: str


class Counter:
    """A problem's value and gradient, which remembers every value, and the last gradient."""

    def __init__(self, problem: Problem, goal: float = -np.inf) -> None:
        self.problem, self.goal = problem, goal
        self.values: list[float] = []

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        values, gradients = self.problem.values_and_gradients(np.asarray(x, float)[None])
        self.values.append(float(values[0]))
        self.gradient = gradients[0]
        if self.values[-1] <= self.goal:
            raise ThereError
        return self.values[-1], self.gradient


def reached(problem: Problem, first: float, value: float) -> float | None:
    """Return the value at or below which it counts as there, if it is at a minimum."""
    for minimum in problem.minima:
        enough = minimum + max(1e-6 * abs(minimum), 1e-9 * (first - minimum))
        if minimum - 1e-6 * abs(minimum) - 1e-12 <= value <= enough:
            return enough
    return None


def judged(problem: Problem, values: Sequence[float], end: float, seconds: float, said: str) -> Run:
    """Return how a run ended that went through these values."""
    enough = reached(problem, values[0], end)
    there = None
    if enough is not None:
        there = 1 + next(n for n, value in enumerate(values) if value <= enough)
    return Run(end, there, seconds, said)


def ours(problem: Problem) -> Run:
    """Minimise by tinyleak's L-BFGS."""
    f, began = Counter(problem), time.process_time()
    start, limits = np.array(problem.start, float), {"max_iterations": MOST}
    (*_, last) = lbfgs(f, start, max_evaluations=MOST, **limits)
    assert last.reason is not None
    return judged(problem, f.values, last.value, time.process_time() - began, last.reason)


def scipys(problem: Problem) -> Run:
    """Minimise by SciPy's L-BFGS-B, as long as it makes progress, remembering as many steps."""
    f, began = Counter(problem), time.process_time()
    options = {"maxcor": 100, "maxfun": MOST, "maxiter": MOST, "ftol": 0.0, "gtol": 1e-14}
    with np.errstate(all="ignore"):
        found = minimize(f, problem.start, jac=True, method="L-BFGS-B", options=options)
    seconds = time.process_time() - began
    return judged(problem, f.values, float(found.fun), seconds, str(found.message)[:30])


def pytorchs(problem: Problem) -> Run:
    """Minimise by PyTorch's L-BFGS with its strong Wolfe line search."""
    import torch

    f, began = Counter(problem), time.process_time()
    x = torch.tensor(np.array(problem.start, float), requires_grad=True)
    settings: dict[str, Any] = {"max_iter": MOST, "max_eval": MOST, "history_size": 100}
    settings |= {"tolerance_grad": 1e-14, "tolerance_change": 0.0}
    optimiser = torch.optim.LBFGS([x], line_search_fn="strong_wolfe", **settings)

    def closure() -> Any:
        value, gradient = f(x.detach().numpy())
        x.grad = torch.from_numpy(gradient.copy())
        return torch.tensor(value, dtype=torch.float64)

    optimiser.step(closure)
    seconds = time.process_time() - began
    end = f(x.detach().numpy())[0]
    return judged(problem, f.values, end, seconds, "")


def optaxs(problem: Problem) -> Run:
    """Minimise by optax's L-BFGS with its zoom line search."""
    import jax
    import jax.numpy as jnp
    import optax

    jax.config.update("jax_enable_x64", True)
    f, began = Counter(problem), time.process_time()
    x = jnp.array(np.array(problem.start, float))
    scalar, vector = (jax.ShapeDtypeStruct(shape, x.dtype) for shape in ((), x.shape))

    @jax.custom_vjp
    def value_of(z: Any) -> Any:
        return jax.pure_callback(lambda q: np.float64(f(q)[0]), scalar, z)

    def forward(z: Any) -> Any:
        return jax.pure_callback(lambda q: (np.float64(f(q)[0]), f.gradient), (scalar, vector), z)

    value_of.defvjp(forward, lambda gradient, cotangent: (cotangent * gradient,))
    solver = optax.lbfgs(memory_size=100)
    evaluate = optax.value_and_grad_from_state(value_of)  # what the line search saw last

    @jax.jit
    def step(x: Any, state: Any) -> Any:
        value, gradient = evaluate(x, state=state)
        told = {"value": value, "grad": gradient, "value_fn": value_of}
        updates, state = solver.update(gradient, state, x, **told)
        return optax.apply_updates(x, updates), state, value, jnp.abs(gradient).max()

    state, steepest = solver.init(x), np.inf
    while len(f.values) < MOST and steepest > 1e-14:
        moved, state, value, steepest = step(x, state)
        if not np.isfinite(value) or bool((moved == x).all()):
            break
        x = moved
    seconds = time.process_time() - began
    return judged(problem, f.values, f(np.asarray(x))[0], seconds, "")


class Squares:
    """A problem as the least squares of tinyleak take it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.values: list[float] = []

    def value(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            r = self.problem.residual(x)
            self.values.append(float(r @ r))
        return r

    def slope(self, x: np.ndarray, r: np.ndarray) -> np.ndarray:
        return self.jacobian(x) @ r

    def gram(self, x: np.ndarray) -> np.ndarray:
        J = self.jacobian(x)
        return J @ J.T

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        return self.problem.residual_and_jacobian(x)[1]


def our_squares(problem: Problem, bounds: tuple[Any, Any]) -> Run:
    """Minimise by tinyleak's Levenberg–Marquardt."""
    residual, began = Squares(problem), time.process_time()
    (*_, last) = levenberg_marquardt(
        residual,
        np.array(problem.start, float),
        lowest=bounds[0],
        highest=bounds[1],
        max_iterations=MOST,
    )
    assert last.reason is not None
    return judged(problem, residual.values, last.value, time.process_time() - began, last.reason)


def scipys_squares(method: str) -> Callable[[Problem, tuple[Any, Any]], Run]:
    """Return what minimises by SciPy's `least_squares`."""

    def run(problem: Problem, bounds: tuple[Any, Any]) -> Run:
        residual, began = Squares(problem), time.process_time()
        end, said = np.nan, "failed"
        start = np.clip(problem.start, *bounds)
        # `lm` asks for `ftol` above the rounding, and has its own count.
        limits = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": MOST}
        try:
            with np.errstate(all="ignore"):
                found = least_squares(
                    residual.value,
                    start,
                    jac=lambda x: residual.jacobian(x).T,
                    method=method,
                    bounds=bounds,
                    x_scale="jac",
                    **limits,
                )
            end, said = 2 * float(found.cost), str(found.status)
        except ValueError as error:
            said = str(error)[:30]
        seconds = time.process_time() - began
        return judged(problem, residual.values or [end], end, seconds, said)

    return run


def table(runs: dict[str, dict[str, Run]], title: str) -> str:
    """Return a line for each problem, and a summary of each solver."""
    solvers = list(next(iter(runs.values())))
    width = max(map(len, runs))
    lines = [f"## {title}", "", "evaluations until a minimum was reached, or where it ended", ""]
    lines.append(f"{'':<{width}}" + "".join(f"{name:>22}" for name in solvers))
    for problem, found in runs.items():
        cells = [
            str(run.evaluations) if run.evaluations else f"- ({run.value:.6g})"
            for run in found.values()
        ]
        lines.append(f"{problem:<{width}}" + "".join(f"{cell:>22}" for cell in cells))
    lines.append("")
    common = [found for found in runs.values() if all(run.evaluations for run in found.values())]
    spent = {n: np.array([found[n].evaluations or 0 for found in common]) for n in solvers}
    ratios = {n: np.exp(np.log(spent[n] / spent["tinyleak"]).mean()) for n in solvers}
    for name in solvers:
        failures = [problem for problem, found in runs.items() if not found[name].evaluations]
        total = sum(found[name].seconds for found in runs.values())
        lines.append(
            f"{name:<12} {len(failures)} failures, median of {np.median(spent[name]):g} "
            f"evaluations over the {len(common)} that all solve, {ratios[name]:.2f} times ours "
            f"(geometric mean), {total:.2f} s in all"
        )
    return "\n".join([*lines, ""])


class ThereError(Exception):
    """Raised by an objective to end a search that has reached its goal."""


def side_by_side(problems: Sequence[Problem]) -> str:
    """Return how long R problems take to reach a minimum, at once and one after the other."""
    rng = np.random.default_rng(0)
    lines = [f"## {SIDE_BY_SIDE} starts of each problem", ""]
    lines.append(f"{'':<26}{'ours at once':>22}{'SciPy in a loop':>22}{'faster':>10}")
    ratios, failures = [], [0, 0]
    for problem in problems:
        start = np.array(problem.start, float)
        scale = SPREAD * np.where(start == 0, 1.0, np.abs(start))
        starts = start + scale * rng.standard_normal((SIDE_BY_SIDE, len(start)))
        first = problem.values_and_gradients(starts)[0]
        minimum = max(problem.minima)
        goals = minimum + np.maximum(1e-6 * minimum, 1e-9 * (first - minimum))
        began = time.process_time()
        (*_, last) = lbfgs_many(
            lambda x, rows, problem=problem: problem.values_and_gradients(x),
            *(starts,),
            goal=goals,
            max_evaluations=FEW,
        )
        mine, ends = time.process_time() - began, []
        began = time.process_time()
        for row, goal in zip(starts, goals, strict=True):
            f = Counter(problem, goal)
            options = {"maxcor": 100, "maxfun": FEW, "maxiter": FEW, "ftol": 0.0, "gtol": 1e-14}
            with contextlib.suppress(ThereError), np.errstate(all="ignore"):
                minimize(f, row, jac=True, method="L-BFGS-B", options=options)
            ends.append(np.nanmin(f.values))
        theirs = time.process_time() - began
        missed = [
            sum(not value <= goal for value, goal in zip(values, goals, strict=True))
            for values in (last.values, ends)
        ]
        failures = [a + b for a, b in zip(failures, missed, strict=True)]
        ratios.append(theirs / mine)
        cells = [f"{s:.2f} s, {m} missed" for s, m in zip((mine, theirs), missed, strict=True)]
        lines.append(f"{problem.name:<26}{cells[0]:>22}{cells[1]:>22}{ratios[-1]:>9.1f}x")
    lines += ["", f"median: {median(ratios):.1f} times as fast; missed in all: {failures}"]
    return "\n".join([*lines, ""])


def bounded(problems: Sequence[Problem]) -> list[tuple[Problem, tuple[Any, Any]]]:
    """Return problems whose first unknown may not go where it would, and what SciPy finds there."""
    found = []
    for problem in problems:
        start = np.array(problem.start, float)
        with np.errstate(all="ignore"):
            free = least_squares(
                problem.residual,
                start,
                jac=lambda x, p=problem: p.residual_and_jacobian(x)[1].T,
                method="lm",
                max_nfev=MOST,
            ).x
        low, high = np.full(len(start), -np.inf), np.full(len(start), np.inf)
        gap = BOUNDED * max(abs(free[0]), 1e-3)
        if start[0] > free[0]:
            low[0] = free[0] + gap
        else:
            high[0] = free[0] - gap
        if not (low < start).all() or not (start < high).all():
            continue
        found.append((problem, (low, high)))
    return found


def main() -> None:
    """Run all, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few problems only")
    quick = parser.parse_args().quick
    few = slice(3) if quick else slice(None)
    solvers: dict[str, Callable[[Problem], Run]] = {"tinyleak": ours, "SciPy": scipys}
    solvers |= {"PyTorch": pytorchs} if installed("torch") else {}
    solvers |= {"optax": optaxs} if installed("optax") and installed("jax") else {}
    print(environment(), end="\n\n")
    for title, problems in (
        ("L-BFGS, Moré, Garbow and Hillstrom", MGH),
        ("L-BFGS, beyond", BEYOND),
    ):
        runs = {
            problem.name: {name: solve(problem) for name, solve in solvers.items()}
            for problem in problems[few]
        }
        print(table(runs, title), flush=True)
    alike = [problem for problem in MGH if int(problem.name.split()[0].rstrip(",")) in AT_ONCE]
    print(side_by_side(alike[few]), flush=True)
    free = (-np.inf, np.inf)
    fits = [problem for fit in NIST for problem in fit.problems()]
    squares = {
        "tinyleak": our_squares,
        "SciPy lm": scipys_squares("lm"),
        "SciPy trf": scipys_squares("trf"),
    }
    for title, problems in (("Least squares, NIST", fits), ("Least squares, MGH", MGH)):
        runs = {
            problem.name: {name: solve(problem, free) for name, solve in squares.items()}
            for problem in problems[few]
        }
        print(table(runs, title), flush=True)
    pairs = bounded([*fits, *MGH][few])
    runs = {}
    for problem, bounds in pairs:
        two = {
            "tinyleak": our_squares(problem, bounds),
            "SciPy trf": scipys_squares("trf")(problem, bounds),
        }
        best = min((run.value for run in two.values() if np.isfinite(run.value)), default=np.nan)
        told = Problem(problem.name, problem.residual, problem.start, (best,))
        first = float((problem.residual(np.array(problem.start, float)) ** 2).sum())
        runs[problem.name] = {
            name: run._replace(evaluations=1 if reached(told, first, run.value) else None)
            for name, run in two.items()
        }
    print(
        table(runs, "Least squares with a bound: 1 where the better of the two values is reached")
    )


if __name__ == "__main__":
    main()

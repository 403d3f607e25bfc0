"""What many attacks come to: the tables that `success.py` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, TypeAlias

from recipes import Row, Triple
from timing import table

from tinyleak.metrics import wilson_interval

TITLES = {
    "default": "tinyleak, default",
    "paper": "tinyleak, the paper's recipe",
    "goal": "tinyleak, float32, to the goal",
    "many": "tinyleak, float32, to the goal, many at once",
    "torch-paper": "PyTorch, the paper's recipe",
    "torch-best": "PyTorch, float64, strong Wolfe",
    "torch-paper at goal": "PyTorch, the paper's recipe, to the goal",
    "torch-best at goal": "PyTorch, float64, strong Wolfe, to the goal",
}
SPEED_GOALS = {"torch-paper": 25.0, "torch-best": 8.0}

Rows: TypeAlias = Mapping[str, Mapping[Triple, Row]]
"""By recipe, then by triple."""


def with_ended_peers(rows: Rows) -> Rows:
    """Return the rows, and PyTorch's as if its recipes had ended on reaching our goal.

    An attack that never reached it costs its whole time and failed, as nobody would know.
    """
    ended = {
        f"{name} at goal": {
            triple: row["at_goal"] or row | {"succeeded": False}
            for triple, row in rows[name].items()
        }
        for name in SPEED_GOALS
    }
    return {**rows, **ended}


def of_init(rows: Rows, init: str) -> Rows:
    """Return the rows of one initialisation, without the recipes that have none."""
    chosen = {
        name: {triple: row for triple, row in rows[name].items() if triple.init == init}
        for name in TITLES
    }
    return {name: mine for name, mine in chosen.items() if mine}


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what many attacks by one recipe come to."""
    successes = sum(row["succeeded"] for row in rows)
    return {
        "triples": len(rows),
        "successes": successes,
        "interval": wilson_interval(successes, len(rows)),
        "labels_right": sum(row["found"] == row["label"] for row in rows),
        "median_mse": median(row["mse"] for row in rows),
        "median_evaluations": median(row["evaluations"] for row in rows),
        "cpu_seconds_per_success": _per_success(rows, "cpu_seconds"),
        "seconds_per_success": _per_success(rows, "seconds"),
    }


def success_table(summaries: Mapping[str, dict[str, Any]]) -> str:
    """Return a line for each recipe."""
    lines = []
    for name, one in summaries.items():
        low, high = one["interval"]
        lines.append(
            [
                TITLES[name],
                f"{one['successes']}/{one['triples']}",
                f"{100 * low:.1f} to {100 * high:.1f} %",
                f"{one['labels_right']}/{one['triples']}",
                f"{one['median_mse']:.1e}",
                f"{one['median_evaluations']:.0f}",
                _seconds(one["cpu_seconds_per_success"]),
                _seconds(one["seconds_per_success"]),
            ]
        )
    header = ["recipe", "success", "95 % interval", "label right", "median MSE"]
    return table(
        [*header, "median evaluations", "CPU s a success", "s a success by the clock"], lines
    )


def failures(rows: Rows) -> list[str]:
    """Return a line for each attack of ours that failed, and a count for the other recipes."""
    lines = []
    for name, mine in rows.items():
        failed = {triple: row for triple, row in mine.items() if not row["succeeded"]}
        if name in ("default", "goal", "many"):
            lines += [
                f"{TITLES[name]}: {triple.init} seed {triple.seed} {row['reason']}, "
                f"distance {row['distance']:.1e}, MSE {row['mse']:.1e}, "
                f"label {row['found']} for {row['label']}"
                for triple, row in sorted(failed.items())
            ]
        elif failed:
            reasons = Counter(row["reason"] for row in failed.values())
            counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            lines.append(f"{TITLES[name]}: {len(failed)} failed ({counts})")
    return lines


def speed(rows: Rows) -> dict[str, Any]:
    """Return the processor seconds a success of each recipe, on the triples that all have run."""
    common = set.intersection(*(set(mine) for mine in rows.values()))
    return {
        "triples": len(common),
        "cpu_seconds_per_success": {
            name: _per_success([mine[triple] for triple in common], "cpu_seconds")
            for name, mine in rows.items()
        },
    }


def speed_table(numbers: dict[str, Any]) -> str:
    """Return how many times faster our recipes reach a success than each of PyTorch's."""
    costs = numbers["cpu_seconds_per_success"]
    ours = [name for name in ("default", "goal", "many") if name in costs]
    lines = []
    for peer in (name for name in costs if name.startswith("torch")):
        cells = [TITLES[peer], _seconds(costs[peer])]
        for name in ours:
            if costs[peer] is None or costs[name] is None:
                cells.append("-")
                continue
            goal = SPEED_GOALS.get(peer) if name != "default" else None
            verdict = "" if goal is None else f" (goal {goal:g}×)"
            cells.append(f"{costs[peer] / costs[name]:.1f}×{verdict}")
        lines.append(cells)
    header = ["CPU s a success", "", *(f"{TITLES[name]}: {_seconds(costs[name])}" for name in ours)]
    return table(header, lines)


def _per_success(rows: Sequence[Row], kind: str) -> float | None:
    """Return what a success costs, the attacks that failed included."""
    successes = sum(row["succeeded"] for row in rows)
    return sum(row[kind] for row in rows) / successes if successes else None


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

"""The benchmarks run, resume where they were, and compare like with like."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinyleak.attacks import Matching, starting_point
from tinyleak.client import simulate
from tinyleak.nn import LeNet
from tinyleak.tensor import Tensor

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import peers  # noqa: E402  # the benchmarks are scripts, not a package
import success  # noqa: E402
import success_tables  # noqa: E402
import timing  # noqa: E402
from recipes import Triple  # noqa: E402


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def problem(batch: int, attacks: int) -> tuple[LeNet, dict, dict, np.ndarray]:
    model = LeNet()
    rng = np.random.default_rng(3)
    images, labels = rng.random((batch, 1, 28, 28)), rng.integers(10, size=batch)
    client, _ = simulate(model, images, labels, seed=5)
    return model, client.params, client.gradients, starting_point(model, batch, 7, attacks)


def assert_same_objective(objective: peers.Objective, z: np.ndarray, batch: int) -> None:
    model, params, shared, dummies = problem(batch, attacks=len(np.atleast_2d(z)))
    matching = Matching(model, params, shared, batch, np.asarray(1.0))
    values, gradients = (found.data for found in matching.value_and_gradient(Tensor(dummies)))
    value, gradient = objective(z)
    np.testing.assert_allclose(value, values.reshape(value.shape), rtol=1e-9)
    expected = gradients.reshape(gradient.shape)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_pytorch_has_our_objective() -> None:
    pytest.importorskip("torch")
    _, params, shared, z = problem(batch=3, attacks=1)
    assert_same_objective(peers.torch_objective(params, shared, 3), z[0], batch=3)


def test_jax_has_our_objective() -> None:
    pytest.importorskip("jax")
    _, params, shared, z = problem(batch=3, attacks=1)
    assert_same_objective(peers.jax_objective(params, shared, 3), z[0], batch=3)


def test_jax_has_our_objective_of_many_attacks_at_once() -> None:
    pytest.importorskip("jax")
    _, params, shared, z = problem(batch=1, attacks=2)
    assert_same_objective(peers.jax_objective(params, shared, 1, many=True), z, batch=1)


@pytest.mark.parametrize(
    "script", ["audit.py", "compare.py", "growth.py", "recursion.py", "success.py"]
)
def test_help(script: str) -> None:
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


def test_a_quick_comparison_prints_its_table_and_writes_the_figures(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = run("compare.py", "--quick", "--json", str(path))
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text())
    assert "| N = 1, float32" in done.stdout
    assert all(row["seconds"]["tinyleak"] > 0 for row in figures["objective"])
    assert figures["lbfgs"]["tinyleak"] > 0


def test_a_comparison_on_a_gpu_that_is_not_there_says_so_in_one_line() -> None:
    done = run("compare.py", "--device", "cuda", "--quick")
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.stderr.startswith("compare.py --device cuda: ")
    assert len(done.stderr.splitlines()) == 1


def test_quick_growth_prints_its_table() -> None:
    done = run("growth.py", "--quick")
    assert done.returncode == 0, done.stderr
    assert "| N = 1, R = 2" in done.stdout
    assert "Slower than PyTorch at: " in done.stdout


def test_one_s_own_network_comes_back() -> None:
    done = run("own_networks.py", "--quick")
    assert done.returncode == 0, done.stderr
    *_, fresh, trained = done.stdout.splitlines()
    assert all("1 of 1" in row and "shown" in row for row in (fresh, trained)), done.stdout


def test_quick_certificates_refuse_no_image_and_certify_nothing_else() -> None:
    done = run("certificates.py", "--quick")
    assert done.returncode == 0, done.stderr
    heads, _, *rows = done.stdout.splitlines()
    assert heads.count("certified") == 2, "a client of which something false was said comes first"
    assert rows


def test_quick_success_prints_both_initialisations() -> None:
    done = run("success.py", "--quick")
    assert done.returncode == 0, done.stderr
    assert "Initial weights: U" in done.stdout
    assert "Initial weights: default" in done.stdout
    assert "| tinyleak, float32, to the goal, many at once | 0/2" in done.stdout


def test_data_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = run("success.py", "--data-dir", str(tmp_path), "--rows", str(tmp_path / "rows.jsonl"))
    assert done.returncode == 1
    assert done.stderr.startswith("success.py: ")
    assert len(done.stderr.splitlines()) == 1


def row(succeeded: bool = True, seconds: float = 2.0) -> dict:
    return {
        "label": 1,
        "found": 1 if succeeded else 2,
        "mse": 1e-9 if succeeded else 0.5,
        "succeeded": succeeded,
        "distance": 1e-8,
        "reason": "converged" if succeeded else "stalled",
        "evaluations": 100,
        "seconds": seconds,
        "cpu_seconds": seconds,
    }


def test_rows_outlive_a_run_that_is_killed_within_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first, second = Triple("glyphs", "U", 0), Triple("glyphs", "U", 1)
    store = success.Store(path)
    store.add([("default", first, row()), ("default", second, row(succeeded=False))])
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    again = success.Store(path)
    assert again.rows["default"] == {first: row()}
    again.add([("default", second, row(succeeded=False))])
    assert path.read_bytes() == whole


def test_a_resumed_run_does_only_what_is_missing(tmp_path: Path) -> None:
    options = success.parse(["--triples", "3", "--timed", "3", "--at-once", "2", "--peers", "1"])
    store = success.Store(tmp_path / "rows.jsonl")
    triples = [Triple("mnist", "U", seed) for seed in range(3)]
    every = success.plan(options, ["U"], store)
    assert every[0] == (("default", "paper", "goal", "torch-paper", "torch-best"), (triples[0],))
    assert every[1] == (("default", "paper", "goal"), (triples[1],))
    assert every[-2:] == [(("many",), (triples[0], triples[1])), (("many",), (triples[2],))]
    for names, group in every[:-1]:
        store.add([(name, triple, row()) for name in names for triple in group])
    assert success.plan(options, ["U"], store) == every[-1:]


def test_a_success_pays_for_the_failures() -> None:
    one = success_tables.summary([row(), row(), row(succeeded=False, seconds=5.0)])
    assert one["successes"] == one["labels_right"] == 2
    assert one["seconds_per_success"] == pytest.approx(4.5)
    assert success_tables.summary([row(succeeded=False)])["seconds_per_success"] is None


def test_a_peer_that_never_reached_the_goal_costs_its_whole_time() -> None:
    reached, missed = Triple("mnist", "U", 0), Triple("mnist", "U", 1)
    rows = {name: {} for name in success_tables.TITLES}
    rows["torch-best"] = {
        reached: row(seconds=9.0) | {"at_goal": row(seconds=1.0)},
        missed: row(seconds=5.0) | {"at_goal": {}},
    }
    ended = success_tables.with_ended_peers(rows)["torch-best at goal"]
    one = success_tables.summary(list(ended.values()))
    assert one["successes"] == 1
    assert one["cpu_seconds_per_success"] == pytest.approx(6.0)


def test_failures_are_listed_with_their_seed_and_reason() -> None:
    rows = {
        "default": {Triple("mnist", "U", 17): row(succeeded=False), Triple("mnist", "U", 3): row()}
    }
    (line,) = success_tables.failures(rows)
    assert "seed 17 stalled" in line
    assert "MSE 5.0e-01" in line


def test_contestants_take_turns() -> None:
    calls: list[str] = []

    def contestant(name: str) -> timing.Contestant:
        return timing.Contestant(lambda: calls.append(name), evaluations=2)

    ticks = iter(range(10**6))
    found = timing.medians(
        {"a": contestant("a"), "b": contestant("b")}, turns=2, clock=lambda: float(next(ticks))
    )
    assert found == {"a": 0.5, "b": 0.5}
    assert "".join(calls) == "aaabbb" + 2 * "aaabbb"


def test_the_paper_in_parts_runs_prints_and_goes_on_where_it_was(tmp_path: Path) -> None:
    parts = ("paper.py", "squares", "networks", "--quick", "--results", str(tmp_path))
    done, again = run(*parts), run(*parts)
    assert done.returncode == 0, done.stderr
    kept = (tmp_path / "squares.md").read_text(encoding="utf-8")
    assert "batches with every MSE < 1e-08" in kept
    assert (tmp_path / "networks" / "portrait.png").stat().st_size > 10_000
    assert "## squares: batches to the rounding error" in done.stdout
    assert "| LeNet   | default |" in done.stdout
    assert again.stdout == done.stdout
    assert "N=1 U 0" in done.stderr
    assert "N=1 U 0" not in again.stderr, "what is there is not computed again"


def test_a_part_that_is_none_is_refused() -> None:
    done = run("paper.py", "figures")
    assert done.returncode == 2
    assert "part 'figures' is unknown; choose from batches, squares, labels" in done.stderr


def test_text_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    some = ["--table", str(file), "--only", "span 1x8 untrained none float64"]
    first = run("text.py", *some, "--sentences", "1")
    assert first.returncode == 0, first.stderr
    with file.open("a") as torn:
        torn.write('{"experiment": "span 1x8')
    again = run("text.py", *some, "--sentences", "2")
    assert again.stderr.splitlines() == ["span 1x8 untrained none float64 1 100%"]
    assert "| span   | 1 × 8     | untrained | none    | float64 | 2 " in again.stdout
    printed = run("text.py", "--table", str(file), "--print")
    assert (printed.stdout, printed.stderr) == (again.stdout, "")

"""Sweeps: the grid, the table, the executors, and what survives when processes are killed."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyleak.attacks import Attacker, Settings, attack
from tinyleak.cli import main
from tinyleak.client import Truth, simulate
from tinyleak.data import Dataset
from tinyleak.defenses import Gaussian, knowledge, parse
from tinyleak.nn import MLP, LeNet
from tinyleak.sweep import (
    LocalProcesses,
    Request,
    Table,
    dask_executor,
    grid,
    parse_numbers,
    parse_strengths,
    run_attack,
    run_sweep,
    summary,
)

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (1, 6, 6)
MODEL = MLP(SHAPE, 4, widths=(8,))
BRIEF = Settings(iterations=3)
PATIENCE = 120.0


def small_data(count: int = 4) -> Dataset:
    images = np.random.default_rng(5).random((count, *SHAPE))
    return Dataset("small", images, np.arange(count) % 4, 4)


def requests(seeds: int = 4, **changes: Any) -> list[Request]:
    options = {"seeds": range(seeds), "settings": BRIEF, **changes}
    return grid(small_data(), [MODEL], **options)


def spoilt(request: Request) -> Request:
    """The request with a label that the network does not know."""
    return replace(request, truth=Truth(request.truth.images, [9]))


def open_table(path: Path) -> Table:
    return Table(path, tuple(requests(1)[0].columns))


def seeds_in(path: Path) -> list[int]:
    with open_table(path) as table:
        return [row["seed"] for row in table.rows()]


class Inline(Executor):
    """Runs what it is given at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


# The grid


def test_the_grid_has_every_combination_once() -> None:
    found = grid(
        small_data(),
        [MODEL, replace(MODEL, activation="tanh")],
        images=[0, 2],
        batches=[1, 2],
        inits=["uniform", "default"],
        labels=["optimise", "known"],
        seeds=[0, 1, 1, 7],
        settings=BRIEF,
    )
    assert len(found) == 2 * 2 * 2 * 2 * 2 * 3
    assert len({request.id for request in found}) == len(found)
    assert [request.attacker.seed for request in found[:4]] == [0, 1, 7, 0]
    last = found[-1]
    assert (last.model.activation, last.init) == ("tanh", "default")
    np.testing.assert_array_equal(last.truth.images, small_data().images[2:4])
    assert last.truth.labels.tolist() == list(last.attacker.labels) == [2, 3]


def test_an_image_beyond_the_data_is_refused() -> None:
    with pytest.raises(
        ValueError, match="image 3 with a batch of 2 asks for image 4, .* images 0 to 3; lower one"
    ):
        grid(small_data(), [MODEL], images=[0, 3], batches=[2])


def test_what_no_worker_could_do_is_refused() -> None:
    with pytest.raises(ValueError, match="labels 'guess' is unknown; choose one of optimise, inf"):
        requests(labels=["guess"])
    with pytest.raises(ValueError, match="attacker 'clever' is unknown; choose one of naive"):
        requests(attackers=["clever"])
    with pytest.raises(ValueError, match="'dpsgd:1.0,0.5' clips .* must come first"):
        requests(defenses=[(parse("float16"), parse("dpsgd:1,0.5"))])


def test_a_text_stands_for_each_of_its_strengths() -> None:
    def expanded(text: str) -> list[str]:
        return ["+".join(map(str, steps)) for steps in parse_strengths(text)]

    assert parse_strengths("none") == [()]
    assert expanded("gaussian:1e-4/1e+3") == ["gaussian:0.0001", "gaussian:1000.0"]
    assert expanded("float16") == ["float16"]
    assert expanded("dpsgd:1,0.5/2,0.5+prune:0.1/0.2") == [
        *("dpsgd:1.0,0.5+prune:0.1", "dpsgd:1.0,0.5+prune:0.2"),
        *("dpsgd:2.0,0.5+prune:0.1", "dpsgd:2.0,0.5+prune:0.2"),
    ]
    with pytest.raises(ValueError, match="'prayer' is unknown; choose from gaussian:VARIANCE"):
        parse_strengths("prune:0.1+prayer")


def test_an_aware_attacker_needs_a_defence() -> None:
    asked = requests(1, defenses=[(), (Gaussian(1e-3),)], attackers=["naive", "aware"])
    assert [(r.columns["defense"], r.columns["attacker"]) for r in asked] == [
        *(("none", "naive"), ("gaussian:0.001", "naive"), ("gaussian:0.001", "aware")),
    ]


# A request


@pytest.mark.parametrize(
    "change",
    [
        {"data": "other"},
        {"image": 1},
        {"truth": Truth(small_data().images[:2], np.arange(2))},
        {"model": MLP(SHAPE, 4, widths=(9,))},
        {"model": replace(MODEL, activation="tanh")},
        {"model": LeNet(SHAPE, 4)},
        {"init": "default"},
        {"defenses": (Gaussian(1e-3),)},
        {"attacker": Attacker(seed=1, settings=BRIEF)},
        {"attacker": Attacker(restarts=2, settings=BRIEF)},
        {"attacker": Attacker(labels=[0], settings=BRIEF)},
        {"attacker": Attacker(labels="infer", settings=BRIEF)},
        {"attacker": Attacker(defenses=(Gaussian(1e-3),), settings=BRIEF)},
        {"attacker": Attacker(settings=replace(BRIEF, iterations=4))},
        {"attacker": Attacker(settings=replace(BRIEF, goal=-np.inf))},
        {"attacker": Attacker(device="cuda", settings=BRIEF)},
    ],
    ids=repr,
)
def test_whatever_changes_the_result_changes_the_id(change: dict[str, Any]) -> None:
    (request,) = requests(1)
    assert replace(request, **change).id != request.id


def test_the_id_travels_and_does_not_depend_on_what_is_kept() -> None:
    (request,) = requests(1)
    assert re.fullmatch("[0-9a-f]{16}", request.id)
    assert pickle.loads(pickle.dumps(request)).id == request.id
    assert replace(request, keep_images=True).id == request.id
    assert len(pickle.dumps(request)) < 3000, "a request carries its images and little else"


def test_the_id_is_of_the_content_and_not_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = requests(1)
    images, labels = first.truth.images, first.truth.labels
    others = [
        replace(first, truth=Truth(images + 1e-9, labels)),
        replace(first, truth=Truth(images, labels + 1)),
        replace(first, attacker=replace(first.attacker, labels=[0])),
        replace(first, attacker=replace(first.attacker, labels=[1])),
        replace(first, attacker=replace(first.attacker, method="levenberg-marquardt")),
        replace(first, attacker=replace(first.attacker, start="recursion")),
        replace(first, attacker=replace(first.attacker, start=images)),
        replace(first, attacker=replace(first.attacker, start=images + 1.0)),
        replace(first, attacker=replace(first.attacker, precision={"a": np.ones(2)})),
        replace(first, attacker=replace(first.attacker, defenses=[parse("prune:0.2")])),
    ]
    monkeypatch.setattr("tinyleak.sweep.request.__version__", "another")
    (later,) = requests(1)
    assert len({request.id for request in (first, *others, later)}) == 12
    monkeypatch.undo()
    assert requests(1)[0].id == first.id, "the same is found again"


@pytest.mark.usefixtures("inline")
def test_other_files_of_the_same_name_are_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["sweep", "--model", "mlp", "--iterations", "1", "--table", str(tmp_path / "t")]
    assert main(arguments) == 0
    changed = replace(small_data(), images=1.0 - small_data().images)
    monkeypatch.setattr("tinyleak.data.load", lambda name, data_dir: changed)
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.count("1 attacks; 0 are in") == 2
    assert len(rows_in(tmp_path / "t")) == 2


@pytest.mark.usefixtures("inline")
def test_images_that_are_not_there_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sweep", "--model", "mlp", "--iterations", "1", "--table", str(tmp_path / "t")]
    for more, said in [([], "0 are"), (["--keep-images"], "0 are"), (["--keep-images"], "1 are")]:
        assert main([*arguments, *more]) == 0
        assert f"1 attacks; {said} in" in capsys.readouterr().out
        assert len(rows_in(tmp_path / "t")) == 1
    (kept,) = (tmp_path / "t.images").iterdir()
    with np.load(kept) as arrays:
        np.testing.assert_array_equal(arrays["truth"], small_data().images[:1])
    kept.unlink()
    assert main([*arguments, "--keep-images"]) == 0
    assert kept.exists()
    capsys.readouterr()


@pytest.mark.parametrize("link", ["none", "symbolic", "hard"])
def test_the_table_is_not_replaced_by_its_csv(tmp_path: Path, link: str) -> None:
    path, other = tmp_path / "t", tmp_path / "other"
    open_table(path).__exit__(None, None, None)
    before = path.read_bytes()
    if link == "symbolic":
        other.symlink_to(path)
    if link == "hard":
        other.hardlink_to(path)
    given = {"none": path}.get(link, other)
    assert main(["sweep", "--table", str(path), "--csv", str(given)]) == 2
    assert main(["sweep", "--table", str(given), "--csv", str(path)]) == 2
    for inside in ("t-journal", "t.images", "t.images/a.npz"):
        assert main(["sweep", "--table", str(path), "--csv", str(tmp_path / inside)]) == 2
    with open_table(path) as table, pytest.raises(ValueError, match="is the table itself"):
        table.export_csv(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "address", ["nonsense", "", "http://here:1", "tcp://here", "tcp://here:99999999", "\x1b[31m"]
)
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    pytest.importorskip("distributed")  # takes seconds on a busy machine, which are not counted
    began = time.monotonic()
    with (
        pytest.raises(ValueError, match="as the address of a Dask scheduler; give the one that"),
        dask_executor(address),
    ):
        pass
    assert time.monotonic() < began + 5


def test_no_window_is_refused(tmp_path: Path) -> None:
    with open_table(tmp_path / "t") as table, pytest.raises(ValueError, match="a window of 0"):
        run_sweep(requests(1), table, Inline(), window=0)


@pytest.mark.parametrize("labels", ["optimise", "infer", "known"])
def test_a_result_is_that_of_the_attack(labels: str) -> None:
    (request,) = requests(1, batches=[2], labels=[labels], keep_images=True)
    result = run_attack(request)
    client, truth = simulate(MODEL, request.truth.images, [0, 1])
    told = {"optimise": None, "infer": "infer", "known": [0, 1]}[labels]
    found = attack(client, labels=told, settings=BRIEF)
    outcome = truth.judge(found)
    assert request.columns["labels"] == labels
    assert result["mse"] == pytest.approx(outcome.mse.mean())
    assert result["mse_worst"] == pytest.approx(outcome.mse.max())
    assert result["labels_right"] == (outcome.labels == truth.labels).sum()
    assert result["distance"] == pytest.approx(found.distance)
    assert result["iterations"] == found.iterations == 3
    assert (result["succeeded"], result["recovered"], result["error"]) == (False, 0, None)
    arrays = result["arrays"]
    np.testing.assert_allclose(arrays["images"], outcome.images)
    np.testing.assert_array_equal(arrays["truth"], truth.images)
    np.testing.assert_allclose(arrays["distances"], found.distances)
    assert arrays["mse_iterations"].tolist() == [0, 1, 2, 3]
    assert arrays["mse"][-1] == pytest.approx(result["mse"])


def test_a_defence_is_applied_and_an_aware_attacker_knows_it() -> None:
    defenses = (parse("clip:0.1"), parse("prune:0.3"))
    naive, aware = requests(1, defenses=[defenses], attackers=["naive", "aware"])
    client, _ = simulate(MODEL, naive.truth.images, naive.truth.labels, defenses=defenses)
    known = knowledge(defenses, client.gradients)
    assert known.precision is not None
    assert known.direction
    for request, settings, precision in (
        (naive, BRIEF, None),
        (aware, replace(BRIEF, direction=True), known.precision),
    ):
        result = run_attack(request)
        found = attack(client, precision=precision, settings=settings, start="noise")
        assert result["error"] is None
        assert result["distance"] == pytest.approx(found.distance)


def test_an_error_is_a_result() -> None:
    (request,) = requests(1)
    result = run_attack(spoilt(request))
    assert result["error"].startswith("ValueError: ")
    assert "9" in result["error"]
    assert result["succeeded"] is False
    assert result["mse"] is None


def test_an_interrupted_attack_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        return replace(attack(*args, **kwargs), reason="interrupted")

    monkeypatch.setattr("tinyleak.sweep.request.attack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_attack(requests(1)[0])


# The table


def test_a_row_holds_the_settings_and_the_result(tmp_path: Path) -> None:
    (request,) = requests(1, images=[2])
    result = run_attack(request)
    with open_table(tmp_path / "t.sqlite") as table:
        table.record(request, result)
        (row,) = table.rows()
    assert row == {"id": request.id, **request.columns, **result}
    assert (row["data"], row["image"], row["model"]) == ("small", 2, "mlp")
    with open_table(tmp_path / "t.sqlite") as table:
        assert table.rows() == [row], "and it is there when the file is opened again"
        assert table.finished() == {request.id}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.sqlite"]


def test_a_row_is_replaced_only_if_the_attack_failed(tmp_path: Path) -> None:
    (request,) = requests(1)
    good = run_attack(request)
    with open_table(tmp_path / "t") as table:
        table.record(request, run_attack(spoilt(request)))
        assert table.finished() == {request.id}
        assert table.finished(with_failed=False) == set()
        table.record(request, good)
        table.record(request, {**good, "mse": 77.0})
        (row,) = table.rows()
    assert (row["mse"], row["error"]) == (good["mse"], None)


def test_a_row_is_synced_to_the_disk(tmp_path: Path) -> None:
    with open_table(tmp_path / "t") as table:
        database = table._database
        assert database.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert not database.in_transaction


def test_numbers_that_are_not_finite_can_be_kept(tmp_path: Path) -> None:
    (request,) = requests(1, settings=replace(BRIEF, goal=-np.inf))
    result = {**run_attack(request), "mse": np.nan, "distance": np.inf}
    with open_table(tmp_path / "t") as table:
        table.record(request, result)
        (row,) = table.rows()
    assert (row["mse"], row["distance"], row["goal"]) == (None, np.inf, -np.inf)


def test_images_are_kept_beside_the_table(tmp_path: Path) -> None:
    with_images, without = requests(2)
    with_images = replace(with_images, keep_images=True)
    with open_table(tmp_path / "t.sqlite") as table:
        run_sweep([with_images, without], table, Inline(), window=1)
        assert table.images_path == tmp_path / "t.sqlite.images"
    assert [p.name for p in table.images_path.iterdir()] == [f"{with_images.id}.npz"]
    with np.load(table.images_path / f"{with_images.id}.npz", allow_pickle=False) as arrays:
        assert arrays["images"].shape == arrays["truth"].shape == (1, *SHAPE)
        assert len(arrays["distances"]) == len(arrays["mse"]) == 4


def test_csv_is_the_whole_table(tmp_path: Path) -> None:
    first, second = requests(2)
    with open_table(tmp_path / "t") as table:
        table.record(second, run_attack(second))
        table.record(first, run_attack(spoilt(first)))
        table.export_csv(tmp_path / "t.csv")
        rows = table.rows()
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["seed"] for row in read] == ["0", "1"], "in the order of the settings"
    for row, line in zip(rows, read, strict=True):
        assert line == {name: "" if v is None else str(v) for name, v in row.items()}
    assert read[0]["error"].startswith("ValueError")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("a file of another kind, long enough to be looked at" * 100)
    with pytest.raises(ValueError, match=r"notes.txt is not a table of tinyleak \(.*; choose"):
        open_table(path)
    assert path.read_text().startswith("a file of another kind")
    with pytest.raises(OSError, match=r"no/t cannot be used \(unable to open database file\); ch"):
        open_table(tmp_path / "no" / "t")
    with open_table(tmp_path / "old"):
        pass
    with pytest.raises(ValueError, match=r"another version .* \(columns that differ: flavour, see"):
        Table(
            tmp_path / "old",
            (*[name for name in requests(1)[0].columns if name != "seed"], "flavour"),
        )


# The sweep, with executors of several kinds


def threads() -> Executor:
    return ThreadPoolExecutor(2)


def plain_processes() -> Executor:
    import multiprocessing

    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("make", [Inline, threads, plain_processes])
def test_any_executor_runs_the_sweep(tmp_path: Path, make: Callable[[], Executor]) -> None:
    asked = requests(5)
    asked[2] = spoilt(asked[2])
    seen: list[str] = []
    with open_table(tmp_path / "t") as table, make() as executor:
        run_sweep(asked, table, executor, window=3, on_result=lambda r, _: seen.append(r.id))
        rows = table.rows()
    assert [row["seed"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["error"] is None for row in rows] == [True, True, False, True, True]
    assert sorted(seen) == sorted(request.id for request in asked)
    for row, request in zip(rows, asked, strict=True):
        assert row["mse"] == pytest.approx(run_attack(request)["mse"])


def test_the_executor_has_no_more_than_the_window(tmp_path: Path) -> None:
    lock, under_way, most = threading.Lock(), 0, 0
    full = threading.Event()

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            nonlocal under_way, most
            with lock:
                under_way += 1
                most = max(most, under_way)
                if under_way == 3:
                    full.set()
            future = super().submit(fn, *args, **kwargs)
            future.add_done_callback(leave)
            return future

    def leave(_: Future[Any]) -> None:
        nonlocal under_way
        with lock:
            under_way -= 1

    def patient(request: Request) -> dict[str, Any]:
        # No attack ends before as many are under way as ever will be.
        assert full.wait(timeout=30)
        return run_attack(request)

    with open_table(tmp_path / "t") as table, Counting(4) as executor:
        run_sweep(requests(12), table, executor, window=3, work=patient)
    assert most == 3
    assert seeds_in(tmp_path / "t") == list(range(12))


def unpicklable(request: Request) -> dict[str, Any]:
    if request.attacker.seed == 1:
        return {"lock": threading.Lock()}
    return run_attack(request)


def test_a_result_that_cannot_travel_is_a_failed_row(tmp_path: Path) -> None:
    with open_table(tmp_path / "t") as table, plain_processes() as executor:
        run_sweep(requests(3), table, executor, window=1, work=unpicklable)
        errors = [row["error"] for row in table.rows()]
    assert errors[0] is errors[2] is None
    assert "pickle" in errors[1]


def test_an_executor_that_drops_attacks_ends_the_sweep(tmp_path: Path) -> None:
    class Dropping(Inline):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if args[0].attacker.seed < 2:
                return super().submit(fn, *args)
            future: Future[Any] = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with (
        open_table(tmp_path / "t") as table,
        pytest.raises(OSError, match="dropped attacks .* start the same sweep again for the rest"),
    ):
        run_sweep(requests(4), table, Dropping(), window=1)
    assert seeds_in(tmp_path / "t") == [0, 1]


def test_what_has_finished_is_kept_when_the_sweep_is_interrupted(tmp_path: Path) -> None:
    def interrupt(request: Request, result: Any) -> None:
        if request.attacker.seed == 1:
            raise KeyboardInterrupt

    with open_table(tmp_path / "t") as table, pytest.raises(KeyboardInterrupt):
        # Inline, so all of the window has finished when the first results are written.
        run_sweep(requests(9), table, Inline(), window=4, on_result=interrupt)
    assert seeds_in(tmp_path / "t") == [0, 1, 2, 3]


# Local processes


def die_of_seed_1(request: Request) -> dict[str, Any]:
    if request.attacker.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_attack(request)


def die_once(request: Request) -> dict[str, Any]:
    """The first to come here dies, and leaves a note of it in the place that `data` names."""
    try:
        Path(request.data).touch(exist_ok=False)
    except FileExistsError:
        return run_attack(request)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def blas_threads() -> list[str | None]:
    return [os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")]


@pytest.fixture(scope="module")
def processes() -> Iterator[LocalProcesses]:
    with LocalProcesses(2) as executor:
        yield executor


def test_local_processes_have_one_blas_thread_and_are_deaf_to_ctrl_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with LocalProcesses(1) as executor:
        assert executor.submit(blas_threads).result() == ["1", "1"]
        blocked = executor.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
        assert signal.SIGINT in blocked, "a Ctrl-C is for this process alone"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert blas_threads() == ["7", None], "this process's own are as they were"


def test_the_attack_that_kills_its_worker_fails_and_the_others_do_not(
    tmp_path: Path, processes: LocalProcesses
) -> None:
    with open_table(tmp_path / "t") as table:
        run_sweep(requests(5), table, processes, window=2, work=die_of_seed_1)
        rows = table.rows()
    assert [row["seed"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["seed"] for row in rows if row["error"]] == [1]
    assert "the worker process died, and again when the attack ran alone" in rows[1]["error"]


def test_a_worker_that_dies_once_costs_no_row(tmp_path: Path, processes: LocalProcesses) -> None:
    asked = [replace(request, data=str(tmp_path / "died")) for request in requests(4)]
    with open_table(tmp_path / "t") as table:
        run_sweep(asked, table, processes, window=2, work=die_once)
        assert [row["error"] for row in table.rows()] == [None] * 4
    assert (tmp_path / "died").exists()


def test_a_pool_that_breaks_for_good_ends_the_sweep(tmp_path: Path) -> None:
    with (
        open_table(tmp_path / "t") as table,
        plain_processes() as executor,
        pytest.raises(BrokenProcessPool),
    ):
        run_sweep(requests(4), table, executor, window=1, work=die_of_seed_1)
    assert seeds_in(tmp_path / "t") == [0]


def test_no_jobs_are_refused() -> None:
    with pytest.raises(ValueError, match="0 jobs were asked for; give 1 or more"):
        LocalProcesses(0)


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from tinyleak.sweep import LocalProcesses\nLocalProcesses(1)\n")
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert 'a script that sweeps needs its main program under `if __name__ == "__main__"`' in (
        done.stderr
    )


def test_a_worker_that_is_killed_while_it_starts_is_not_the_scripts_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def listed_and_killed() -> list[Any]:
        children = multiprocessing.active_children()
        for child in children:
            child.kill()
        return children

    monkeypatch.setattr("tinyleak.sweep.executors.active_children", listed_and_killed)
    with pytest.raises(OSError, match="a worker process was killed by signal 9 while it started"):
        LocalProcesses(1)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, time\n"
        "from tinyleak.sweep import LocalProcesses\n"
        "if __name__ == '__main__':\n"
        "    executor = LocalProcesses(1)\n"
        "    print(executor.submit(os.getpid).result(), flush=True)\n"
        "    executor.submit(time.sleep, 1000)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    # The worker holds the pipe open, so that reading comes to an end only once it has ended.
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert int(out) != process.pid


# The command

GRID = (
    *("sweep", "--model", "mlp", "--images", "0-2", "--seeds", "0-3", "--iterations", "20"),
    *("--jobs", "2"),
)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tinyleak", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def rows_in(path: Path) -> list[tuple[Any, ...]]:
    if not path.exists():
        return []
    database = sqlite3.connect(path, timeout=PATIENCE)
    try:
        return database.execute(
            "SELECT image, seed, error FROM attacks ORDER BY image, seed"
        ).fetchall()
    except sqlite3.OperationalError:  # the file is there, and the table not yet
        return []
    finally:
        database.close()


def wait_for_rows(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(rows_in(path)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_sweep_that_is_killed_is_finished_by_the_same_command(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    before = 0
    for count in (2, 5):
        process = start(*GRID, "--table", path)
        wait_for_rows(path, count, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        there = len(rows_in(path))
        assert before < there < 12
        before = there
    process = start(*GRID, "--table", path, "--csv", tmp_path / "t.csv")
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert f"12 attacks; {before} are in {path}, {12 - before} to run\n" in out
    assert rows_in(path) == [(i, s, None) for i in range(3) for s in range(4)]
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == 13
    assert len(set(lines)) == 13


def test_ctrl_c_stops_the_sweep_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    process = start(*GRID, "--table", path, "--csv", tmp_path / "t.csv")
    wait_for_rows(path, 3, process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    there = len(rows_in(path))
    assert 3 <= there < 12
    assert err == (
        f"tinyleak: interrupted; {there} of 12 attacks are in {path}, "
        "and the same command runs the rest\n"
    )
    assert re.search(rf"^none +naive +{there} ", out, re.MULTILINE), out
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1 + there


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the command's attacks in this process, on small data."""
    monkeypatch.setattr("tinyleak.sweep.runner.LocalProcesses", lambda jobs: Inline())
    monkeypatch.setattr("tinyleak.data.load", lambda name, data_dir: small_data())


@pytest.mark.usefixtures("inline")
def test_another_grid_adds_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t"
    common = ["sweep", "--model", "mlp", "--iterations", "1", "--table", str(path)]
    assert main([*common, "--images", "0", "1", "--seeds", "0-1"]) == 0
    assert main([*common, "--images", "1-2", "--seeds", "0"]) == 0
    out = capsys.readouterr().out
    assert f"4 attacks; 0 are in {path}, 4 to run\n" in out
    assert f"2 attacks; 1 are in {path}, 1 to run\n" in out
    assert [(i, s) for i, s, _ in rows_in(path)] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    with sqlite3.connect(path) as database:
        asked = [json.loads(row[0]) for row in database.execute("SELECT request FROM sweeps")]
    database.close()
    assert [request["images"] for request in asked] == [[0, 1], [1, 2]]
    assert asked[1]["table"] == str(path)


@pytest.mark.usefixtures("inline")
def test_failed_rows_are_run_again_only_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid_of_two = ["sweep", "--model", "mlp", "--iterations", "1", "--seeds", "0-1"]
    arguments = [*grid_of_two, "--table", str(tmp_path / "t")]

    def refuse(*args: object, **kwargs: object) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("tinyleak.sweep.request.simulate", refuse)
        assert main(arguments) == 1
    assert {error for *_, error in rows_in(tmp_path / "t")} == {"MemoryError: no room"}
    assert main(arguments) == 1
    assert "0 to run" in capsys.readouterr().out
    assert main([*arguments, "--retry-failed", "--quiet"]) == 0
    assert {error for *_, error in rows_in(tmp_path / "t")} == {None}
    assert capsys.readouterr() == ("", "")


def test_the_summary_has_a_line_for_each_defence() -> None:
    def row(defence: str, succeeded: bool, mse: float | None) -> dict[str, Any]:
        error = "ValueError: x" if mse is None else None
        plain = {"attacker": "naive", "succeeded": succeeded, "mse": mse, "error": error}
        return {"defense": defence, **plain}

    rows = [row("none", True, 1e-9), row("none", True, 1e-7), row("none", False, 2.0)]
    assert summary([*rows, row("gaussian:1e-3", False, None)]) == (
        "defence        attacker  attacks  recovered  errors  median MSE\n"
        "none           naive           3          2       0     1.0e-07\n"
        "gaussian:1e-3  naive           1          0       1           -"
    )


def test_numbers_are_given_as_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(parse_numbers(0)("3-5")) == [3, 4, 5]
    assert list(parse_numbers(1)("1")) == [1]
    for text in ("0-3", "5-3", "x", "-1", "1-"):
        with pytest.raises(SystemExit) as stop:
            main(["sweep", f"--batch={text}"])
        assert stop.value.code == 2
        assert (
            f"'{text}' was given; write a whole number of 1 or more, or a range"
            in capsys.readouterr().err
        )


def test_a_terminal_sees_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    from tinyleak.cli.sweep import _progress_bar

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with _progress_bar(3, quiet=False) as on_result:
        assert on_result is not None
        on_result(requests(1)[0], {"succeeded": True, "error": None})
        on_result(requests(1)[0], {"succeeded": False, "error": "ValueError: x"})
    assert "2/3" in screen.getvalue()
    assert "recovered=1, failed=1" in screen.getvalue()
    with _progress_bar(3, quiet=True) as on_result:
        assert on_result is None


# A Dask cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers on this machine: its address, and [scheduler, *workers]."""
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    common = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    started = [dask("scheduler", *common, "--port", "0", log=tmp_path / "scheduler.log")]
    try:
        deadline = time.monotonic() + PATIENCE
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        single = ["--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path)]
        for number in range(2):
            log = tmp_path / f"worker{number}.log"
            started.append(dask("worker", *common, *single, log=log))
        address = json.loads(file.read_text())["address"]
        wait_for_workers(address, 2)
        yield address, started
    finally:
        for process in started:
            process.kill()
            process.wait()


def dask(kind: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )


def wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, timeout=PATIENCE, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=PATIENCE)


def test_a_cluster_finishes_the_sweep_without_a_worker_that_was_killed(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, (scheduler, worker, _) = cluster
    asked = requests(16, settings=Settings(iterations=40))
    finished: list[int] = []

    def kill(request: Request, result: Any) -> None:
        finished.append(request.attacker.seed)
        if len(finished) == 3:
            worker.kill()

    with open_table(tmp_path / "t") as table, dask_executor(address) as executor:
        run_sweep(asked, table, executor, window=16, on_result=kill)
        assert [row["error"] for row in table.rows()] == [None] * 16
    assert worker.wait() == -signal.SIGKILL
    assert sorted(finished) == list(range(16))

    # And without a scheduler it ends, with what it has: far from all attacks, if they take long.
    long = requests(16, batches=[4], settings=Settings(iterations=1000))

    def stop(request: Request, result: Any) -> None:
        scheduler.kill()

    with (
        open_table(tmp_path / "u") as table,
        pytest.raises(OSError, match="dropped attacks"),
        dask_executor(address) as executor,
    ):
        run_sweep(long, table, executor, window=16, on_result=stop)
    assert 1 <= len(seeds_in(tmp_path / "u")) < 16
    with (
        pytest.raises(OSError, match="no Dask scheduler answers at tcp://127.0.0.1:.*; start one"),
        dask_executor(address),
    ):
        pass


def test_a_cluster_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ValueError, match=r"the package distributed; install tinyleak\[cluster\]"),
        dask_executor("tcp://127.0.0.1:1"),
    ):
        pass

"""What every test shares: one thread, one source of randomness, the MNIST files."""

from __future__ import annotations

import gc
import os

# The libraries read these when they are first imported. Tests compare numbers, not speed.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pytest
from command_line import Refused, Run, refuser, runner
from hypothesis import settings

# The same examples every time and everywhere, few of them, and no time limit.
settings.register_profile(
    "tinyleak", derandomize=True, max_examples=25, deadline=None, database=None
)
settings.load_profile("tinyleak")

LONGEST = ("test_lessons", "test_benchmarks", "test_benchmark_audit", "test_verdicts")
"""Files whose tests run whole programs, or hundreds of verdicts: half a minute each."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that no core is left with one while the others are done."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish() -> None:
    """Have Python pass over a million objects that stay, which takes it a second of some test."""
    gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20190612)


@pytest.fixture(scope="session")
def mnist_directory() -> Path:
    """The directory with MNIST's four (or its two test) IDX files; skips where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
    directory = Path(os.environ.get("TINYLEAK_MNIST", beside))
    if not directory.is_dir():
        pytest.skip(f"no MNIST files in {directory}; set TINYLEAK_MNIST to where they are")
    return directory


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds: leave it out where the test is not about it."""
    for name in ("emergence", "curves", "save", "player"):
        monkeypatch.setattr(f"tinyleak.cli.attack_result.{name}", lambda *args, **kwargs: None)


@pytest.fixture
def run(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call `tinyleak`, with the module's `COMMAND` first if it has one."""
    return runner(capsys, *getattr(request.module, "COMMAND", ()))


@pytest.fixture
def refused(run: Run) -> Refused:
    """Expect a request to `run` to be turned down in one line."""
    return refuser(run)

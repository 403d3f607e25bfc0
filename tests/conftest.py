"""What every test shares: one thread, one source of randomness, the MNIST files, a second core."""

from __future__ import annotations

import os

# The libraries read these when they are first imported. Tests compare numbers, not speed.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Refused, Run, refuser, runner
from hypothesis import settings

# The same examples every time and everywhere, few of them, and no time limit.
settings.register_profile(
    "tinyleak", derandomize=True, max_examples=25, deadline=None, database=None
)
settings.load_profile("tinyleak")

# The runs of scripts that were begun ahead of their tests, by the tests' names.
AHEAD = pytest.StashKey[dict[str, Future[Any]]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin what the tests that are marked `ahead(by=function)` wait for, one after the other.

    A script runs in a process of its own, so a second core can do that while this process tests.
    The function is called with the test's parameters; the fixture `ahead` is what it returns.
    """
    pool = ThreadPoolExecutor(1)
    session.config.add_cleanup(lambda: pool.shutdown(wait=False, cancel_futures=True))
    begun = session.config.stash.setdefault(AHEAD, {})
    for item in session.items:
        if (mark := item.get_closest_marker("ahead")) and not session.config.option.collectonly:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            begun[item.nodeid] = pool.submit(mark.kwargs["by"], **parameters)


@pytest.fixture
def ahead(request: pytest.FixtureRequest) -> Any:
    """What the function of the mark `ahead` returned; waits for it."""
    return request.config.stash[AHEAD][request.node.nodeid].result()


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

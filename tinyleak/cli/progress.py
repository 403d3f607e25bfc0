"""The bar that shows how far an attack is, while somebody watches."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tinyleak.attacks import Progress, Settings
from tinyleak.backend import Array
from tinyleak.metrics import matched_mse

SOONEST, LATEST = 0.1, 1.0
"""Seconds between two updates: many a second where they are cheap, few where they are not."""

LEISURE = 50
"""How much longer than an update takes the attack is left alone after it, up to `LATEST`."""

FORMAT = "iteration {n_fmt}/{total_fmt} |{bar}| {desc}, {elapsed}"


@contextmanager
def bar_on_terminal(*, quiet: bool, **options: Any) -> Iterator[Any]:
    """Give a tqdm bar on the standard error, or None if that is not a terminal, or if quiet."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(dynamic_ncols=True, file=sys.stderr, **options) as bar:
        yield bar


@contextmanager
def progress_bar(
    truth: Array | None, settings: Settings, *, quiet: bool = False
) -> Iterator[Callable[[Progress], None] | None]:
    """Give an attack's `on_progress` that draws a bar; None as `bar_on_terminal` does.

    It says how far the images are from the truth, (N, C, H, W), if that is known.
    """
    total = settings.most_iterations
    with bar_on_terminal(quiet=quiet, total=total, bar_format=FORMAT, leave=False) as bar:
        yield None if bar is None else Meter(bar, truth)


class Meter:
    """Moves a tqdm bar along, and says how close the attack is; most calls return at once."""

    def __init__(self, bar: Any, truth: Array | None) -> None:
        self.bar, self.truth = bar, truth
        self.due = 0.0

    def __call__(self, progress: Progress) -> None:
        """Take note of an iteration."""
        now = time.perf_counter()
        if now < self.due:
            return
        self.bar.n = progress.iteration
        said = f"distance {progress.distance:.1e}"
        if self.truth is not None:
            # Of the whole batch, in the order that fits best.
            error = float(matched_mse(progress.images(), self.truth).mean())
            said += f", MSE {error:.1e}"
        self.bar.set_description_str(said, refresh=True)
        finished = time.perf_counter()
        self.due = finished + min(max(SOONEST, LEISURE * (finished - now)), LATEST)

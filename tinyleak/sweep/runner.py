"""Hands attacks to an executor, and writes each result as it arrives."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from dataclasses import dataclass
from typing import Any, TypeAlias

from tinyleak.interop import whole
from tinyleak.sweep.executors import LocalProcesses, dask_executor
from tinyleak.sweep.request import Request, failure, run_attack
from tinyleak.sweep.table import Table

Result: TypeAlias = Mapping[str, Any]
Work: TypeAlias = Callable[[Request], Result]

DASK_WINDOW = 1000
"""Attacks that a cluster is given at a time: enough for its workers, and little to hold."""


def run_sweep(
    requests: Iterable[Request],
    table: Table,
    executor: Executor,
    *,
    window: int,
    on_result: Callable[[Request, Result], None] | None = None,
    work: Work = run_attack,
) -> None:
    """Run the attacks, and write a row for each into the table, in the order in which they end.

    An attack that fails is a row with its error. Where a worker process dies, which breaks all that
    is under way in its pool, each of those attacks is tried once more at the end, alone: one that
    kills its worker again is a row with that error, and the innocent ones finish.

    Args:
        requests: the attacks, without those that are in the table already.
        table: where the rows go.
        executor: any; it is left open.
        window: how many attacks it is given at a time, at least as many as it has workers.
        on_result: called after each row.
        work: what a worker calls.

    Raises:
        ValueError: a window below 1.
        OSError: the table cannot be written, or the executor has dropped attacks.
        BrokenExecutor: the executor takes no more attacks.
        KeyboardInterrupt: as after any error, what has finished is in the table.
    """
    window = whole(window, 1, "a window of {} attacks was given; give 1 or more")
    sweep = _Sweep(table, executor, work, on_result)
    suspects: list[Request] = []
    sweep.hand_out(requests, window, on_death=suspects.append)
    sweep.hand_out(suspects, 1, on_death=sweep.give_up)


def complete(
    requests: Sequence[Request],
    table: Table,
    *,
    jobs: int = 1,
    dask: str | None = None,
    on_result: Callable[[Request, Result], None] | None = None,
) -> None:
    """Run the attacks, at least one, on `jobs` processes of this machine; see `run_sweep`.

    With `dask`, the address of a scheduler, they run on that cluster instead.
    """
    if dask is None:
        with LocalProcesses(min(jobs, len(requests))) as processes:
            run_sweep(requests, table, processes, window=jobs, on_result=on_result)
    else:
        with dask_executor(dask) as cluster:
            run_sweep(requests, table, cluster, window=DASK_WINDOW, on_result=on_result)


@dataclass(frozen=True)
class _Sweep:
    """What all of a sweep's attacks have in common."""

    table: Table
    executor: Executor
    work: Work
    on_result: Callable[[Request, Result], None] | None

    def hand_out(
        self, requests: Iterable[Request], window: int, on_death: Callable[[Request], None]
    ) -> None:
        """Keep `window` attacks under way until there are no more."""
        waiting = deque(requests)
        running: dict[Future[Result], Request] = {}
        try:
            while waiting or running:
                while waiting and len(running) < window:
                    future = self.executor.submit(self.work, waiting[0])
                    running[future] = waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self.settle(future, running[future], on_death)
                    # Only now: an interrupt before this finds the result still to be written.
                    del running[future]
        except BaseException:
            for future in running:
                future.cancel()
            for future, request in running.items():
                if future.done() and not future.cancelled() and future.exception() is None:
                    self.table.record(request, future.result())
            raise

    def settle(
        self, future: Future[Result], request: Request, on_death: Callable[[Request], None]
    ) -> None:
        """Write down what has become of an attack, or pass on that its worker has died."""
        try:
            result = future.result()
        except BrokenExecutor:
            on_death(request)
            return
        except CancelledError as error:
            raise OSError(
                "the executor has dropped attacks that were under way; see whether the cluster "
                "is still there, and start the same sweep again for the rest"
            ) from error
        except Exception as error:
            result = failure(error)
        self.finish(request, result)

    def give_up(self, request: Request) -> None:
        died = BrokenExecutor("the worker process died, and again when the attack ran alone")
        self.finish(request, failure(died))

    def finish(self, request: Request, result: Result) -> None:
        self.table.record(request, result)
        if self.on_result is not None:
            self.on_result(request, result)

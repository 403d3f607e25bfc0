"""Where attacks run: processes of this machine, or the workers of a Dask cluster."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from threading import Thread
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from tinyleak import __version__
from tinyleak.interop import whole

P = ParamSpec("P")
T = TypeVar("T")

BLAS_THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
"""What the libraries behind NumPy read, once, when it is imported."""

SCHEMES = ("tcp", "tls", "ws", "wss", "ucx", "inproc")  # how a Dask scheduler is reached
CONTACT_SECONDS = 10.0  # how long a scheduler has to answer


class LocalProcesses(Executor):
    """Processes of this machine, one BLAS thread each.

    It differs from `concurrent.futures.ProcessPoolExecutor` in three ways. After a worker has
    died, which fails the futures that were under way, it goes on with new workers. Its workers
    leave Ctrl-C to this process. And they end as soon as this process ends or stops them, also
    where it is killed: none is left behind with half an attack.

    Workers are started afresh (spawned), so a script that uses this guards its main program with
    `if __name__ == "__main__"`.
    """

    def __init__(self, jobs: int) -> None:
        """Start the first worker, to know that it can be done.

        Raises:
            ValueError: fewer than one job.
            OSError: a worker does not start.
        """
        self._jobs = whole(jobs, 1, "{} jobs were asked for; give 1 or more")
        self._context = get_context("spawn")
        # Nothing is ever sent through this pipe. Its end is what the workers wait for.
        self._end_for_workers, self._own_end = self._context.Pipe(duplex=False)
        with _starting_workers():
            self._pool = self._new_pool()
        try:
            first = self.submit(os.getpid)
            workers = active_children()
            first.result()
        except BrokenExecutor as error:
            self.stop()
            raise OSError(_why([worker.exitcode for worker in workers])) from error

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._jobs, self._context, _prepare_worker, (self._end_for_workers,)
        )

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a worker call the function, and return the future of what it answers."""
        with _starting_workers():
            try:
                return self._pool.submit(fn, *args, **kwargs)
            except BrokenExecutor:
                self._pool = self._new_pool()
                return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the workers finish what they have, and end."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def stop(self) -> None:
        """End the workers in the middle of what they do."""
        self._own_end.close()
        self.shutdown(cancel_futures=True)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.shutdown()
        else:
            self.stop()


def _why(exit_codes: Sequence[int | None]) -> str:
    """Return why no worker starts: ended by Python they have a code of 0 or more."""
    killed = [-code for code in exit_codes if code is not None and code < 0]
    if killed:
        return (
            f"a worker process was killed by signal {killed[0]} while it started, as the system "
            "does where memory is short; run fewer jobs, or see what ends them"
        )
    return (
        "a worker process ended while it started; a script that sweeps needs its main program "
        'under `if __name__ == "__main__"`'
    )


def _prepare_worker(end: Connection) -> None:
    # Where it could not be blocked from the start.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_follow, args=(end,), daemon=True).start()


def _follow(end: Connection) -> None:
    """End this process when the other end of the pipe is closed, or is gone with its process."""
    with suppress(EOFError, OSError):
        end.recv_bytes()
    os._exit(1)


@contextmanager
def _starting_workers() -> Iterator[None]:
    """Have the processes that are started meanwhile compute with one thread, deaf to Ctrl-C.

    They inherit both: the environment, and which signals are blocked. A Ctrl-C that comes
    meanwhile reaches this process afterwards.
    """
    blocks = hasattr(signal, "pthread_sigmask")  # not on Windows
    # A closed terminal, too, is this process's to deal with; multiprocessing's own helper would
    # end of it, and complain.
    deaf_to = [signal.SIGINT, signal.SIGHUP] if blocks else []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, deaf_to) if blocks else None
    before = {name: os.environ.get(name) for name in BLAS_THREADS}
    os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """Give the executor of the Dask cluster whose scheduler is at this address.

    The workers need this version of tinyleak, and are best started with one thread each
    (`dask worker ADDRESS --nthreads 1`). Dask itself repeats the attacks of a worker that died,
    and fails those that a few workers in a row did not survive.

    Raises:
        ValueError: the package `distributed` is missing, a worker lacks this tinyleak, or the
            address is none.
        OSError: no scheduler answers, or it has no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError(
            "a Dask cluster needs the package distributed; install tinyleak[cluster]"
        ) from error
    _require_address(address)
    try:
        client = Client(address, timeout=CONTACT_SECONDS, set_as_default=False)
    except Exception as error:  # whatever answers there
        raise OSError(
            f"no Dask scheduler answers at {address}; start one with `dask scheduler`, "
            "and give the address that it prints"
        ) from error
    with client:
        try:
            versions = client.run(_version)
        except Exception as error:
            raise ValueError(
                f"a Dask worker of {address} cannot import tinyleak ({error}); install it there"
            ) from error
        if not versions:
            raise OSError(
                f"the Dask scheduler at {address} has no workers; start some with "
                f"`dask worker {address} --nthreads 1`"
            )
        if set(versions.values()) != {__version__}:
            raise ValueError(
                f"the Dask workers have tinyleak {', '.join(sorted(set(versions.values())))}, "
                f"this is {__version__}; install the same on all"
            )
        yield client.get_executor(pure=False)


def _require_address(address: str) -> None:
    """Refuse what is no address, at which a client of Dask would wait for half a minute."""
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        complete = parts.scheme == "inproc" or None not in (parts.hostname, parts.port)
        known = complete and parts.scheme in SCHEMES
    except ValueError:  # a port that is no number
        known = False
    if not known:
        raise ValueError(
            f"{address!r} was given as the address of a Dask scheduler; give the one that "
            "`dask scheduler` prints, such as tcp://127.0.0.1:8786"
        )


def _version() -> str:
    return __version__

"""Ctrl-C, a terminal that closes, and a process that is told to end: one answer to all three.

The first one raises KeyboardInterrupt, so that an attack ends with the best it has found. From then
on, and wherever results are written, more of them wait until that is done.
"""

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not known on Windows

PATIENCE = 10.0
"""Seconds after which a signal raises again, in case some library has swallowed the first."""

AGAIN = 0.01
"""Seconds after which Python, having swallowed one that came while it cleaned up, is told again."""


class _Handler:
    """What is done about a signal."""

    def __init__(self) -> None:
        self.writing = 0
        self.quiet_until = 0.0
        self.number = 0  # of the signal that came last

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now, self.number = time.monotonic(), number
        if self.writing == 0 and now >= self.quiet_until:
            self.quiet_until = now + PATIENCE
            raise KeyboardInterrupt

    def tell_again(self, swallowed: Any) -> None:
        """Raise once more, outside, what a finaliser or the callback of a weak reference raised."""
        if not issubclass(swallowed.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(swallowed)
            return
        self.quiet_until = 0.0
        threading.Timer(AGAIN, _thread.interrupt_main, (self.number,)).start()


_handler = _Handler()


@contextmanager
def interruptible() -> Iterator[None]:
    """Take the signals while a command runs."""
    taken: dict[Any, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other is told of any
        there = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        before = {one: signal.getsignal(one) for one in there}
        # What whoever started the command ignores stays ignored, as a hangup under nohup.
        taken = {one: h for one, h in before.items() if h not in (signal.SIG_IGN, None)}
    _handler.quiet_until = 0.0
    unraisable, sys.unraisablehook = sys.unraisablehook, _handler.tell_again
    for one in taken:
        signal.signal(one, _handler)
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        for one, handler in taken.items():
            signal.signal(one, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals pass while results are judged and written, which takes seconds."""
    _handler.writing += 1
    try:
        yield
    finally:
        _handler.writing -= 1

"""What Ctrl-C, SIGTERM and the hang-up of a terminal do in a job, and where they have to wait.

Only the main thread may set handlers; in others nothing is changed, and the signals of the process
belong to whoever owns its main thread.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

INTERRUPTED = 130
"""Exit code after Ctrl-C, SIGTERM or SIGHUP: 128 + SIGINT."""

ENDS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a job as Ctrl-C does; the second comes when a terminal is closed."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP after which the user was told how to go on."""


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end a job like Ctrl-C does, with everything that follows from it.

    Under `nohup`, which ignores SIGHUP, a job goes on.
    """

    def interrupt(_signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    with _handlers(interrupt, *ENDS):
        yield


@contextmanager
def keep_sigterm_handler() -> Iterator[None]:
    """Keep Ray from replacing the job's handler by one that exits at once."""
    with _handlers(signal.getsignal(signal.SIGTERM), signal.SIGTERM):
        yield


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Put the job's handlers back afterwards: a loop of asyncio leaves those of a bare process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> AbstractContextManager[None]:
    """Ignore what ends a job while it ends: until Ray's processes are, or results are written.

    A terminal that is closed may send SIGHUP twice, and people press Ctrl-C again.
    """
    return _handlers(signal.SIG_IGN, signal.SIGINT, *ENDS)


@contextmanager
def postpone_signals() -> Iterator[None]:
    """Hold what ends a job back until the end of a step that must not break in the middle.

    A KeyboardInterrupt inside torch's file writer ends as a RuntimeError about the file.
    """
    came: list[int] = []
    try:
        with _handlers(lambda number, _frame: came.append(number), signal.SIGINT, *ENDS):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _handlers(handler: Any, *numbers: signal.Signals) -> Iterator[None]:
    """Set signal handlers and restore what was there before, not what came in between.

    A SIGHUP that is ignored stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [n for n in numbers if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)

"""Work in other processes that end with the program: Ctrl-C is for the program alone."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, resource_tracker
from typing import Literal, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_STARTING = threading.Lock()
"""Held by the thread that starts processes."""


def processors() -> int:
    """Return how many this process may use; where a system does not say (macOS), how many are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    work: Callable[[T], R],
    orders: Iterable[T],
    count: int,
    start: Literal["spawn", "forkserver"],
) -> Iterator[R]:
    """Call a function for orders in other processes; yield what it returns, in their order.

    A terminal sends Ctrl-C to all processes in it. Here only the caller hears of it: the others
    would end with tracebacks, or end the program with one.

    Args:
        work: the function, which can be pickled.
        orders: its arguments.
        count: processes.
        start: how they are started.
    """
    others = set(active_children())
    with ProcessPoolExecutor(count, mp_context=get_context(start)) as pool:
        with _held_back(signal.SIGINT), _without_script():
            answers = [pool.submit(work, order) for order in orders]  # starts the processes
        try:
            for answer in answers:
                yield answer.result()
        except BaseException:
            for process in set(active_children()) - others:
                process.terminate()  # else the pool waits for what they are at
            raise


@contextmanager
def _without_script() -> Iterator[None]:
    """Keep processes that are started meanwhile from importing the script that calls.

    One without `if __name__ == "__main__"` would begin anew in each of them. Nothing that they do
    stands there.
    """
    main = vars(sys.modules["__main__"])
    with _STARTING:
        kept: dict[str, object] = {x: main.pop(x) for x in ("__file__", "__spec__") if x in main}
        main["__spec__"] = None
        try:
            yield
        finally:
            main.update(kept)


@contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Hold a signal back; from processes that are started meanwhile for good."""
    resource_tracker.ensure_running()  # as it starts, it lets signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""What a job does when processes of its Ray are lost: it ends with a sentence and exit code 1.

Ray Data and Ray Train start workers again, so what arrives here is beyond that. Where the raylet or
the head of a Ray of our own is gone, Ray would end this process without a word, or wait for ever.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.runtime.ray_private import kill_processes, lost_process
from jobs.runtime.terminal import last_line, say
from wpcrack.errors import WpcrackError

POLL_S, PATIENCE_S = 0.2, 5.0
"""Pause between two looks at the processes of our own Ray, and time to end after one is lost."""

LOST = (
    "a process of Ray, or its machine, was lost ({}); end other programs or free memory, then give "
    "the same command again: what is finished is kept"
)


class LostProcess(WpcrackError):
    """A process of Ray, or a machine, has ended in the midst of the work, more often than allowed.

    What fails in our own code in such a process is another error, and stays as it is.
    """


@contextmanager
def explain_losses() -> Iterator[None]:
    """Say in a sentence that a process of Ray was lost; what our own code raised stays as it is.

    Raises:
        LostProcess: One was.
    """
    from ray import exceptions

    try:
        yield
    except (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.ObjectLostError,
        exceptions.OutOfMemoryError,
    ) as error:
        if isinstance(error, exceptions.RayActorError) and error.actor_init_failed:
            raise  # by an exception of our own code, as an actor began
        raise LostProcess(LOST.format(last_line(error))) from error


@contextmanager
def end_with_ray() -> Iterator[None]:
    """End the work when a Ray of our own ends, if need be without its clean-up.

    Call it in the main thread; in another one it does nothing.

    Raises:
        LostProcess: A process ended without which Ray does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    lost: list[str] = []
    is_over = threading.Event()
    ways = [n for n in (signal.SIGTERM, signal.SIGINT) if callable(signal.getsignal(n))]

    def watch() -> None:
        while not is_over.wait(POLL_S):
            if name := lost_process():
                lost.append(name)
                say(f"the {name} of this job's Ray has ended; stopping")
                if ways:
                    _thread.interrupt_main(ways[0])
                _end_hard(LOST.format(name))
                return

    watching = threading.Thread(target=watch, daemon=True, name="wpcrack-ray")
    watching.start()
    try:
        yield
    except KeyboardInterrupt as error:
        if not lost:
            raise
        raise LostProcess(LOST.format(lost[0])) from error
    finally:
        is_over.set()
        if not lost:
            watching.join()  # else it could see how Ray is ended


def _end_hard(message: str) -> None:
    """End this process if it cannot leave its Ray, as it waits for an answer that never comes."""
    import ray

    end = time.monotonic() + PATIENCE_S
    while ray.is_initialized():
        if time.monotonic() > end:
            say(f"error: {message}")
            kill_processes()
            os._exit(1)
        time.sleep(POLL_S)

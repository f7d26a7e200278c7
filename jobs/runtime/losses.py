"""What a job does when processes of its Ray are lost: it ends with a sentence and exit code 1.

Ray Data and Ray Train start workers again, so what arrives here is beyond that. Where the raylet or
the head of a Ray of our own is gone, Ray would end this process without a word, or wait for ever.
So it does with a head that was joined and is lost, after a minute in which it may come back.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.runtime.ray_private import kill_processes, lost_process
from jobs.runtime.terminal import last_line, say
from wpcrack.errors import WpcrackError

POLL_S = 0.2
"""Pause between two looks at the processes of our own Ray."""

KNOCK_S, SILENT_S = 5.0, 45.0
"""Pause between two knocks at a head that was joined, and the silence after which it is said."""

CONNECT_TIMEOUT_S = 5.0
"""A cluster that does not take a connection within this time is not there."""

LOST = (
    "a process of Ray, or its machine, was lost ({}); end other programs or free memory, then give "
    "the same command again: what is finished is kept"
)

SILENT = (
    "the head of the cluster at {} has not answered for {:.0f} s; if it stays away, Ray ends this "
    "process: start the cluster again, then give the same command again: what is finished is kept"
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
    """End this process with a sentence when a Ray of our own ends.

    Nothing is cleaned up, as after a SIGKILL: the main thread may wait for an answer that never
    comes, and Ray would end the process as well. Call it in the main thread; in another one it does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(POLL_S):
            if name := lost_process():
                say(f"error: {LOST.format(name)}")
                kill_processes()
                os._exit(1)

    watching = threading.Thread(target=watch, daemon=True, name="wpcrack-ray")
    watching.start()
    try:
        yield
    finally:
        is_over.set()
        watching.join()  # else it could see how Ray is ended


@contextmanager
def watch_head(address: str) -> Iterator[None]:
    """Say when the head of a cluster that was joined answers no more: Ray ends without a word then.

    Args:
        address: HOST:PORT of the head.
    """
    host, _, port = address.rpartition(":")
    is_over = threading.Event()

    def watch() -> None:
        heard = time.monotonic()
        while not is_over.wait(KNOCK_S):
            try:
                knock(host, int(port))
                heard = time.monotonic()
            except OSError:
                if time.monotonic() - heard >= SILENT_S:
                    say(f"warning: {SILENT.format(address, SILENT_S)}")
                    return

    threading.Thread(target=watch, daemon=True, name="wpcrack-head").start()
    try:
        yield
    finally:
        is_over.set()


def knock(host: str, port: int) -> None:
    """Fail within seconds where nobody listens; Ray's own clients try for minutes.

    Args:
        host: name or number; one of IPv6 may stand in brackets, as in an address.
        port: of the server.

    Raises:
        OSError: No connection.
    """
    with socket.create_connection((host.strip("[]"), port), timeout=CONNECT_TIMEOUT_S):
        pass

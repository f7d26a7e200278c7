"""All that we touch of Ray's private parts, each with its reason; look here first with a new Ray.

The package pins Ray to one minor version, so that none of these changes unseen.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def node_groups() -> list[tuple[Mapping[str, float], int]]:
    """Return what KubeRay's autoscaler may add: resources of a node, and how many of them.

    Ray's public functions tell what the cluster has, and not what it may grow to. Ray Train and
    Data read the limits in the same place.
    """
    from ray._private.state import state

    config = state.get_cluster_config()
    if config is None:
        return []
    groups: Any = config.node_group_configs
    return [(dict(group.resources), min(group.max_count, sys.maxsize)) for group in groups]


@contextmanager
def patient_start(patience_s: float) -> Iterator[None]:
    """Give a node of our own Ray time to appear; Ray gives it 30 s, which no setting changes.

    Raises:
        ConnectionError: The process of the node has ended, so that waiting is in vain. On a machine
            at work it does so: it gives its agents 15 s, which no setting changes either.
    """
    from ray._private import services

    once = services.get_node
    end = time.monotonic() + patience_s

    def patiently(gcs_address: str, node_id: str) -> object:
        while True:
            try:
                return once(gcs_address, node_id)  # type: ignore[no-untyped-call]
            except RuntimeError as error:  # not there yet
                if not has_raylet():
                    raise ConnectionError("its raylet ended while it started") from error
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    services.get_node = patiently
    try:
        yield
    finally:
        services.get_node = once


@contextmanager
def few_processes(dashboard: bool) -> Iterator[None]:
    """Start a node of our own without the processes that nothing here uses.

    They are two or three Pythons, a third of the CPU time of a start: the autoscaler's monitor,
    which has no nodes to add; the log monitor, which feeds drivers that print what workers print
    (ours read no worker's log); and, without a dashboard, a process that would only report usage,
    which is switched off. `ray.init` has no setting for any of them.

    Args:
        dashboard: Whether the process of the dashboard is wanted.
    """
    from ray._private.node import Node

    unused = ["start_monitor", "start_log_monitor"] + ([] if dashboard else ["start_api_server"])
    whole = {name: getattr(Node, name) for name in unused}
    for name in unused:
        setattr(Node, name, lambda _node, **_options: None)
    try:
        yield
    finally:
        for name, former in whole.items():
            setattr(Node, name, former)


NEEDED = ("raylet", "gcs_server")
"""Processes of a Ray without which it does nothing."""


CONTROLLER = "TrainController"
"""Class of the actor that runs a training."""


def lost_process() -> str:
    """Name a needed process of a Ray of our own that has ended; empty if there is none."""
    from ray._private import worker

    node: Any = worker._global_node
    dead: list[str] = [] if node is None else [str(kind) for kind, _ in node.dead_processes()]
    return next((kind for kind in dead if kind in NEEDED), "")


def kill_processes() -> None:
    """Kill all processes of a Ray of our own, and what they have started.

    Workers end with their raylet. Its agents may not: where the head was lost before, they were
    seen 20 s later.
    """
    from ray._private import worker

    node: Any = worker._global_node
    if node is None:
        return
    own = [each.process.pid for kind in node.all_processes.values() for each in kind]
    started = [child for pid in own for child in _children(pid)]
    node.kill_all_processes(check_alive=False)
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """Return what a process has started and still lives; none where the system does not say."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(word) for word in text.split()]


def end_train_controllers() -> bool:
    """Kill the controllers of this process' trainings, so that who waits for one goes on.

    Ray Train keeps the handle of its controller, an actor, in the frame that waits for it. A thread
    that still waits while `ray.shutdown` takes the core worker away may end the process with
    SIGSEGV. A controller that dies in another way makes Ray print a page about lost workers.

    Returns:
        Whether there was any.
    """
    import ray
    from ray.actor import ActorHandle

    handles = [each for each in gc.get_objects() if issubclass(type(each), ActorHandle)]
    found = [
        each
        for each in handles
        if each._ray_actor_creation_function_descriptor.class_name == CONTROLLER
    ]
    for each in found:
        ray.kill(each)
    return bool(found)


def has_raylet() -> bool:
    """Return whether a child of this process is a living raylet; True where nobody can tell."""
    if not Path("/proc/self/stat").exists():
        return True
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue  # it has just ended
        state, parent, *_ = rest.split()
        if name == "raylet" and state != "Z" and int(parent) == os.getpid():
            return True
    return False

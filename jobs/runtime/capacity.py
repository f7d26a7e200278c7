"""What a job asks of a Ray, whether that can ever be had, and what is said while it is not there.

A worker never spans two nodes: what counts is the room on each node, not the sum of a cluster.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geo.errors import count_of
from jobs.runtime import ray_private
from jobs.runtime.terminal import clock, say
from wpcrack.errors import ConfigError

SAY_EVERY_S = 30.0
"""Between two lines about a wait."""

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts the config of its autoscaler on the head, and where our start command (see
cluster.yaml) reads it; drivers run on the head."""

SHOWN = ("CPU", "GPU")
"""Resources that messages name beside the memory."""

Resources = Mapping[str, float]


@dataclass(frozen=True)
class Request:
    """Processes that a job wants, each whole on one node.

    Attributes:
        noun: what one is called.
        count: how many are needed at least.
        each: resources of one, as Ray names them; memory in bytes.
        spare_cpus: CPUs that must stay free beside them, anywhere.
    """

    noun: str
    count: int
    each: Resources
    spare_cpus: int = 0

    @property
    def cpus(self) -> float:
        """Of all together."""
        return self.count * self.each.get("CPU", 0.0) + self.spare_cpus

    def text(self) -> str:
        """Return the request in words.

        >>> Request("worker", 2, {"CPU": 3, "memory": 2**30}).text()
        '2 workers of 3 CPU and 1.0 GiB'
        """
        return f"{count_of(self.count, self.noun)} of {resources_text(self.each)}"


@dataclass(frozen=True)
class NodeKind:
    """Nodes of one kind: what each has, and how many there are, or may be."""

    resources: Resources
    count: int = 1


def resources_text(resources: Resources) -> str:
    """Name the resources that are there, the memory in GiB."""
    parts = [f"{resources[name]:g} {name}" for name in SHOWN if resources.get(name)]
    if resources.get("memory"):
        parts.append(f"{resources['memory'] / 2**30:.1f} GiB")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts) or "nothing"


def places(each: Resources, kinds: Sequence[NodeKind], spare_cpus: int = 0) -> int:
    """Return how many processes fit on some nodes.

    Args:
        each: resources of one process.
        kinds: the nodes; of one that does not tell its memory, that sets no limit.
        spare_cpus: of all nodes together, that stay free.

    >>> places({"CPU": 3}, [NodeKind({"CPU": 2}), NodeKind({"CPU": 4}, 2)])
    2
    """
    asked = {name: amount for name, amount in each.items() if amount}
    total, room = 0.0, 0
    for kind in kinds:
        limits = [
            int(kind.resources.get(name, 0.0) / amount + 1e-9)
            for name, amount in asked.items()
            if name != "memory" or name in kind.resources
        ]
        room += kind.count * min(limits, default=0)
        total += kind.count * kind.resources.get("CPU", 0.0)
    cpus = asked.get("CPU", 0.0)
    while room and cpus and total - room * cpus < spare_cpus:
        room -= 1
    return room


def nodes_now() -> list[NodeKind]:
    """Return the nodes of the joined Ray that are alive."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [NodeKind(node["Resources"]) for node in nodes if node["Alive"]]


def nodes_to_come() -> list[NodeKind]:
    """Return the nodes that an autoscaler may have running at most; none without an autoscaler."""
    kinds = [NodeKind(resources, count) for resources, count in ray_private.node_groups()]
    file = BOOTSTRAP.expanduser()
    if file.is_file():
        import yaml

        kinds += launcher_kinds(yaml.safe_load(file.read_text("utf-8")))
    return kinds


def launcher_kinds(config: Mapping[str, Any]) -> list[NodeKind]:
    """Return the nodes that a config of `ray up` allows.

    Args:
        config: as filled in by `ray up`: each node type with its resources and max_workers.
    """
    head, cap = config.get("head_node_type"), config.get("max_workers", 0)
    return [
        NodeKind(
            kind.get("resources") or {},
            1 if name == head else min(kind.get("max_workers", cap), cap),
        )
        for name, kind in (config.get("available_node_types") or {}).items()
    ]


def room_for(request: Request) -> int:
    """Return how many of the processes fit on the nodes at hand, or on those that may come."""
    return max(
        places(request.each, kinds, request.spare_cpus) for kinds in (nodes_now(), nodes_to_come())
    )


def require(request: Request, place: str) -> None:
    """Refuse what can never be had, node by node, and say what has to be waited for.

    Args:
        request: what is needed at least.
        place: this machine or cluster, for the message.

    Raises:
        ConfigError: There is, and will be, too little room.
    """
    now, later = nodes_now(), nodes_to_come()
    room = places(request.each, now, request.spare_cpus)
    if room >= request.count:
        return
    if places(request.each, later, request.spare_cpus) >= request.count:
        say(f"{place} has room for {room} of {request.text()}; waiting for nodes to be added")
        return
    largest = max((*now, *later), key=lambda kind: kind.resources.get("CPU", 0.0), default=None)
    has = "nothing" if largest is None else resources_text(largest.resources)
    spare = f" beside {request.spare_cpus:g} CPU for Ray Data" if request.spare_cpus else ""
    raise ConfigError(
        f"the job asks for {request.text()}{spare}, {place} has room for {room}; its largest of "
        f"{count_of(sum(kind.count for kind in now), 'node')} has {has}, and one {request.noun} "
        f"never spans two nodes: ask for fewer or smaller {request.noun}s"
    )


@contextmanager
def say_while_waiting(request: Request, has_begun: Callable[[], bool]) -> Iterator[None]:
    """Say now and then for what a job waits, as long as nothing of it works.

    Args:
        request: what it waits for.
        has_begun: tells whether one of the processes works.
    """
    end = threading.Event()
    watcher = threading.Thread(target=_watch, args=(request, has_begun, end), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        end.set()
        watcher.join(SAY_EVERY_S)


def _watch(request: Request, has_begun: Callable[[], bool], end: threading.Event) -> None:
    last = time.monotonic()
    while not end.wait(SAY_EVERY_S):
        if has_begun():
            last = time.monotonic()
        else:
            waited = clock(time.monotonic() - last)
            say(f"waiting {waited} for {request.text()} to start; {free_text()}")


def free_text() -> str:
    """Say what is free of a Ray, in words."""
    import ray

    try:
        free, has = ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call]
        nodes = len(nodes_now())
    except Exception as error:  # Ray raises bare ones where its head is gone
        return f"the cluster does not answer ({type(error).__name__})"
    parts = [f"{free.get(name, 0):g} of {has[name]:g} {name}" for name in SHOWN if has.get(name)]
    if has.get("memory"):
        parts.append(f"{free.get('memory', 0) / 2**30:.0f} of {has['memory'] / 2**30:.0f} GiB")
    return f"free: {', '.join(parts) or 'no CPU'} on {count_of(nodes, 'node')}"

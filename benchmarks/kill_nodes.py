"""Three Ray nodes on this machine, one of which can be killed: for benchmarks/kill.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Nodes:
    """A head without actors' room to spare and two workers."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        quick = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": quick}
        )
        self.address: str = self._cluster.address
        self._workers = [self._cluster.add_node(num_cpus=2) for _ in range(2)]

    def replace_one(self) -> None:
        """Kills the older worker and adds a new one."""
        self._cluster.remove_node(self._workers.pop(0), allow_graceful=False)
        self._workers.append(self._cluster.add_node(num_cpus=2))

    def shutdown(self) -> None:
        """Ends all nodes."""
        self._cluster.shutdown()


@contextmanager
def cluster() -> Iterator[Nodes]:
    """Three Ray nodes of our own."""
    from jobs.ray_session import prepare_environment

    prepare_environment(local=True)
    nodes = Nodes()
    try:
        yield nodes
    finally:
        nodes.shutdown()

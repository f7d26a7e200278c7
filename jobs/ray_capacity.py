"""What a cluster has, together with what its autoscaler may still add.

A cluster at rest may have no worker at all; a job must not be refused for that. Nodes are added
because tasks, actors and placement groups wait for them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts the config of its autoscaler on the head, and where our start command (see
cluster.yaml) reads it; drivers run on the head."""


def reachable_resources() -> dict[str, float]:
    """Resources of the joined cluster, at least those that it may grow to.

    Returns:
        Like ray.cluster_resources(); larger values where an autoscaler may add nodes, and no
        "memory" if only the nodes at hand say how much they have.
    """
    import ray
    from ray._private.state import state  # Ray Train and Data read the limits in the same way

    most: dict[str, float] = dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
    limits: list[Mapping[str, float]] = [state.get_max_resources_from_cluster_config() or {}]
    file = BOOTSTRAP.expanduser()
    if file.is_file():
        limits.append(launcher_limit(yaml.safe_load(file.read_text("utf-8"))))
    for limit in limits:
        if limit and "memory" not in limit:
            most.pop("memory", None)  # that of the nodes to come is not known
        for name, value in limit.items():
            most[name] = max(most.get(name, 0.0), float(min(value, sys.maxsize)))
    return most


def launcher_limit(config: Mapping[str, Any]) -> dict[str, float]:
    """The largest sum of resources that a config of `ray up` allows.

    Args:
        config: As filled in by `ray up`: each node type with its resources and max_workers.
    """
    head, cap = config.get("head_node_type"), config.get("max_workers", 0)
    sums: dict[str, float] = {}
    for name, kind in (config.get("available_node_types") or {}).items():
        count = 1 if name == head else min(kind.get("max_workers", cap), cap)
        for resource, amount in (kind.get("resources") or {}).items():
            sums[resource] = sums.get(resource, 0.0) + count * float(amount)
    return sums

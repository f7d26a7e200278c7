"""What a campaign of kills needs: drawn tiles, three Ray nodes, the comparison of two maps."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

GSD_M = 0.005
SIDE = 448
"""Pixels of the drawn street on each side at scale 1; 49 blocks."""

STARTS = 5
"""Tries to start a node."""

LAYERS = {
    "crack": "crack_id",
    "network": "network_id",
    "outline": "outline_id",
    "road_segment": "segment_id",
    "inspected": "block_id",
}
"""Layers that must be equal, and by what they are sorted."""


def draw_tiles(folder: Path, scale: int) -> None:
    """Draw four tiles of a street with cracks across their borders, `scale` x SIDE pixels wide."""
    import cv2

    folder.mkdir(parents=True)
    side = scale * SIDE
    image = np.random.default_rng(0).integers(140, 170, (side, side, 3), np.uint8)
    for points in ([[10, 20], [220, 240], [430, 300]], [[15, 420], [240, 190], [425, 30]]):
        cv2.polylines(image, [scale * np.array(points)], False, (20, 20, 20), 4)
    half = side // 2
    for row, col in itertools.product((0, half), repeat=2):
        part = image[row : row + half, col : col + half].transpose(2, 0, 1)
        place = from_origin(500_000 + col * GSD_M, 5_700_000 - row * GSD_M, GSD_M, GSD_M)
        path = folder / f"r{row}_c{col}.tif"
        with rasterio.open(path, "w", "GTiff", half, half, 3, "EPSG:25832", place, "uint8") as tiff:
            tiff.write(part)


def differences(one: Path, other: Path) -> Iterator[str]:
    """Yield layers that differ; of the layer inspected all but the seconds count."""
    import geopandas
    import pyogrio

    names = [name for name, _ in pyogrio.list_layers(one) if name in LAYERS]
    assert set(names) >= {"crack", "outline", "inspected"}, names
    for name in names:
        left, right = (
            geopandas.read_file(path, layer=name)
            .sort_values(LAYERS[name], ignore_index=True)
            .drop(columns="seconds", errors="ignore")
            for path in (one, other)
        )
        if not left.to_wkb().equals(right.to_wkb()):
            yield name


def in_process(
    _job: Any, plan: Any, todo: Sequence[int], factory: Callable[[], Any], **_: Any
) -> Iterator[Any]:
    """Take the place of `jobs.infer.run.compute`: one worker in this process, no Ray."""
    from jobs.infer.worker import BlockWorker

    yield from map(BlockWorker(plan, factory()).run, todo)


class Nodes:
    """A head without actors' room to spare and two workers."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        from jobs.runtime.ray_private import few_processes

        self._few = functools.partial(few_processes, dashboard=False)  # as a mapping job starts Ray
        quick = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500}
        head = {"num_cpus": 1, "_system_config": quick}
        with self._few():
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self._workers = [self._add() for _ in range(2)]

    def _add(self) -> Any:
        with self._few():
            return self._cluster.add_node(num_cpus=2)

    def replace_one(self) -> None:
        """Kill the older worker and add a new one."""
        self._cluster.remove_node(self._workers.pop(0), allow_graceful=False)
        for left in reversed(range(STARTS)):  # Ray gives a node 30 s, which a busy machine takes
            try:
                self._workers.append(self._add())
                return
            except Exception:
                if not left:
                    raise

    def shutdown(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


@contextmanager
def cluster() -> Iterator[Nodes]:
    """Start three Ray nodes of our own, and end them."""
    from jobs.runtime.ray_session import prepare_environment

    prepare_environment(local=True)
    nodes = Nodes()
    try:
        yield nodes
    finally:
        nodes.shutdown()

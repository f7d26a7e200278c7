"""A job is measured node by node, by what a cluster has and by what its autoscaler may add."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from jobs.infer import actors as infer_ray
from jobs.infer.job import InferJob
from jobs.runtime import capacity
from jobs.runtime.capacity import NodeKind, Request, launcher_kinds, places, require, room_for
from jobs.runtime.cpus import usable_cpus
from wpcrack.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
GIB = 2.0**30


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A joined cluster at rest: a head without CPUs; `groups` are those of its autoscaler."""
    made = SimpleNamespace(now=[{"CPU": 0.0}], groups=[], bootstrap=tmp_path / "bootstrap.yaml")
    monkeypatch.setattr(
        "ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in made.now]
    )
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr("jobs.runtime.ray_private.node_groups", lambda: made.groups)
    monkeypatch.setattr(capacity, "BOOTSTRAP", made.bootstrap)
    return made


def workers(count: int, **each: float) -> Request:
    return Request("worker", count, each)


def test_what_fits_the_sum_of_the_nodes_but_no_node_is_refused(cluster: Any) -> None:
    cluster.now = [{"CPU": 2.0}, {"CPU": 1.0}, {"CPU": 1.0}]
    with pytest.raises(ConfigError, match=r"asks for 1 worker of 3 CPU, a has room for 0.*2 CPU"):
        require(workers(1, CPU=3), "a")
    require(workers(2, CPU=1), "a")
    with pytest.raises(ConfigError, match=r"asks for 2 workers of 2 CPU, a has room for 1"):
        require(workers(2, CPU=2), "a")


def test_a_node_holds_what_its_scarcest_resource_allows() -> None:
    nodes = [NodeKind({"CPU": 8.0}), NodeKind({"CPU": 8.0, "GPU": 2.0, "memory": 3 * GIB})]
    assert places({"CPU": 1, "GPU": 1}, nodes) == 2
    assert places({"CPU": 1, "GPU": 0.5, "memory": GIB}, nodes) == 3
    assert places({"CPU": 1, "memory": 4 * GIB}, nodes) == 8  # the first does not tell its memory


def test_a_cpu_stays_free_beside_the_actors(cluster: Any) -> None:
    cluster.now = [{"CPU": 3.0}, {"CPU": 4.0}]
    for each, room in ((1, 6), (2, 3), (3, 2), (4, 1), (5, 0)):
        assert room_for(Request("actor", 1, {"CPU": each}, spare_cpus=1)) == room


def test_a_cluster_at_rest_is_not_refused(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.groups = [({"CPU": 16, "GPU": 1}, 4)]
    require(workers(4, CPU=5, GPU=1), "the cluster")
    assert "room for 0 of 4 workers of 5 CPU and 1 GPU; waiting" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="asks for 5 workers"):
        require(workers(5, CPU=5, GPU=1), "the cluster")
    with pytest.raises(ConfigError, match="largest of 1 node has 16 CPU and 1 GPU"):
        require(workers(1, CPU=17), "the cluster")


def test_inference_plans_with_the_nodes_that_will_come(cluster: Any) -> None:
    cluster.now = [{"CPU": 0.0, "memory": 2 * GIB}]  # of the head, which takes no actor
    cluster.groups = [({"CPU": 8, "GPU": 1}, 5)]
    job = infer_job(cpus_per_actor=8)
    pool = infer_ray._pool(job, 100)
    assert (pool.count, pool.each["GPU"]) == (4, 1)  # a CPU of the fifth stays free


def test_a_pool_has_no_more_actors_than_nodes_can_hold(
    cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.now = [{"CPU": 8.0, "memory": 4 * GIB}, {"CPU": 1.0, "memory": 64 * GIB}]
    assert infer_ray._pool(infer_job(), 100).count == 3  # two by memory, one by CPU
    assert infer_ray._pool(infer_job(), 2).count == 2
    assert capsys.readouterr().err == ""
    assert infer_ray._pool(infer_job(actors=6), 100).count == 3
    assert "room for 3 of 6 actors of 1 CPU and 1.5 GiB" in capsys.readouterr().err
    cluster.now = [{"CPU": 2.0, "memory": GIB}]  # a small machine takes one all the same
    assert infer_ray._pool(infer_job(), 100).count == 1


def test_the_launchers_limit_counts_each_type_within_the_whole(cluster: Any) -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))
    cluster.bootstrap.write_text(yaml.safe_dump(config))
    assert room_for(workers(1, CPU=8)) == 4 + 4 * 2
    assert room_for(workers(1, CPU=8, GPU=1)) == 4
    assert room_for(workers(1, CPU=17)) == 0
    assert places({"CPU": 8, "GPU": 1}, launcher_kinds(config | {"max_workers": 1})) == 1


def test_a_wait_says_for_what_how_long_and_what_is_free(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(capacity, "SAY_EVERY_S", 0.05)
    asked = iter([True, False, False])

    class End:
        def wait(self, seconds: float) -> bool:
            self.works = next(asked, None)
            return self.works is None

    end: Any = End()
    capacity._watch(workers(2, CPU=3), lambda: end.works, end)
    line = "waiting 0:00 for 2 workers of 3 CPU to start; free: 1 of 4 CPU on 1 node"
    assert capsys.readouterr().err.splitlines() == [line, line]


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_cpus_are_those_that_the_process_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpus: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == cpus


def infer_job(**values: Any) -> InferJob:
    return InferJob.model_validate({"tiles": "t", "model": "m", "out": "o.gpkg"} | values)

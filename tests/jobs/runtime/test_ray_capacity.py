"""A job is measured by what a cluster has and by what its autoscaler may add."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from jobs.infer import actors as infer_ray
from jobs.infer.job import InferJob
from jobs.runtime import ray_session
from jobs.runtime.ray_session import launcher_limit, reachable_resources
from wpcrack.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A joined cluster at rest: a head without CPUs; `limit` is what the autoscaler has told."""
    import ray
    from ray._private.state import state

    made = SimpleNamespace(now={"CPU": 0.0}, limit=None, bootstrap=tmp_path / "bootstrap.yaml")
    monkeypatch.setattr(ray, "cluster_resources", lambda: made.now)
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: made.limit)
    monkeypatch.setattr(ray_session, "BOOTSTRAP", made.bootstrap)
    return made


def test_a_cluster_that_cannot_grow_has_what_it_has(cluster: Any) -> None:
    cluster.now = {"CPU": 4.0, "GPU": 1.0}
    assert reachable_resources() == cluster.now
    with pytest.raises(ConfigError, match="asks for 5 CPU, the cluster at a has 4"):
        ray_session._require(5, 0, "a")


def test_a_cluster_at_rest_is_not_refused(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.limit = {"CPU": 64, "GPU": 4}
    ray_session._require(5, 1, "a")
    assert "has 0 of 5 CPU; waiting for nodes" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="asks for 65 CPU"):
        ray_session._require(65, 0, "a")


def test_inference_plans_with_the_nodes_that_will_come(cluster: Any) -> None:
    cluster.now = {"CPU": 0.0, "memory": 2.0 * 2**30}  # of the head, which takes no actor
    cluster.limit = {"CPU": 33, "GPU": 4}
    job = InferJob.model_validate(
        {"tiles": "t", "model": "m", "out": "o.gpkg", "cpus_per_actor": 8}
    )
    assert infer_ray._actor_size(job, 100) == (4, 1)


def test_the_launchers_limit_counts_each_type_within_the_whole(cluster: Any) -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))
    assert launcher_limit(config) == {"CPU": 4 * 8 + 4 * 16, "GPU": 4}
    cluster.bootstrap.write_text(yaml.safe_dump(config))
    assert reachable_resources() == {"CPU": 96, "GPU": 4}
    assert launcher_limit(config | {"max_workers": 1}) == {"CPU": 24, "GPU": 1}

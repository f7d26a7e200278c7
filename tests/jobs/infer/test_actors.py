"""What an actor sees and how long a job waits for it, without a Ray."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from factories import describe_model, infer_job, street, write_tile

from jobs.infer import actors
from jobs.infer import run as infer
from wpcrack.errors import ConfigError


def test_no_time_without_progress_ends_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.data import DataContext
    from ray.data._internal.execution.no_progress_guard import NoProgressGuard
    from ray.data.exceptions import ExecutionTimeoutError

    def wait_for_years(context: DataContext) -> None:
        clock = iter((0.0, 1e9, 1e9))
        limit = context.execution_no_progress_timeout_s
        NoProgressGuard({}, limit, clock=lambda: next(clock)).check()

    context = DataContext()
    with pytest.raises(ExecutionTimeoutError):
        wait_for_years(context)
    monkeypatch.setattr(DataContext, "get_current", lambda: context)
    actors._prepare_ray_data()
    wait_for_years(context)


@pytest.mark.parametrize(("gpus", "seen"), [(0.0, ""), (0.5, "3")])
def test_an_actor_without_a_gpu_sees_none(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, gpus: float, seen: str
) -> None:
    plan = SimpleNamespace(parts=tmp_path / "parts")
    context = SimpleNamespace(get_actor_id=lambda: "a")
    monkeypatch.setattr("ray.get", lambda reference: reference)
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    monkeypatch.setattr(actors, "BlockWorker", lambda plan, predictor, store: predictor)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # somebody else's
    shared: Any = SimpleNamespace(require=lambda: None)
    setup = actors._Setup(plan, lambda: os.environ["CUDA_VISIBLE_DEVICES"], shared, gpus)  # type: ignore[arg-type,return-value]
    actor: Any = actors._Actor(setup)
    assert (actor.error, actor.worker) == ("", seen)
    actor.presence.close()


@pytest.mark.parametrize(
    ("asked", "gpus", "cluster", "engine"),
    [
        ("auto", None, True, "torch"),
        ("auto", None, False, "openvino"),
        ("auto", 0.0, True, "openvino"),
        ("auto", 0.5, False, "torch"),
        ("openvino", None, True, "openvino"),
    ],
)
def test_the_driver_chooses_one_engine_by_the_gpus_of_the_cluster(
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    gpus: float | None,
    cluster: bool,
    engine: str,
) -> None:
    monkeypatch.setattr(infer, "joins_cluster", lambda *, local: True)
    monkeypatch.setattr(infer, "cluster_has_gpus", lambda: cluster)
    monkeypatch.setattr("wpcrack.inference.engine.gpus_here", lambda: int(not cluster))
    monkeypatch.setattr("wpcrack.inference.engine.is_installed", lambda name: True)
    job = infer_job(tmp_path, tmp_path / "o.gpkg", engine=asked, gpus_per_actor=gpus)
    assert infer.with_engine(job, local=False).engine == engine


@pytest.mark.parametrize(
    ("asked", "found", "fits"),
    [
        (1.0, 0, False),
        (0.5, 0, False),
        (2.0, 1, False),
        (0.5, 1, True),
        (0.0, 0, True),
        (None, 0, True),
    ],
)
def test_gpus_that_are_not_here_are_refused_before_any_work_and_by_the_plan(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, asked: float | None, found: int, fits: bool
) -> None:
    tile = write_tile(tmp_path / "a.tif", street(96)[0])
    model = describe_model(tmp_path / "model", gsd_mm=None)
    job = infer_job(tile, tmp_path / "o.gpkg", model=model, gpus_per_actor=asked)
    monkeypatch.setattr(actors, "gpus_here", lambda: found)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if fits:
        infer.plan_inference(job)
        return
    for refused in (infer.plan_inference, infer.run_inference):
        with pytest.raises(ConfigError, match=rf"gpus_per_actor={asked:g} .* torch sees {found}"):
            refused(job)
    assert not job.work_folder.exists()
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # whose nodes are other machines
    infer.plan_inference(job)

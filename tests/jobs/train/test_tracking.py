"""Trackers hear each epoch once, however often a run is continued; one that fails ends no run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from jobs.train.folder import METRICS
from jobs.train.job import TrainJob
from jobs.train.needs import find_needs
from jobs.train.tracking import Trackers, end_stopped
from jobs.tune.trials import StopTrial
from wpcrack.data.read import ImageLevelSet
from wpcrack.errors import ConfigError


def job_of(root: Path, **tracking: str) -> TrainJob:
    return TrainJob.model_validate(
        {"data": {"root": str(root)}, "run_dir": str(root), "tracking": tracking}
    )


def write_lines(root: Path, epochs: int) -> list[dict[str, Any]]:
    lines = [{"epoch": k, "stage": "warmup", "best": True, "train/cls": 1.0 / (k + 1)}
             for k in range(epochs)]  # fmt: skip
    (root / METRICS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return lines


class StandIn:
    """The part of MLflow's client that is used, on one shared memory."""

    runs: dict[str, dict[str, Any]]

    def __init__(self, tracking_uri: str) -> None:
        assert "://" in tracking_uri

    def get_experiment_by_name(self, name: str) -> Any:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.runs[run_name] = {"metrics": [], "params": {}, "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_param(self, run: str, key: str, value: Any) -> None:
        self.runs[run]["params"][key] = value

    def log_metric(self, run: str, key: str, value: float, moment: int, step: int) -> None:
        self.runs[run]["metrics"].append((key, step, value))

    def update_run(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status

    def set_terminated(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status


def test_mlflow_gets_one_run_and_each_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("mlflow")
    StandIn.runs = {}
    module.MlflowClient = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    job = job_of(tmp_path, mlflow=str(tmp_path / "store"))

    def interrupted() -> None:
        with Trackers(tmp_path, job) as trackers:
            trackers.epoch(write_lines(tmp_path, 1)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (run,) = StandIn.runs.values()
    assert run["status"] == "KILLED"
    lines = write_lines(tmp_path, 3)  # two of them while nobody was told
    with Trackers(tmp_path, job) as trackers:
        for line in lines:
            trackers.epoch(line)
    (run,) = StandIn.runs.values()
    assert run["status"] == "FINISHED"
    told = [(step, value) for key, step, value in run["metrics"] if key == "train/cls"]
    assert told == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert run["params"]["train.batch_size"] == job.train.batch_size


def test_a_stopped_trial_is_no_failure_to_mlflow_and_trials_may_begin_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    class MadeMeanwhile(StandIn):
        def get_experiment_by_name(self, name: str) -> Any:
            asked.append(name)
            return SimpleNamespace(experiment_id="1") if len(asked) > 1 else None

        def create_experiment(self, name: str) -> str:
            raise RuntimeError("RESOURCE_ALREADY_EXISTS")

    module = ModuleType("mlflow")
    StandIn.runs = {}
    module.MlflowClient = MadeMeanwhile  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    job = job_of(tmp_path, mlflow=str(tmp_path / "store"))

    def stopped() -> None:
        with Trackers(tmp_path, job) as trackers:
            trackers.epoch(write_lines(tmp_path, 1)[0])
            raise StopTrial("others are better")

    with pytest.raises(StopTrial):
        stopped()
    end_stopped(tmp_path, job)
    (run,) = StandIn.runs.values()
    assert run["status"] == "KILLED"
    assert run["metrics"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(StandIn, "set_terminated", None)
    end_stopped(tmp_path, job)
    assert "MLflow was not told" in capsys.readouterr().err


@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="mlflow is not installed")
def test_a_local_store_of_mlflow_holds_the_metrics(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/store.db"
    lines = write_lines(tmp_path, 2)
    with Trackers(tmp_path, job_of(tmp_path, mlflow=uri)) as trackers:
        trackers.epoch(lines[-1])
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("wpcrack")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/cls")
    assert [(metric.step, metric.value) for metric in history] == [(0, 1.0), (1, 0.5)]


def test_a_hook_hears_start_epochs_and_end_and_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[str] = []

    def hook(event: str, values: dict[str, Any]) -> None:
        heard.append(event)
        if values.get("epoch") == 1:
            raise OSError("no server")

    module = ModuleType("my_hooks")
    module.hook = hook  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_hooks", module)
    lines = write_lines(tmp_path, 3)
    with Trackers(tmp_path, job_of(tmp_path, hook="my_hooks:hook")) as trackers:
        for line in lines:
            trackers.epoch(line)
    assert heard == ["start", "epoch", "epoch"]
    assert "HookTracker failed" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="my_hooks:other"):
        Trackers(tmp_path, job_of(tmp_path, hook="my_hooks:other"))


@pytest.mark.parametrize("text", ["no_such_name", "def tell(:"])
def test_a_hook_in_a_module_with_a_fault_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"faulty_{len(text)}"
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(ConfigError, match=rf"hook={name}:tell cannot be imported \(\w+Error: "):
        Trackers(tmp_path, job_of(tmp_path, hook=f"{name}:tell"))


def test_a_tracker_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    nothing = ImageLevelSet(root=tmp_path, items=())
    with pytest.raises(ConfigError, match=r"tracking.hook=no_such:hook cannot be imported"):
        find_needs(job_of(tmp_path, hook="no_such:hook"), nothing)

"""Others that are told of a training: MLflow, or a function of the user.

The driver tells them what it reads from metrics.jsonl. So a worker that starts again tells nothing
twice, and a tracker that fails costs a line on the terminal and no training.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from geo.addresses import all_without_secrets
from geo.files import write_text
from jobs.runtime.terminal import say
from jobs.train.folder import METRICS, read_metrics
from jobs.train.job import TrainJob
from wpcrack.errors import ConfigError, first_line

MEMORY = ".mlflow"
"""In the run folder: run and last epoch that MLflow has."""

Hook = Callable[[str, dict[str, Any]], object]


class Tracker(Protocol):
    """Somebody who is told."""

    def start(self) -> None:
        """Begin, or go on, with a run."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Take a line of metrics.jsonl."""

    def end(self, error: BaseException | None) -> None:
        """Hear how it ended."""


class Trackers:
    """All trackers of a training; a context.

    Raises:
        ConfigError: A tracker is not there.
    """

    def __init__(self, root: Path, job: TrainJob) -> None:
        self._trackers: list[Tracker] = []
        if job.tracking.hook is not None:
            self._trackers.append(HookTracker(find_hook(job.tracking.hook), job))
        if job.tracking.mlflow is not None:
            self._trackers.append(MlflowTracker(root, job))

    def __enter__(self) -> Trackers:
        self._tell(lambda tracker: tracker.start())
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._tell(lambda tracker: tracker.end(error))

    def epoch(self, line: dict[str, Any]) -> None:
        """Tell all of a line of metrics.jsonl."""
        self._tell(lambda tracker: tracker.epoch(line))

    def _tell(self, message: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                message(tracker)
            except Exception as error:  # of any library or server
                self._trackers.remove(tracker)
                say(
                    f"warning: {type(tracker).__name__} failed and is not called again "
                    f"({type(error).__name__}: {first_line(error)}); the training goes on"
                )


def end_stopped(root: Path, job: TrainJob) -> None:
    """Tell MLflow that a training was stopped from outside, which is no failure of it."""
    if job.tracking.mlflow is not None:
        try:
            MlflowTracker(root, job).end_stopped()
        except Exception as error:  # of any library or server
            say(f"warning: MLflow was not told that {root.name} is stopped ({first_line(error)})")


def find_hook(name: str) -> Hook:
    """Import the function that a user names.

    Raises:
        ConfigError: There is none.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a module of the user raises
        raise ConfigError(
            f"tracking.hook={name} cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); give package.module:function of an installed package"
        ) from error
    if not callable(found):
        raise ConfigError(f"tracking.hook={name} is no function")
    hook: Hook = found
    return hook


class HookTracker:
    """Tells a function of the user."""

    def __init__(self, hook: Hook, job: TrainJob) -> None:
        self._hook, self._job = hook, job

    def start(self) -> None:
        """Tell the settings."""
        self._hook("start", self._job.model_dump(mode="json"))

    def epoch(self, line: dict[str, Any]) -> None:
        """Tell an epoch."""
        self._hook("epoch", line)

    def end(self, error: BaseException | None) -> None:
        """Tell the error, None if there was none."""
        self._hook("end", {"error": None if error is None else f"{type(error).__name__}: {error}"})


class MlflowTracker:
    """Keeps parameters and metrics in MLflow; a run that is continued stays one run there."""

    def __init__(self, root: Path, job: TrainJob) -> None:
        """Find MLflow; nothing is sent yet.

        Raises:
            ConfigError: It is not installed.
        """
        try:
            self._mlflow: Any = importlib.import_module("mlflow")
        except ImportError as error:
            raise ConfigError(
                "tracking.mlflow needs the package mlflow; `pip install mlflow`, or leave it out"
            ) from error
        self._root, self._job = root, job
        self._sent = -1

    def start(self) -> None:
        """Open the run, and send the epochs that it lacks."""
        self._client = self._connect()
        known = self._root / MEMORY
        if known.exists():
            memory = json.loads(known.read_text(encoding="utf-8"))
            self._run, self._sent = memory["run"], memory["epoch"]
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._new_run()
            self._remember()
        for line in read_metrics(self._root / METRICS):
            self.epoch(line)

    def epoch(self, line: dict[str, Any]) -> None:
        """Send an epoch once."""
        if line["epoch"] <= self._sent:
            return
        for name, value in line.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                moment = int(1000 * time.time())
                self._client.log_metric(self._run, name, float(value), moment, line["epoch"])
        self._sent = line["epoch"]
        self._remember()

    def end(self, error: BaseException | None) -> None:
        """Close the run."""
        status = "FINISHED" if error is None else "FAILED"
        if isinstance(error, KeyboardInterrupt):
            status = "KILLED"
        self._client.set_terminated(self._run, status)

    def end_stopped(self) -> None:
        """Close the run of a training that a sweep stopped, whose process may be gone."""
        if (self._root / MEMORY).exists():
            run = json.loads((self._root / MEMORY).read_text(encoding="utf-8"))["run"]
            self._connect().set_terminated(run, "KILLED")

    def _connect(self) -> Any:
        place = self._job.tracking.mlflow
        assert place is not None, "made only with a place"
        uri = place if ":" in place else Path(place).absolute().as_uri()
        return self._mlflow.MlflowClient(tracking_uri=uri)

    def _experiment(self) -> str:
        """Return the id of the experiment, which another trial may make at the same moment."""
        client, name = self._client, self._job.tracking.experiment
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name))
            except Exception:  # of any store
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _new_run(self) -> str:
        client, experiment = self._client, self._experiment()
        run: str = client.create_run(experiment, run_name=self._root.name).info.run_id
        settings = all_without_secrets(self._job.model_dump(mode="json"))
        for key, value in flatten(settings).items():
            client.log_param(run, key, value)
        return run

    def _remember(self) -> None:
        write_text(self._root / MEMORY, json.dumps({"run": self._run, "epoch": self._sent}))


def flatten(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Flatten nested settings.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{before}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat

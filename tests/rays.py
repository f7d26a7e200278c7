"""A Ray with those processes only that a test needs, which the tests of one file may share.

A module beside conftest.py, like factories.py. Tests of how a job leaves its Ray start it as users
do, with all processes; see `all_helpers`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.train.v2._internal.execution.scaling_policy import autoscaling_coordinator_client
from ray.train.v2.api import data_parallel_trainer
from ray.train.v2.api.callback import RayTrainCallback

from jobs.runtime.capacity import Request
from jobs.runtime.ray_session import ray_session

CPUS = 2


class FewHelpers(RayTrainCallback):
    """Keeps the trainings of a process from starting what no test of a shared Ray is about.

    Each helper is one more Python that imports Ray. One frees the places of workers whose
    controller was killed, one asks for nodes, one hands out data sets of Ray Data. Ray Train makes
    this object before it makes them, in the process of a trial too, and sends it to the controller.
    """

    def __init__(self) -> None:
        trainer: Any = data_parallel_trainer
        trainer.PlacementGroupCleanerCallback = no_helper
        trainer.DatasetsCallback = no_helper
        client: Any = autoscaling_coordinator_client.TrainAutoscalingCoordinatorClient
        for name in ("send_resource_request", "maybe_send_resource_request"):
            setattr(client, name, ask_nobody)
        client.cancel_resource_request = ask_nobody

    def __reduce__(self) -> Any:
        return FewHelpers, ()


def no_helper(**_: object) -> RayTrainCallback:
    """Take the place of the class of a helper."""
    return RayTrainCallback()


def ask_nobody(*_: object) -> None:
    """Take the place of what asks for nodes."""


FEW = {
    "RAY_TRAIN_CALLBACKS": f"{__name__}.{FewHelpers.__name__}",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@contextmanager
def shared_ray() -> Iterator[None]:
    """Start a Ray of this process, which the jobs in it use, and end it."""
    path = [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))  # workers import this file
        for name, value in FEW.items():
            patch.setenv(name, value)
        with ray_session(Request("worker", CPUS, {"CPU": 1.0}), local=True):
            yield


@contextmanager
def all_helpers() -> Iterator[None]:
    """Let processes that are started inside have all processes of a Ray, beside a shared one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FEW:
            patch.delenv(name, raising=False)
        yield

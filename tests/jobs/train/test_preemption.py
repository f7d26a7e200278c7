"""A spot machine that is taken back, with Ray's own notice: on a cluster of two nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from clusters import Head, running_head
from factories import end_session, image_level_set, tiny_training, wait_until

from jobs.train.folder import CHECKPOINTS, METRICS, read_metrics
from jobs.train.job import TrainJob

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DEADLINE_S = 10
"""Until the machine goes, as its notice says; a machine that goes earlier is a failure to Ray."""

NODES = """
import ray
ray.init(address="auto", log_to_driver=False)
for node in ray.nodes():
    if node["Alive"] and "node:__internal_head__" not in node["Resources"]:
        print("NODE", node["NodeID"])
"""


def second_node(head: Head) -> str:
    """Return the id of the node that is not the head; empty before it has joined."""
    command = [sys.executable, "-c", NODES]
    environment = head.environment() | {"RAY_ADDRESS": head.gcs}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return told.stdout.partition("NODE ")[2].strip()


def notify(head: Head, node: str) -> None:
    """Let Ray know that a node will be taken back."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", head.gcs]
    command += ["--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "spot", "--deadline-remaining-seconds", str(DEADLINE_S)]
    subprocess.run(command, env=head.environment(), check=True, capture_output=True)


def test_a_training_outlives_a_spot_machine_and_counts_no_failure(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    image_level_set(tmp_path / "set")
    job = TrainJob.model_validate(
        tiny_training(
            tmp_path / "set",
            run,
            train={"steps": {"warmup": 3000, "adversarial": 1, "detector": 1}, "epoch_steps": 1000},
            scaling={"num_workers": "1..2", "max_failures": 0, "checkpoint_minutes": None},
        )
    )
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True)))
    with running_head(1) as head:
        node = head.join(2)
        wait_until(lambda: second_node(head))
        name = second_node(head)
        environment = head.environment() | {"RAY_ADDRESS": head.gcs}
        with log.open("wb") as said:
            training = subprocess.Popen(
                [sys.executable, "-m", "jobs.train", str(config)],
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        try:
            wait_until(lambda: read_metrics(run / METRICS) or training.poll() is not None)
            notify(head, name)
            gone = time.monotonic() + DEADLINE_S
            wait_until(lambda: list((run / CHECKPOINTS).glob("*_step_*")))
            wait_until(lambda: time.monotonic() > gone)
            end_session(node)
            assert training.wait(1200) == 0, log.read_text()
        finally:
            if training.poll() is None:
                os.killpg(training.pid, signal.SIGKILL)
    epochs = [line["epoch"] for line in read_metrics(run / METRICS)]
    assert epochs == list(range(len(epochs)))
    assert [line["step"] for line in read_metrics(run / METRICS)][:3] == [1000, 2000, 3000]

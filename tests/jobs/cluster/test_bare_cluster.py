"""A cluster with a node that lacks the shared folder: nothing is lost there, and nothing is silent.

A head and a node, which this file starts on loopback; the node has a mount namespace of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clusters import OWN_MOUNTS, PATIENCE_S, Head, running_head
from factories import SMALL_LATTICE, end_session, street, wait_until, write_tile

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]

INFER = """
import json, sys
import numpy as np
from jobs.infer.job import InferJob
from jobs.infer.run import run_inference
from jobs.runtime import capacity
from jobs.runtime.terminal import USER_ERRORS

def factory():
    return lambda windows: np.where(windows.mean(-1) < 80, 0.9, 0.1).astype(np.float32)

capacity.SAY_EVERY_S = 1.0
try:
    run_inference(InferJob(**json.loads(sys.argv[1])), factory)
except USER_ERRORS as error:
    sys.exit(f"error: {error}")
"""

HOLD = """
import time, ray
ray.init(logging_level="ERROR")
ray.get(ray.remote(num_cpus=3)(lambda: print("held", flush=True) or time.sleep(3600)).remote())
"""

NODES = "import ray; ray.init(logging_level='ERROR'); print(len(ray.nodes()))"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the head sees, and the node does not."""
    folder = tmp_path_factory.mktemp("mounted")
    write_tile(folder / "tiles" / "a.tif", street(320)[0])
    return folder


@pytest.fixture(scope="module")
def head(place: Path) -> Iterator[Head]:
    if subprocess.run([*OWN_MOUNTS, f"mount -t tmpfs none {place}"], check=False).returncode:
        pytest.skip("this machine allows no mount namespaces")
    with running_head(cpus=0) as started:
        node = started.join(cpus=3, hidden=place)
        try:
            wait_until(lambda: python(started, NODES).stdout.strip() == "2", PATIENCE_S)
            yield started
        finally:
            end_session(node)


def test_a_node_without_the_shared_folder_is_named_and_writes_nothing(
    head: Head, place: Path
) -> None:
    done = python(head, INFER, job(place, "lost.gpkg", actors=2))
    assert done.returncode == 1, done.stderr
    assert "error: node " in done.stderr
    assert f"does not see {place / 'lost.work'} as the driver does" in done.stderr
    assert "Traceback" not in done.stderr
    work = place / "lost.work"
    assert len((work / "job.jsonl").read_text().splitlines()) == 1  # no block is said to be there
    assert not list((work / "parts").iterdir())
    assert not list(work.glob(".shared-*"))


def test_the_doctor_looks_at_every_node(head: Head, place: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jobs.cli", "doctor", "--address", head.url),
            *("--storage", str(place), "--json", "-"),
        ],
        env=head.environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    checks = json.loads(done.stdout)["checks"]
    on_head, on_node = (check for check in checks if check["name"] == "storage")
    assert (on_head["where"], on_node["where"].split()[0]) == ("cluster", "node")
    assert on_head["state"] in ("ok", "note")
    assert on_node["state"] == "FAIL"
    assert "is not the folder of the head" in on_node["text"]


def test_what_no_node_can_hold_is_refused_before_work(head: Head, place: Path) -> None:
    done = python(head, INFER, job(place, "never.gpkg", actors=1, cpus_per_actor=3))
    assert done.returncode == 1
    assert (
        f"asks for 1 actor of 3 CPU beside 1 CPU for Ray Data, the cluster at {head.gcs} has"
        in (done.stderr)
    )


def test_a_busy_cluster_is_waited_for_with_a_line_now_and_then(head: Head, place: Path) -> None:
    with running(head, HOLD) as holder:
        assert holder.stdout is not None
        wait_until(lambda: free_cpus(head) == "0", PATIENCE_S)
        with running(head, INFER, job(place, "late.gpkg", actors=1)) as waiting:
            assert waiting.stderr is not None
            line = next(line for line in waiting.stderr if line.startswith("waiting 0:"))
            holder.kill()
            rest = waiting.stderr.read()
            waiting.wait(PATIENCE_S)
    assert "for 1 actor of 1 CPU and 1.5 GiB to start; free: 0 of 3 CPU" in line
    assert "on 2 nodes" in line
    assert "does not see" in rest  # it went on once there was room


def free_cpus(head: Head) -> str:
    code = "import ray; ray.init(logging_level='ERROR'); free = ray.available_resources()"
    return python(head, f"{code}; print('%g' % free.get('CPU', 0))").stdout.strip()


@contextmanager
def running(head: Head, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Code that joins the cluster."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=head.environment() | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": head.gcs},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def python(head: Head, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Code that joins the cluster, at its end."""
    with running(head, code, *arguments) as process:
        output, errors = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def job(place: Path, out: str, **values: Any) -> str:
    given = {"tiles": str(place / "tiles"), "model": "none", "out": str(place / out)}
    return json.dumps(given | {"min_area_m2": 0} | SMALL_LATTICE | values)

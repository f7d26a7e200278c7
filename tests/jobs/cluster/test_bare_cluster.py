"""A cluster with a node that lacks the shared folder: nothing is lost there, and nothing is silent.

A head and a node, which this file starts on loopback; the node has a mount namespace of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
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
from jobs.runtime.terminal import USER_ERRORS

def factory():
    return lambda windows: np.where(windows.mean(-1) < 80, 0.9, 0.1).astype(np.float32)

try:
    run_inference(InferJob(**json.loads(sys.argv[1])), factory)
except USER_ERRORS as error:
    sys.exit(f"error: {error}")
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


def python(head: Head, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Code that joins the cluster, at its end."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=head.environment() | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": head.gcs},
        capture_output=True,
        text=True,
    )


def infer(head: Head, place: Path, out: str, **values: Any) -> subprocess.CompletedProcess[str]:
    given = {"tiles": str(place / "tiles"), "model": "none", "out": str(place / out)}
    job = given | {"min_area_m2": 0} | SMALL_LATTICE | values
    return python(head, INFER, json.dumps(job))


def test_a_node_without_the_shared_folder_is_named_and_writes_nothing(
    head: Head, place: Path
) -> None:
    done = infer(head, place, "lost.gpkg", actors=2)
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

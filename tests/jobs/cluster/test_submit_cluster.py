"""Jobs submitted to a real head with token authentication, which this file starts on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import PATIENCE_S, Head, running_head
from factories import (
    GSD_M,
    SMALL_LATTICE,
    TINY_MODEL,
    end_session,
    image_level_set,
    in_process,
    processes,
    street,
    tiny_model,
    wait_until,
    write_tile,
)
from pyogrio import list_layers, read_dataframe

from jobs.infer import run as infer
from jobs.infer.job import InferJob

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[3]
SIDE = 640
"""Pixels of the street on each side: 100 blocks, so that a kill meets the job at work."""

TRAIN: dict[str, Any] = {
    "model": TINY_MODEL,
    "train": {
        "steps": {"warmup": 1, "adversarial": 1, "detector": 1},
        "epoch_steps": 1,
        "batch_size": 4,
        "val_items": 4,
    },
    "scaling": {"num_workers": 1, "cpus_per_worker": 1},
}
SWEEP: dict[str, Any] = {
    "scaling": {"num_workers": 0},
    "tune": {"trials": 2, "space": {"optim.encoder_lr": {"loguniform": [1e-4, 1e-3]}}},
}
LONG = 40
"""Epochs of a training that shall not end before it is stopped: some ten times as long as that
takes on a machine of any speed."""
INFER: dict[str, Any] = {
    **SMALL_LATTICE,
    "block_strides": 1,
    "min_area_m2": 0,
    "engine": "torch",  # starts sooner
    "threshold": 0.004,  # a network that has learned nothing gives more everywhere: one crack
}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head(cpus=2) as started:
        yield started


@pytest.fixture(scope="module")
def node(head: Head) -> Iterator[subprocess.Popen[bytes]]:
    """A second machine; two CPUs of the head and three of this one make five."""
    joined = head.join(cpus=3)
    try:
        yield joined
    finally:
        end_session(joined)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a drawn data set, tiles, a model that has learned nothing, configs."""
    folder = tmp_path_factory.mktemp("user")
    image_level_set(folder / "set")
    draw_tiles(folder / "tiles")
    tiny_model(folder / "untrained" / "model")
    for name, values in (("train", TRAIN), ("sweep", TRAIN | SWEEP), ("infer", INFER)):
        (folder / f"{name}.yaml").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def cracks(place: Path) -> Path:
    """A map of the same tiles that was made in this process, without a cluster."""
    places = {"tiles": str(place / "tiles"), "model": place / "untrained"}
    job = InferJob.model_validate(INFER | places | {"out": place / "whole.gpkg"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer, "compute", in_process)
        patch.setattr(infer, "draw_map", lambda *_: None)
        return infer.run_inference(job, local=True).package


def test_a_wrong_token_is_refused_with_a_sentence(head: Head, place: Path) -> None:
    wrong = head.folder / "wrong"
    wrong.write_text("f" * 64)
    done = submit(head, place, *infer_arguments(place / "never.gpkg", place), token=wrong)
    assert done.returncode == 1
    assert "asks for a token" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "never.work").exists()


@pytest.mark.usefixtures("node")
def test_the_doctor_finds_the_cluster_fit(head: Head, place: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jobs.cli", "doctor", "--address", head.url),
            *("--storage", str(place), "--json", "-"),
        ],
        env=head.environment() | {"PYTHONPATH": str(ROOT)},
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {
        (check["where"], check["name"]): check["state"]
        for check in json.loads(done.stdout)["checks"]
    }
    for name in ("dashboard", "nodes", "same ray", "same python", "maps", "torch", "storage"):
        assert found["cluster", name] in ("ok", "note")


def test_a_stopped_training_is_continued_and_ends_with_its_model_and_its_exit_code(
    head: Head, place: Path
) -> None:
    """First in the driver's process, then by a worker of the cluster."""
    command = ("train", "train.yaml", "data.root=set", "run_dir=runs/stopped")
    command += (f"train.steps.detector={LONG - 2}",)
    run = place / "runs" / "stopped"
    metrics = run / "metrics.jsonl"
    with running(head, place, *command, "scaling.num_workers=0") as process:
        wait_until(lambda: len(lines(metrics)) >= 2, PATIENCE_S)
        os.kill(process.pid, signal.SIGINT)  # no terminal: the job goes on
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, errors
    (job_id,) = {word for word in errors.split() if word.startswith("raysubmit_")}
    assert f"detached; job {job_id} goes on" in errors
    stopped = submit(head, place, "--stop", job_id)
    assert stopped.returncode == 0, stopped.stderr
    before = lines(metrics)
    assert 2 <= len(before) < LONG
    attached = submit(head, place, "--attach", job_id)
    assert attached.returncode == 130
    assert "the same command continues" in attached.stdout
    done = submit(head, place, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    after = lines(metrics)
    assert after[: len(before) - 1] == before[:-1]
    assert [json.loads(line)["epoch"] for line in after] == list(range(LONG))
    assert "best epoch" in done.stdout
    assert "wpcrack submit --attach raysubmit_" in done.stderr
    assert " INFO " not in done.stderr  # Ray's client tells of uploads and connections
    assert (run / "model" / "model.safetensors").is_file()
    assert json.loads((run / "report.json").read_text())["epochs"] == LONG


@pytest.mark.slow
def test_a_submitted_sweep_ends_with_its_best_settings_and_its_exit_code(
    head: Head, place: Path
) -> None:
    done = submit(head, place, "tune", "sweep.yaml", "data.root=set", "run_dir=runs/sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = place / "runs" / "sweep"
    assert len(lines(sweep / "results.csv")) == 1 + SWEEP["tune"]["trials"]
    assert yaml.safe_load((sweep / "best.yaml").read_text())["data"]["root"] == str(place / "set")


def test_a_submitted_inference_ends_with_its_map_whose_node_joins_and_is_killed(
    head: Head, node: subprocess.Popen[bytes], place: Path, cracks: Path
) -> None:
    out = place / "killed.gpkg"
    wait_for_nodes(head, 2)
    command = (*infer_arguments(out, place), "actors=3")  # one more than the head has room for
    with running(head, place, *command) as process:
        parts = out.with_suffix(".work") / "parts"
        wait_until(lambda: len(list(parts.glob("*.parquet"))) >= 5, PATIENCE_S)
        raylets = [pid for pid in processes(node.pid) if "raylet" in name_of(pid)]
        assert raylets
        for pid in raylets:
            os.kill(pid, signal.SIGKILL)
        done = finished(process)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "broken.tif" in done.stdout
    shown = [
        line for line in done.stdout.splitlines() if "(raylet)" not in line
    ]  # the killed one's
    assert not any("core_worker" in line for line in shown)  # Ray Data's spurious line
    assert {"crack", "outline", "inspected", "run"} <= {name for name, _ in list_layers(out)}
    (area_m2,) = read_dataframe(out, layer="crack")["area_m2"]
    assert area_m2 == pytest.approx((SIDE * GSD_M) ** 2)  # no block is missing
    _, *written = lines(out.with_suffix(".work") / "job.jsonl")
    names = [json.loads(line)["block_id"] for line in written]
    assert len(names) == len(set(names)) == (SIDE // 64) ** 2
    for layer in ("crack", "outline"):
        columns = {"sql": f'SELECT * FROM "{layer}" ORDER BY {layer}_id', "sql_dialect": "SQLITE"}
        one, other = (read_dataframe(path, **columns) for path in (cracks, out))
        assert one.to_wkb().equals(other.to_wkb())


def infer_arguments(out: Path, place: Path) -> tuple[str, ...]:
    return "infer", "infer.yaml", "tiles=tiles", f"model={place / 'untrained'}", f"out={out}"


def submit(
    head: Head, place: Path, *arguments: str, token: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`wpcrack submit` as a user types it, to its end."""
    with running(head, place, *arguments, token=token) as process:
        return finished(process)


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """A command at its end."""
    output, errors = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@contextmanager
def running(
    head: Head, place: Path, *arguments: str, token: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "jobs.cli", "submit", *arguments, "--address", head.url]
    process = subprocess.Popen(
        command,
        env=head.environment(token) | {"PYTHONPATH": str(ROOT)},
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for_nodes(head: Head, count: int) -> None:
    """Wait until a cluster has so many nodes, in one process that has its token."""
    code = (
        "import sys, time; from jobs.cluster.api import nodes\n"
        f"while len(nodes(sys.argv[1])) != {count}: time.sleep(0.1)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, head.url],
        env=head.environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert run.returncode == 0, run.stderr


def draw_tiles(folder: Path) -> None:
    """A street in two files, and a third that is cut off."""
    left, right = ((10, 20), (310, 340), (620, 430)), ((15, 600), (340, 270), (610, 40))
    image, _ = street(SIDE, ((left, 5), (right, 5)))
    half = SIDE // 2
    for row in (0, half):
        write_tile(folder / f"r{row}.tif", image[row : row + half], row)
    (folder / "broken.tif").write_bytes((folder / "r0.tif").read_bytes()[:50])


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def name_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""

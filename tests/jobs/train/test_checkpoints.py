"""What a training continues from: complete or absent, newest and best, also on a full disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import image_level_set, tiny_training, wait_until
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from jobs.runtime.signals import stop_on_sigterm
from jobs.train import checkpoints as train_states
from jobs.train.checkpoints import (
    RUN_ID,
    SNAPSHOT,
    STATE,
    WITHIN,
    LocalStates,
    RayStates,
    complete_states,
    drop_states,
    mend_list,
    newest_state,
    require_same_storage,
    require_storage,
    storage_of,
)
from jobs.train.folder import CHECKPOINTS, METRICS, read_metrics
from jobs.train.job import TrainJob
from jobs.train.loop import quiet_board, train
from jobs.train.pace import LEAVING_S, LOOK_S, Pace
from jobs.train.plan import plan_training
from jobs.train.run import Watch, explain_failure, run_training
from wpcrack.data.batches import Shard
from wpcrack.errors import ConfigError, StorageError, TrainingError, WpcrackError
from wpcrack.training.trainer import EpochReport, Position

CLOCK = ("train/images_per_s", "train/data_wait", "seconds")


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_level_set(tmp_path_factory.mktemp("set"), side=48)


def tiny_job(data_set: Path, run_dir: Path, **scaling: Any) -> TrainJob:
    steps = {"epoch_steps": 2, "steps": {"warmup": 4, "adversarial": 4, "detector": 8}}
    return TrainJob.model_validate(tiny_training(data_set, run_dir, train=steps, scaling=scaling))


def measured(run_dir: Path) -> list[dict[str, Any]]:
    """Metrics without those that depend on the clock."""
    lines = read_metrics(run_dir / METRICS)
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    run_training(tiny_job(data_set, run_dir))
    return run_dir


def assert_same_run(found: Path, wanted: Path) -> None:
    assert measured(found) == measured(wanted)
    a, b = (run_dir / "model" / "model.safetensors" for run_dir in (found, wanted))
    assert a.read_bytes() == b.read_bytes()
    a, b = (complete_states(run_dir / CHECKPOINTS)[-1] / STATE for run_dir in (found, wanted))
    first, second = (torch.load(path, weights_only=True)["nets"] for path in (a, b))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


# -- what is kept ------------------------------------------------------------------------------


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`LocalStates` outside a training."""
    monkeypatch.setattr("ray.train.report", lambda metrics: None)


def keep(run_dir: Path, scores: list[float], num_to_keep: int) -> list[int]:
    """Epochs whose states are left after keeping one for each score."""
    states = LocalStates(tiny_job(run_dir, run_dir, num_to_keep=num_to_keep))
    for epoch, score in enumerate(scores):
        run_dir.mkdir(exist_ok=True)
        with (run_dir / METRICS).open("a") as file:
            file.write(json.dumps({"epoch": epoch, "stage": "warmup", "val/score": score}) + "\n")
        report = EpochReport(epoch, "detector", epoch, {"val/score": score}, False)
        states.keep({"epoch": epoch}, report)
    latest = states.latest()
    assert latest is not None
    assert latest["epoch"] == len(scores) - 1
    return [int(path.name.partition("_")[2]) for path in complete_states(run_dir / CHECKPOINTS)]


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    ("scores", "number", "left"),
    [
        ([0.1, 0.9, 0.5, 0.2], 2, [1, 2, 3]),
        ([0.1, 0.2, 0.3, 0.4], 2, [2, 3]),
        ([0.4, 0.3, 0.2, 0.1], 1, [0, 3]),
        ([0.5, 0.5, 0.5], 1, [2]),
        ([-1.0, -2.0], 5, [0, 1]),
    ],
)
def test_the_best_states_are_kept_and_always_the_newest(
    tmp_path: Path, scores: list[float], number: int, left: list[int]
) -> None:
    assert keep(tmp_path / "run", scores, number) == left


@pytest.mark.usefixtures("silent")
def test_a_half_written_state_is_never_loaded(tmp_path: Path) -> None:
    keep(tmp_path / "run", [0.1, 0.2], 2)
    folder = tmp_path / "run" / CHECKPOINTS
    whole = (folder / "epoch_00001" / STATE).read_bytes()
    for name in ("epoch_00002", ".epoch_00003.new"):
        (folder / name).mkdir()
        (folder / name / STATE).write_bytes(whole[: len(whole) // 2])
    (folder / "epoch_00004").mkdir()
    state = newest_state(folder)
    assert state is not None
    assert state["epoch"] == 1


# -- within an epoch ---------------------------------------------------------------------------


@pytest.mark.usefixtures("silent")
def test_a_state_within_an_epoch_is_the_newest_until_its_epoch_ends(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    keep(run_dir, [0.2, 0.1], 2)
    states = LocalStates(tiny_job(run_dir, run_dir, num_to_keep=2))
    for step in (9, 10):
        states.keep_within({"step": step}, Position(epoch=2, step=step))
        latest = states.latest()
        assert latest is not None
        assert latest["step"] == step
    kept = [path.name for path in complete_states(run_dir / CHECKPOINTS)]
    assert kept == ["epoch_00000", "epoch_00001", "epoch_00002_step_000000010"]
    states.keep({"epoch": 2}, EpochReport(2, "detector", 12, {"val/score": 0.0}, False))
    kept = [path.name for path in complete_states(run_dir / CHECKPOINTS)]
    assert kept == ["epoch_00000", "epoch_00001", "epoch_00002"]


def due(pace: Pace, clock: list[float], seconds: int) -> list[int]:
    """Seconds, of one step each, after which a state is due, which then is kept."""
    found = []
    for second in range(seconds):
        clock[0] += 1
        if pace.is_due():
            found.append(second)
            pace.restart()
    return found


def test_a_state_is_due_after_its_time_and_at_once_when_a_machine_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, leaving, asked = [0.0], [False], [0]
    monkeypatch.setattr("jobs.train.pace.time.monotonic", lambda: clock[0])

    def is_leaving() -> bool:
        asked[0] += 1
        return leaving[0]

    for minutes, wanted in ((1.0, 2), (None, 0)):
        leaving[0], asked[0] = False, 0
        pace = Pace(minutes, torch.device("cpu"), is_leaving)
        moments = due(pace, clock, 130)
        assert len(moments) == wanted
        assert np.all(np.abs(np.diff([-1, *moments]) - 60) <= LOOK_S)
        assert asked[0] <= 2 * 130 / LOOK_S  # each makes the ranks wait for each other
        leaving[0] = True
        moments = due(pace, clock, 40)
        assert moments[0] < LOOK_S
        assert np.all(np.diff(moments) <= LEAVING_S + LOOK_S)
        assert len(moments) <= 1 + 40 / LEAVING_S


class Notice:
    """What a worker sees of Ray Train: a list of states, and from a step on that a node leaves."""

    def __init__(self, root: Path, reads: int) -> None:
        self.root, self.reads, self.names = root, reads, list[str]()

    def get_preemption_info(self) -> object:
        self.reads -= 1
        return None if self.reads > 0 else "a node leaves"

    def report(self, metrics: object, checkpoint: Any, checkpoint_dir_name: str) -> None:
        shutil.copytree(checkpoint.path, self.root / checkpoint_dir_name)
        self.names.append(Path(checkpoint_dir_name).name)
        if WITHIN in checkpoint_dir_name:
            raise KeyboardInterrupt  # and is gone


def test_at_the_notice_of_a_leaving_machine_a_state_is_kept_that_ends_as_an_undisturbed_run(
    data_set: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(data_set, tmp_path / "run", checkpoint_minutes=None)
    job.run_dir.mkdir()
    node = Notice(job.run_dir, reads=2)
    monkeypatch.setattr("ray.train.get_checkpoint", lambda: None)
    monkeypatch.setattr("ray.train.get_preemption_info", node.get_preemption_info)
    monkeypatch.setattr("ray.train.report", node.report)
    monkeypatch.setattr("jobs.train.pace.LOOK_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(job, Shard(), torch.device("cpu"), RayStates(job), None)
    assert node.names == ["epoch_00000", "epoch_00001_step_000000003"]
    monkeypatch.undo()
    run_training(job)
    assert_same_run(job.run_dir, undisturbed)


# -- Ray's list --------------------------------------------------------------------------------


def with_list(run_dir: Path, listed: list[int]) -> Path:
    """A run folder whose list of checkpoints, as Ray writes it, names these epochs."""
    results = [{"checkpoint_dir_name": f"checkpoints/epoch_{k:05d}", "metrics": {}} for k in listed]
    values = {"checkpoint_results": results, "latest_checkpoint_result": results[-1]}
    (run_dir / SNAPSHOT).write_text(json.dumps(values))
    return run_dir


@pytest.mark.usefixtures("silent")
def test_a_list_that_knows_the_states_is_left_alone(tmp_path: Path) -> None:
    assert keep(tmp_path / "run", [0.3, 0.2, 0.1], 1) == [0, 2]
    run_dir = with_list(tmp_path / "run", [0, 2])
    mend_list(run_dir)
    assert (run_dir / SNAPSHOT).exists()
    assert len(complete_states(run_dir / CHECKPOINTS)) == 2


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("defect", ["halved", "empty", "older", "names a missing state"])
def test_a_list_that_is_wrong_gives_way_to_the_newest_state(tmp_path: Path, defect: str) -> None:
    keep(tmp_path / "run", [0.3, 0.2, 0.1], 1)
    run_dir = with_list(tmp_path / "run", [0, 2])
    text = (run_dir / SNAPSHOT).read_text()
    if defect == "halved":
        (run_dir / SNAPSHOT).write_text(text[:40])
    elif defect == "empty":
        (run_dir / SNAPSHOT).write_text("")
    elif defect == "older":
        with_list(run_dir, [0])
    else:
        with_list(run_dir, [0, 1, 2])
    mend_list(run_dir)
    assert not (run_dir / SNAPSHOT).exists()
    assert [path.name for path in complete_states(run_dir / CHECKPOINTS)] == ["epoch_00002"]


@pytest.mark.usefixtures("silent")
def test_a_list_that_misses_a_state_within_an_epoch_gives_way_to_it(tmp_path: Path) -> None:
    keep(tmp_path / "run", [0.3, 0.2], 1)
    run_dir = with_list(tmp_path / "run", [0, 1])
    states = LocalStates(tiny_job(run_dir, run_dir))
    states.keep_within({"step": 5}, Position(epoch=2, step=5))
    mend_list(run_dir)
    assert not (run_dir / SNAPSHOT).exists()
    assert [WITHIN in path.name for path in complete_states(run_dir / CHECKPOINTS)] == [True]


def test_a_list_without_any_state_is_dropped(tmp_path: Path) -> None:
    with_list(tmp_path, [0])
    mend_list(tmp_path)
    assert not (tmp_path / SNAPSHOT).exists()


# -- where -------------------------------------------------------------------------------------


def test_checkpoints_lie_in_the_run_folder_unless_told_otherwise(tmp_path: Path) -> None:
    assert storage_of(tiny_job(tmp_path, tmp_path / "run")) == (str(tmp_path), "run")


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_elsewhere_runs_of_one_name_do_not_meet(tmp_path: Path, scheme: str) -> None:
    names = set()
    for folder in ("a", "b"):
        place = f"{scheme}{tmp_path}/states"
        job = tiny_job(tmp_path, tmp_path / folder / "run", storage_path=place, num_workers=1)
        job.run_dir.mkdir(parents=True)
        path, name = storage_of(job)
        assert path == place
        assert (path, name) == storage_of(job)
        names.add(name)
        (job.run_dir / RUN_ID).unlink()  # as resume=never does
        names.add(storage_of(job)[1])
    assert len(names) == 4
    assert all(name.startswith("run-") for name in names)
    assert (tmp_path / "states").is_dir()


def test_a_run_goes_on_only_where_its_states_lie(tmp_path: Path) -> None:
    def run(name: str = "run", place: str | None = "states") -> TrainJob:
        kept = {} if place is None else {"storage_path": str(tmp_path / place), "num_workers": 1}
        return tiny_job(tmp_path, tmp_path / name, **kept)

    def refusal(job: TrainJob) -> str:
        with pytest.raises(ConfigError) as caught:
            require_same_storage(job)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "run").mkdir()
    states = tmp_path / "states" / storage_of(run())[1] / CHECKPOINTS
    require_same_storage(run(place=None))  # no epoch is lost
    (tmp_path / "run" / METRICS).write_text('{"epoch": 0, "stage": "warmup"}\n')
    states.mkdir(parents=True)
    require_same_storage(run())
    assert f"set scaling.storage_path={tmp_path / 'states'} again" in refusal(run(place=None))
    assert f"and not in {states.parent.name} at {tmp_path / 'b'}" in refusal(run(place="b"))
    (tmp_path / "states").rename(tmp_path / "b")
    require_same_storage(run(place="b"))
    (tmp_path / "run").rename(tmp_path / "renamed")
    assert "give the folder the name run again" in refusal(run("renamed", "b"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / METRICS).write_text('{"epoch": 0, "stage": "warmup"}\n')
    require_same_storage(run("new"))  # from states in the run folder on


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_states_of_an_ended_trial_are_dropped_where_they_lie(tmp_path: Path, scheme: str) -> None:
    place = f"{scheme}{tmp_path}/states"
    jobs = [
        tiny_job(tmp_path, tmp_path / name, storage_path=place, num_workers=1)
        for name in ("00000", "00001")
    ]
    for job in jobs:
        drop_states(job)  # there are none
        job.run_dir.mkdir()
        (job.run_dir / CHECKPOINTS).mkdir()
        (tmp_path / "states" / storage_of(job)[1] / CHECKPOINTS).mkdir(parents=True)
    drop_states(jobs[0])
    assert [path.name[:5] for path in (tmp_path / "states").iterdir()] == ["00001"]
    assert not (jobs[0].run_dir / CHECKPOINTS).exists()
    (jobs[1].run_dir / RUN_ID).write_text(f"\n{place}\n\n")  # damaged
    drop_states(jobs[1])
    assert [path.name[:5] for path in (tmp_path / "states").iterdir()] == ["00001"]


@pytest.mark.parametrize("now", ["states", "other", None])
def test_a_new_start_drops_the_states_of_the_run_before_where_they_lie(
    data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: str | None
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    place = str(tmp_path / "states")
    old = storage_of(tiny_job(data_set, run_dir, storage_path=place, num_workers=1))[1]
    (tmp_path / "states" / old / CHECKPOINTS).mkdir(parents=True)
    (tmp_path / "states" / "run-of-others").mkdir()
    elsewhere = {} if now is None else {"storage_path": str(tmp_path / now), "num_workers": 1}
    job = tiny_job(data_set, run_dir, **elsewhere).model_copy(update={"resume": "never"})

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.train.run.fit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_training(job)
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["run-of-others"]


@pytest.mark.parametrize("resume", ["auto", "force"])
def test_a_run_whose_states_lie_elsewhere_is_refused_before_work_and_keeps_its_epochs(
    data_set: Path, tmp_path: Path, resume: str
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    storage_of(tiny_job(data_set, run_dir, storage_path=str(tmp_path / "a"), num_workers=1))
    lines = '{"epoch": 0, "stage": "warmup"}\n{"epoch": 1, "stage": "warmup"}\n'
    (run_dir / METRICS).write_text(lines)
    job = tiny_job(data_set, run_dir).model_copy(update={"resume": resume})
    for start in (run_training, plan_training):
        with pytest.raises(ConfigError, match=r"has its checkpoints in run-.* resume=never"):
            start(job)
    assert (run_dir / METRICS).read_text() == lines


@pytest.mark.parametrize(
    ("place", "reason"), [("nonsense://a/b", "nrecognized filesystem"), ("/proc/x/y", "/proc/x")]
)
def test_a_place_that_cannot_be_used_is_one_sentence(place: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        require_storage(place)
    assert "\n" not in str(caught.value)


def test_a_run_folder_is_no_uri_and_storage_needs_workers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"s3://b/run is a URI.*scaling\.storage_path"):
        tiny_job(tmp_path, "s3://b/run")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="storage_path is for Ray's workers"):
        tiny_job(tmp_path, tmp_path, storage_path="s3://b/runs")


# -- a full disk -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["state", "rename", "metrics"])
def test_on_a_full_disk_one_sentence_says_so_and_the_last_state_goes_on(
    data_set: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    job = tiny_job(data_set, tmp_path / "run")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(line: dict[str, Any]) -> None:
        def fails(*_: Any, **__: Any) -> None:
            raise full

        if line["epoch"] == 3:
            target = {
                "state": (torch, "save"),
                "rename": (os, "replace"),
                "metrics": (json, "dumps"),
            }[where]
            monkeypatch.setattr(*target, fails)

    with pytest.raises(WpcrackError, match="No space left on device") as caught:
        run_training(job, watch=Watch(after_epoch=fill))
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert "free space" in str(caught.value)
    folder = job.run_dir / CHECKPOINTS
    assert complete_states(folder)[-1].name == "epoch_00003"
    assert not list(folder.glob(".*"))
    run_training(job)
    assert_same_run(job.run_dir, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_is_really_full_loses_nothing(
    data_set: Path, undisturbed: Path, small_disk: Path
) -> None:
    job, ballast = tiny_job(data_set, small_disk / "run"), small_disk / "ballast"

    def fill(line: dict[str, Any]) -> None:
        if line["epoch"] == 3:
            left = shutil.disk_usage(small_disk).free
            ballast.write_bytes(bytes(max(0, left - 200_000)))

    with pytest.raises(WpcrackError, match="No space left on device"):
        run_training(job, watch=Watch(after_epoch=fill))
    assert complete_states(job.run_dir / CHECKPOINTS)[-1].name == "epoch_00003"
    ballast.unlink()
    run_training(job)
    assert_same_run(job.run_dir, undisturbed)


def test_a_full_disk_that_ray_meets_is_the_disks_error_and_a_bug_is_none() -> None:
    def failure(cause: Exception) -> Exception:
        error = RuntimeError("workers")
        error.__dict__["worker_failures"] = {1: cause}
        return explain_failure(error)

    full = OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left")
    assert isinstance(failure(full), StorageError)
    assert str(failure(full)).startswith("a checkpoint cannot be written (No space left on device)")
    assert isinstance(failure(ValueError("a bug")), TrainingError)


def test_what_cannot_be_written_for_tensorboard_is_raised_and_no_thread_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    board = SummaryWriter(str(tmp_path))
    monkeypatch.setattr(RecordWriter, "write", fails)
    board.add_scalar("x", 1.0)
    with quiet_board(), pytest.raises(OSError, match="No space"):
        board.flush()
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_that_is_not_the_disks_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        train_states.write_state({}, tmp_path, 0)


def test_a_stop_while_a_state_is_written_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping:
        def __reduce__(self) -> tuple[Any, ...]:
            signal.raise_signal(signal.SIGTERM)
            return (dict, ())

    folder = tmp_path / "epoch_00000"
    folder.mkdir()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_on_sigterm():
        train_states.write_state({"epoch": 7, "stopping": Stopping()}, folder, 7)
    assert complete_states(tmp_path) == [folder]
    assert torch.load(folder / train_states.STATE, weights_only=False)["epoch"] == 7
    assert signal.getsignal(signal.SIGINT) is before


# -- the driver dies ---------------------------------------------------------------------------


DRIVERS = """
import os, signal, sys
from pathlib import Path
from jobs.train.job import TrainJob
from jobs.train.run import run_training

job = TrainJob.model_validate_json(Path(sys.argv[1]).read_text())
for _ in range(2):
    driver = os.fork()
    if not driver:
        run_training(job)
        os._exit(0)
    print(driver, flush=True)
    if os.WTERMSIG(os.waitpid(driver, 0)[1]) != signal.SIGKILL:
        sys.exit("not killed")
"""
"""Two drivers, one after the other, forks of a process that imports torch once."""


def test_a_driver_that_is_killed_anywhere_ends_like_an_undisturbed_one(
    data_set: Path, undisturbed: Path, tmp_path: Path
) -> None:
    job = tiny_job(data_set, tmp_path / "run")
    (tmp_path / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-c", DRIVERS, str(tmp_path / "job.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        for epochs, pause in ((1, 0.0), (3, 0.15)):
            driver = int(parent.stdout.readline())
            wait_until(lambda n=epochs: len(read_metrics(job.run_dir / METRICS)) >= n)  # type: ignore[misc]
            time.sleep(pause)
            os.kill(driver, signal.SIGKILL)
    assert parent.returncode == 0
    run_training(job)
    assert_same_run(job.run_dir, undisturbed)

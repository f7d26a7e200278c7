"""Training through Ray Train: the same numbers whatever the workers, continued after a stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from factories import (
    TINY_MODEL,
    descendants,
    ending_within,
    free_port,
    processes,
    running_python,
    tiny_model,
    tiny_training,
    wait_until,
)
from rays import all_helpers, shared_ray

from jobs.runtime import shared as runtime_shared
from jobs.runtime.allocator import SETTINGS
from jobs.runtime.shared import NotShared, share
from jobs.train import loop as train_loop
from jobs.train.folder import METRICS, read_metrics
from jobs.train.job import TrainJob
from jobs.train.run import FUSING, make_trainer, run_training
from wpcrack.errors import CheckpointError, DataError
from wpcrack.model import load_model
from wpcrack.networks import Networks
from wpcrack.scoring.windows import WindowScores
from wpcrack.synthetic import WindowConfig, draw_training_street, draw_window
from wpcrack.training import fusion
from wpcrack.training.fusion import Fusion

WINDOW = WindowConfig(size=64)
WORKER = b"RayTrainWorker"
PATIENCE_S = 1200.0
"""For hangs alone: no run takes a tenth of it on a quiet machine."""
STEPS: dict[str, Any] = {"steps": {"warmup": 2, "adversarial": 2, "detector": 2}}


@pytest.fixture(scope="module")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    for number in range(4):
        street = draw_training_street(rng, WINDOW)
        for has_crack, folder in ((True, "crack"), (False, "road")):
            (root / folder).mkdir(exist_ok=True)
            for k in range(3):
                image = draw_window(rng, WINDOW, has_crack, street).image
                path = root / folder / f"street{number}_r{k}_c{int(has_crack)}.png"
                assert cv2.imwrite(str(path), image[..., ::-1])
    return root


def make_job(root: Path, run_dir: Path, workers: int, **changes: Any) -> TrainJob:
    settings = tiny_training(root, run_dir, workers, **{"train": STEPS, **changes})
    return TrainJob.model_validate(settings)


def measured(run_dir: Path) -> list[dict[str, Any]]:
    """Metrics without those that depend on the clock."""
    clock = ("train/images_per_s", "train/data_wait", "seconds")
    return [
        {k: v for k, v in line.items() if k not in clock}
        for line in read_metrics(run_dir / METRICS)
    ]


@pytest.fixture(scope="module")
def whole(drawn_set: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    """An undisturbed run in this process."""
    job = make_job(drawn_set, tmp_path_factory.mktemp("whole") / "run", 0)
    assert not run_training(job).already_finished
    return job


def test_a_run_leaves_a_loadable_model_metrics_and_a_card(whole: TrainJob) -> None:
    root, report = whole.run_dir, run_training(whole)  # finished already
    assert report.epochs == 6
    assert load_model(root).info.trained["epoch"] == report.best_epoch
    assert json.loads((root / "report.json").read_text())["items"]["val"]["sources"] >= 1
    assert "selected on this split" in (root / "MODEL_CARD.md").read_text()
    assert list((root / "tensorboard").iterdir())
    assert sorted(p.name for p in (root / "checkpoints").iterdir()) == [
        "epoch_00004",
        "epoch_00005",
    ]


def test_a_masked_validation_set_selects_by_iou_and_the_report_says_so(
    drawn_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    for folder in (photos, masks):
        folder.mkdir()
    rng = np.random.default_rng(1)
    drawn = draw_window(rng, WINDOW, True, draw_training_street(rng, WINDOW))
    assert cv2.imwrite(str(photos / "street0.png"), drawn.image[..., ::-1])
    assert cv2.imwrite(str(masks / "street0.png"), drawn.mask.astype(np.uint8) * 255)
    data = {"root": drawn_set, "val_images": photos, "val_masks": masks}
    report = run_training(make_job(drawn_set, tmp_path / "run", 0, data=data))
    lines = [x for x in read_metrics(tmp_path / "run" / METRICS) if x["stage"] != "warmup"]
    best = max(lines, key=lambda line: line["val/iou"])
    assert (report.best_epoch, report.score) == (best["epoch"], best["val/iou"])
    assert "val/score" in best
    values = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "masked validation images" in values["selection"]
    assert "1 of 1 masked validation images are sources" in capsys.readouterr().err


def test_validation_images_without_masks_are_refused(drawn_set: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="val_images needs val_masks too"):
        make_job(drawn_set, tmp_path, 0, data={"root": drawn_set, "val_images": tmp_path})


def test_a_finished_run_is_left_as_it_is(
    whole: TrainJob, capsys: pytest.CaptureFixture[str]
) -> None:
    model = whole.run_dir / "model" / "model.safetensors"
    before = model.stat().st_mtime_ns
    assert run_training(whole).already_finished
    assert "finished already" in capsys.readouterr().err
    assert model.stat().st_mtime_ns == before


def test_a_continued_run_equals_an_undisturbed_one(
    drawn_set: Path, whole: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = train_loop.RunFiles.write

    def stop_after_three(self: Any, report: Any) -> None:
        if report.epoch == 3:
            raise KeyboardInterrupt
        write(self, report)

    monkeypatch.setattr(train_loop.RunFiles, "write", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        run_training(make_job(drawn_set, tmp_path / "cut", 0))
    monkeypatch.setattr(train_loop.RunFiles, "write", write)
    lines = read_metrics(tmp_path / "cut" / METRICS)
    lines[0]["seconds"] = 1000.0
    (tmp_path / "cut" / METRICS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert 1000 < run_training(make_job(drawn_set, tmp_path / "cut", 0)).seconds < 2000
    assert measured(tmp_path / "cut") == measured(whole.run_dir)
    a, b = (p / "model" / "model.safetensors" for p in (tmp_path / "cut", whole.run_dir))
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("minutes", [None, 0.01])
def test_a_model_that_looks_at_several_scales_is_fused_as_drawn_pavement_says(
    drawn_set: Path,
    tmp_path: Path,
    minutes: float | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_model(tmp_path / "base" / "model", scales=(1.0, 0.5))
    asked: list[tuple[float, ...]] = []

    def chosen(networks: Networks, scales: tuple[float, ...], _: Any) -> Fusion:
        asked.append(scales)
        return Fusion(2.5, {2.5: 0.61234})

    monkeypatch.setattr(fusion, "choose_fusion", chosen)
    model = {**TINY_MODEL, "init": tmp_path / "base"}
    train = {**STEPS, "max_minutes": minutes}
    run_training(make_job(drawn_set, tmp_path / "run", 0, model=model, train=train))
    assert capsys.readouterr().err.count(FUSING) == 1
    found = load_model(tmp_path / "run").info
    assert asked == [(1.0, 0.5)]
    assert (found.scales, found.fusion_power) == ((1.0, 0.5), 2.5)
    assert found.trained["drawn_iou"] == 0.6123
    assert found.trained["epoch"] >= 0


def test_held_out_windows_judge_the_model_and_the_one_that_it_started_from(
    drawn_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model(tmp_path / "base" / "model")
    asked: list[tuple[int, float]] = []

    def scores(items: Any, predictor: Any, min_share: float) -> WindowScores:
        cracks, roads = (sum(i.has_crack == kind for i in items) for kind in (True, False))
        asked.append((len(items), min_share))
        assert predictor(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 64, 64)
        return WindowScores(cracks, cracks - len(asked), roads, 0)

    monkeypatch.setattr(train_loop, "score_windows", scores)
    model = {**TINY_MODEL, "init": tmp_path / "base"}
    every = {**STEPS, "val_items": 256}
    job = make_job(drawn_set, tmp_path / "run", 0, model=model, train=every)
    held_out = run_training(job).held_out
    trained, start = held_out["trained"], held_out["start"]
    n = trained.cracks + trained.roads
    assert asked == [(n, 0.002)] * 2
    assert (trained.found, start.found) == (trained.cracks - 1, trained.cracks - 2)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert n == sum(report["items"]["val"][kind] for kind in ("crack", "road"))
    assert report["held_out"]["start"]["found"] == start.found
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert f"| start | {start.found} of {start.cracks} | 0 of {start.roads} |" in card
    assert f"* Start: the networks start from model.init={tmp_path / 'base'}; 35% drawn" in card
    assert "* Weights: 50% trained, the rest of the model that it started from\n" in card

    monkeypatch.setattr(train_loop, "HELD_OUT_PX", 64 * 64 * 2)  # of many windows a part
    asked.clear()
    from_scratch = make_job(drawn_set, tmp_path / "other", 0, train=every)
    assert [*run_training(from_scratch).held_out] == ["trained"]
    assert asked == [(2, 0.002)]
    card = (tmp_path / "other" / "MODEL_CARD.md").read_text()
    assert "* Start: the shipped model has another model.encoder: the networks start from" in card
    assert "* Weights: 100% trained\n" in card


def test_a_start_that_is_gone_when_the_training_ends_costs_the_comparison_alone(
    drawn_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_model(tmp_path / "base" / "model")
    load = train_loop.load_model

    def loading(folder: Path) -> Any:
        if folder == base:
            raise CheckpointError("gone")
        return load(folder)

    monkeypatch.setattr(train_loop, "load_model", loading)
    model = {**TINY_MODEL, "init": tmp_path / "base"}
    report = run_training(make_job(drawn_set, tmp_path / "run", 0, model=model))
    assert [*report.held_out] == ["trained"]


def test_a_truncated_image_is_named_before_training(drawn_set: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for folder in ("crack", "road"):
        (root / folder).mkdir(parents=True)
        for path in (drawn_set / folder).iterdir():
            (root / folder / path.name).write_bytes(path.read_bytes())
    broken = root / "road" / "street0_r0_c0.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"street0_r0_c0\.png"):
        run_training(make_job(root, tmp_path / "run", 0))


def test_a_worker_without_the_shared_folder_writes_nothing(
    drawn_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.train.loop import train_loop

    monkeypatch.setattr(runtime_shared, "NEW_NAME_S", 0.0)

    job = make_job(drawn_set, tmp_path / "run", 0)
    job.run_dir.mkdir()
    with share(job.run_dir) as shared:
        job.run_dir.rename(tmp_path / "of the driver")
        with pytest.raises(NotShared, match="does not see"):
            train_loop(job.model_dump(mode="json"), shared=shared)
        assert not job.run_dir.exists()


def test_lost_spot_machines_are_no_failures_and_no_wait_is_too_long(
    drawn_set: Path, tmp_path: Path
) -> None:
    job = make_job(drawn_set, tmp_path / "run", 2, scaling={"max_failures": 1})
    trainer = make_trainer(lambda _: None, job.absolute())
    assert trainer.scaling_config.num_workers == 2
    policy = trainer.run_config.failure_config
    assert (policy.max_failures, policy.max_preemption_failures) == (1, -1)
    assert policy.controller_failure_limit == -1  # a group that finds no room is tried again
    assert trainer.backend_config.timeout_s > 24 * 3600  # 30 minutes are torch's own


def test_a_range_of_workers_is_rays(drawn_set: Path, tmp_path: Path) -> None:
    job = make_job(drawn_set, tmp_path / "run", 2, scaling={"num_workers": "1..2"})
    trainer = make_trainer(lambda _: None, job.absolute())
    assert trainer.scaling_config.num_workers == (1, 2)


@pytest.mark.parametrize("use_gpu", [False, True])
def test_a_worker_without_a_gpu_sees_none(drawn_set: Path, tmp_path: Path, use_gpu: bool) -> None:
    job = make_job(drawn_set, tmp_path / "run", 2, scaling={"use_gpu": use_gpu})
    trainer = make_trainer(lambda _: None, job.absolute())
    hidden = trainer.run_config.worker_runtime_env["env_vars"].get("CUDA_VISIBLE_DEVICES")
    assert hidden == (None if use_gpu else "")


# -- on Ray ------------------------------------------------------------------------------------

USERS = "from contextlib import nullcontext as session"
OURS = "from rays import shared_ray as session"
"""Whose Ray a driver starts: that of a user, or one with few processes."""
EPOCHS = 12
LONGER = {"train": {"epoch_steps": 4, "steps": {"warmup": 8, "adversarial": 8, "detector": 32}}}
"""Epochs of some tenths of a second, so that a kill meets them in the middle."""


RANKS = """
import os, sys
from pathlib import Path
import torch, torch.distributed as dist, ray.train
from jobs.train.checkpoints import LocalStates
from wpcrack.data.batches import Shard
from jobs.train.job import TrainJob
from jobs.train.loop import train

class NoStates(LocalStates):
    def keep(self, state, report): pass

job = TrainJob.model_validate_json(Path(sys.argv[1]).read_text())
ray.train.report = lambda _: None
child = os.fork()
rank = int(bool(child))
dist.init_process_group("gloo", f"file://{sys.argv[2]}", rank=rank, world_size=2)
states = NoStates(job) if rank else LocalStates(job)
train(job, Shard(rank, 2), torch.device("cpu"), states, None)
dist.destroy_process_group()
if rank and os.waitpid(child, 0)[1]:
    sys.exit("rank 0 has failed")
"""
"""Two ranks that have torch alone in common, and no Ray: forks of a process that loads it once."""


@pytest.fixture(scope="module")
def two_undisturbed(drawn_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks without Ray."""
    folder = tmp_path_factory.mktemp("two")
    job = make_job(drawn_set, folder / "run", 2, **LONGER)
    job.run_dir.mkdir()
    (folder / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-c", RANKS, str(folder / "job.json"), str(folder / "meeting")]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return job.run_dir


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A Ray of this process, for the trainings that it runs itself."""
    with shared_ray():
        yield


def assert_close(found: Path, wanted: Path, tolerance: float) -> None:
    """Metrics of each epoch, and which epoch was best."""
    for a, b in zip(measured(found), measured(wanted), strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert value == pytest.approx(b[key], abs=tolerance), key


@pytest.fixture(scope="module")
def alone(drawn_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run in this process."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    run_training(make_job(drawn_set, run_dir, 0, **LONGER))
    return run_dir


@pytest.fixture(scope="module")
def one_of_two_killed(
    ray_here: None, drawn_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of two workers, of which one is killed in the middle."""
    run_dir = tmp_path_factory.mktemp("killed") / "run"

    def kill_one() -> None:
        wait_until(lambda: len(read_metrics(run_dir / METRICS)) >= 3)
        time.sleep(0.3)
        ours = {*descendants(os.getpid())} & {*processes(None, WORKER)}
        os.kill(max(ours), signal.SIGKILL)

    with ending_within(PATIENCE_S), ThreadPoolExecutor(1) as other:
        killed = other.submit(kill_one)
        run_training(make_job(drawn_set, run_dir, 2, **LONGER), local=True)
        killed.result()
    return run_dir


@pytest.mark.ray
def test_ctrl_c_ends_every_process_and_the_same_command_continues(
    drawn_set: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    longer = {"train": {"steps": {"warmup": 2, "adversarial": 0, "detector": 20}}}
    job = make_job(drawn_set, run_dir, 1, **longer)
    with all_helpers(), started(job, tmp_path) as process:
        wait_until(lambda: len(read_metrics(run_dir / METRICS)) >= 2)
        variables = Path(f"/proc/{processes(process.pid, WORKER)[0]}/environ").read_text()
        assert variables.count("MALLOC_") == len(SETTINGS)  # it keeps what it frees
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        wait_until(lambda: not processes(process.pid))
    log = (tmp_path / "log").read_text()
    assert "the same command continues" in log
    assert "(raylet)" not in log  # Ray has no words of its own about it
    assert len(read_metrics(run_dir / METRICS)) < 22
    assert run_training(make_job(drawn_set, run_dir, 0, **longer)).epochs == 22


@pytest.mark.ray
def test_two_workers_give_the_numbers_of_one(one_of_two_killed: Path, alone: Path) -> None:
    """The first epochs end long before the kill."""
    first = measured(alone)[0]
    for key, value in measured(one_of_two_killed)[0].items():
        assert value == pytest.approx(first[key], abs=1e-4), key  # later ones round apart
    assert len(measured(one_of_two_killed)) == EPOCHS


@pytest.mark.ray
def test_a_killed_worker_of_two_changes_nothing(
    one_of_two_killed: Path, two_undisturbed: Path
) -> None:
    assert_close(one_of_two_killed, two_undisturbed, 1e-4)


@pytest.mark.ray
def test_a_killed_worker_and_a_killed_driver_change_nothing_bit_by_bit(
    ray_here: None, drawn_set: Path, alone: Path, tmp_path: Path
) -> None:
    """Checkpoints lie at a URI."""
    run_dir, place = tmp_path / "run", f"file://{tmp_path}/states"
    scaling = {"num_workers": 1, "cpus_per_worker": 1, "storage_path": place}
    job = make_job(drawn_set, run_dir, 1, scaling=scaling, **LONGER)
    with started(job, tmp_path, OURS) as process:
        for epochs in (2, 5):
            wait_until(lambda n=epochs: len(read_metrics(run_dir / METRICS)) >= n)  # type: ignore[misc]
            time.sleep(0.3)
            victim = processes(process.pid, WORKER)[0] if epochs == 2 else process.pid
            os.kill(victim, signal.SIGKILL)
        process.wait()
        assert len(read_metrics(run_dir / METRICS)) < EPOCHS
        with ending_within(PATIENCE_S):
            run_training(job, local=True)  # while the workers of the first still leave
    assert measured(run_dir) == measured(alone)
    a, b = (p / "model" / "model.safetensors" for p in (run_dir, alone))
    assert a.read_bytes() == b.read_bytes()
    assert not (run_dir / "checkpoints").exists()
    kept = {p.name for p in (tmp_path / "states").glob("run-*/checkpoints/*")}
    best = sorted(measured(run_dir), key=lambda x: (x["val/score"], x["epoch"]))[-2:]
    assert kept == {f"epoch_{epoch:05d}" for epoch in (*(x["epoch"] for x in best), 11)}


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_node_changes_nothing(
    drawn_set: Path, two_undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three nodes of one CPU; the one of a worker dies, the third takes its place."""
    from ray.cluster_utils import Cluster

    run_dir, port = tmp_path / "run", free_port()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    quick = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500}
    head = {"num_cpus": 0, "gcs_server_port": port, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
        job = make_job(drawn_set, run_dir, 2, **LONGER)
        with all_helpers(), started(job, tmp_path, local=False) as process:
            wait_until(lambda: len(read_metrics(run_dir / METRICS)) >= 3)
            time.sleep(0.3)
            hosts = [raylets[parent] for parent in parents_of_workers() if parent in raylets]
            assert len(hosts) == 2
            cluster.remove_node(hosts[-1], allow_graceful=False)
            assert process.wait(PATIENCE_S) == 0
    finally:
        cluster.shutdown()
    assert_close(run_dir, two_undisturbed, 1e-4)


def started(
    job: TrainJob, folder: Path, ray_of: str = USERS, *, local: bool = True
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A driver; its stderr goes to folder/log.

    Args:
        job: what it trains.
        folder: of its own files.
        ray_of: code that defines `session`, inside which it trains.
        local: never joins RAY_ADDRESS.
    """
    (folder / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from jobs.train.job import TrainJob\n"
        "from jobs.train.run import run_training\n"
        f"{ray_of}\n"
        f"job = TrainJob.model_validate_json(Path({str(folder / 'job.json')!r}).read_text())\n"
        "try:\n"
        f"    with session(): run_training(job, local={local})\n"
        "except KeyboardInterrupt: sys.exit(130)\n"
    )
    return running_python(code, folder / "log")


def parents_of_workers() -> list[int]:
    """Parents (raylets) of all of Ray Train's workers on this machine."""
    found = []
    for pid in processes(None, WORKER):
        with suppress(FileNotFoundError, ProcessLookupError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            found.append(int(stat.rsplit(")", 1)[1].split()[1]))
    return found

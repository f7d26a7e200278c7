"""What a job says about itself before, while and after it runs; a stand-in network, no Ray."""

from __future__ import annotations

import fcntl
import json
import time

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from typer.testing import CliRunner

from geo.errors import InputError
from jobs.cli import app
from jobs.infer import run as infer
from jobs.infer.inputs import open_mosaic
from jobs.infer.job import InferJob
from jobs.infer.plan import Forecast, make_plan
from jobs.infer.report import read_status
from jobs.infer.work_folder import LOCK, ManifestLine, Session, read_manifest
from jobs.infer.worker import BlockResult, BlockWorker
from wpcrack.errors import ConfigError

SIDE = 256


def write_tile(path, row=0, col=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((3, SIDE, SIDE), 150, np.uint8)
    image[:, 100:104] = 20
    place = from_origin(500_000 + col * 0.005, 5_700_000 - row * 0.005, 0.005, 0.005)
    with rasterio.open(path, "w", "GTiff", SIDE, SIDE, 3, "EPSG:25832", place, image.dtype) as tiff:
        tiff.write(image)
    return path


def darkness():
    return lambda windows: np.where(windows.mean(-1) < 80, 0.9, 0.1).astype(np.float32)


def job_of(folder, **values):
    small = {"lattice": {"window": 96, "overlap": 32, "blend": 16}, "block_strides": 2}
    given = {"tiles": str(folder / "tiles"), "model": model_of(folder), "out": folder / "o.gpkg"}
    return InferJob.model_validate(given | small | values)


def model_of(folder):
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "model.safetensors").touch()
    return folder / "run"


class Pool:
    """Takes Ray's place; stops after some blocks."""

    stop_after = 99

    def __call__(self, job, plan, todo, factory, *, local=False):
        worker = BlockWorker(plan, factory())
        for count, index in enumerate(todo):
            if count == self.stop_after:
                raise KeyboardInterrupt
            yield worker.run(index)


@pytest.fixture
def pool(monkeypatch):
    made = Pool()
    monkeypatch.setattr(infer, "compute", made)
    monkeypatch.setattr(infer, "load_model", lambda *_: darkness())
    return made


@pytest.fixture
def folder(tmp_path):
    write_tile(tmp_path / "tiles" / "a.tif")
    write_tile(tmp_path / "tiles" / "b.tif", 0, SIDE)
    return tmp_path


def files_in(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_the_plan_counts_blocks_and_pixels_and_writes_nothing(folder):
    job = job_of(folder, actors=2)
    before = files_in(folder)
    forecast = infer.plan_inference(job)
    assert files_in(folder) == before
    text = forecast.text()
    assert "2 tiles, 0.1 Mpx of 5 mm in 8 blocks" in text
    assert f"area      at most {2 * (SIDE * 0.005) ** 2:.0f} m2" in text
    assert "EPSG:25832, 512 x 256 pixels" in text
    assert "(assumed from another machine) with 2 actors" in text
    assert forecast.seconds == pytest.approx(2 * SIDE**2 / 1e6 / forecast.mpx_per_s)
    assert 0 < forecast.disk_bytes < forecast.free_bytes


def test_the_plan_of_half_a_job_counts_what_is_left_at_the_speed_that_was_measured(folder, pool):
    job = job_of(folder)
    pool.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        infer.run_inference(job)
    forecast = infer.plan_inference(job)
    assert len(forecast.finished) == 4
    assert "finished  4 of 8 blocks" in forecast.text()
    assert "measured on 4 blocks" in forecast.text()
    plan = make_plan(job, open_mosaic(job, None, lambda text: None))
    slow = [BlockResult(b.block_id, "inspected", "", (), 10**6, 0, 4.0) for b in plan.blocks[:4]]
    measured = Forecast.of(job_of(folder, actors=2), plan, slow)
    assert measured.mpx_per_s == pytest.approx(0.5)
    other = infer.plan_inference(job_of(folder, threshold=0.7))
    assert not other.finished
    assert "measured on 4 blocks before" in other.text()
    assert not infer.plan_inference(job_of(folder, resume="never")).finished


def test_the_plan_of_imagery_that_cannot_be_used_is_an_error(tmp_path):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "a.tif").write_text("no raster")
    with pytest.raises(InputError, match="no usable tile"):
        infer.plan_inference(job_of(tmp_path))


def test_a_disk_that_is_too_small_is_a_warning(folder):
    job = job_of(folder)
    plan = make_plan(job, open_mosaic(job, None, lambda text: None))
    assert "warning: the disk" in Forecast(plan, (), 1, 1.0, 10**7, 10**6).text()
    assert "warning" not in Forecast(plan, (), 1, 1.0, 10**6, 10**7).text()


def test_the_status_follows_a_job_from_its_start_to_its_end(folder, pool):
    job = job_of(folder)
    with pytest.raises(ConfigError, match=r"has no work folder o\.work"):
        read_status(job.out)
    pool.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        infer.run_inference(job)
    halted = read_status(job.out)
    assert (halted.done, halted.total, halted.failed, halted.is_running) == (3, 8, 0, False)
    assert halted.text().endswith("not running")
    with (job.work_folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_status(job.work_folder).is_running
    pool.stop_after = 99
    infer.run_inference(job)
    for path in (job.out, job.work_folder, folder):
        assert read_status(path).done == 8
    assert read_status(job.out).text().endswith("all blocks finished")


def test_the_speed_is_that_of_the_present_start(tmp_path):
    work = tmp_path / "o.work"
    work.mkdir()
    start = time.time()
    Session(start, 10).save(work)
    lines = [
        ManifestLine(BlockResult(name, "inspected", "", (), 10**6, 0, 1.0), start + at)
        for name, at in (("before", -500), ("a", 5), ("b", 7), ("c", 9))
    ]
    half = lines[0].text()[:20]
    (work / "manifest.jsonl").write_text("".join(line.text() for line in lines) + half)
    status = read_status(work)
    assert (status.done, status.total) == (4, 10)
    assert status.mpx_per_s == pytest.approx(0.5)
    assert status.eta_s == pytest.approx(12)


def test_a_block_that_failed_counts_once_it_succeeds_as_done(tmp_path):
    work = tmp_path / "o.work"
    work.mkdir()
    Session(0.0, 2).save(work)
    failed = BlockResult("a", "failed", "x", (), 0, 0, 1.0)
    done = BlockResult("a", "inspected", "", (), 9, 0, 1.0)
    texts = [ManifestLine(result, 1.0).text() for result in (failed, done)]
    (work / "manifest.jsonl").write_text(texts[0])
    assert read_status(work).failed == 1
    (work / "manifest.jsonl").write_text("".join(texts))
    assert (read_status(work).failed, read_status(work).done) == (0, 1)


@pytest.mark.parametrize("name", ["nothing", "empty", "odd.work"])
def test_a_status_of_no_job_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.work").mkdir()
    with pytest.raises(ConfigError, match=r"give the GeoPackage|give its GeoPackage"):
        read_status(tmp_path / name)


def test_the_command_plans_and_reports_without_work(folder, pool):
    runner, job = CliRunner(), job_of(folder)
    settings = [f"tiles={folder / 'tiles'}", f"model={job.model}", f"out={job.out}"]
    planned = runner.invoke(app, ["infer", *settings, "--plan"])
    assert planned.exit_code == 0
    assert "blocks" in planned.stdout
    assert not job.work_folder.exists()
    infer.run_inference(job)
    as_json = runner.invoke(app, ["infer", *settings, "--plan", "--json", "-"])
    assert json.loads(as_json.stdout)["blocks"] == 1
    file = folder / "status.json"
    runner.invoke(app, ["infer", "--status", str(job.out), "--json", str(file)])
    state = json.loads(file.read_text())
    assert (state["done"], state["total"], state["is_running"]) == (8, 8, False)
    told = runner.invoke(app, ["infer", "--status", str(job.out)])
    assert told.exit_code == 0
    assert "8/8 blocks" in told.stdout
    assert runner.invoke(app, ["infer", "--status", str(folder / "no.gpkg")]).exit_code == 1


def test_what_a_killed_process_left_half_written_is_swept_up(folder, pool):
    job = job_of(folder)
    pool.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        infer.run_inference(job)
    torn = [folder / f".o.4711.tmp.gpkg{end}" for end in ("", "-journal", "-wal")]
    torn.append(job.work_folder / "parts" / ".r000000_c000000.parquet.4711.tmp")
    others = [folder / ".other.4711.tmp.gpkg", folder / ".o.gpkg"]
    for path in (*torn, *others):
        path.touch()
    pool.stop_after = 99
    infer.run_inference(job)
    assert not [path for path in torn if path.exists()]
    assert all(path.exists() for path in others)


def test_lines_tell_when_blocks_were_finished(folder, pool):
    job = job_of(folder)
    before = time.time()
    infer.run_inference(job)
    times = [line.at for line in read_manifest(job.work_folder).values()]
    assert before - 0.001 <= min(times) <= max(times) <= time.time() + 0.001
    assert len((job.work_folder / "manifest.jsonl").read_text().splitlines()) == 8

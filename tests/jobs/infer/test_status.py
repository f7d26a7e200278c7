"""What a job says about itself before, while and after it runs; a stand-in network, no Ray."""

from __future__ import annotations

import fcntl
import json
import os
import time

import numpy as np
import pytest
from factories import (
    EAST,
    NORTH,
    Pool,
    darkness,
    describe_model,
    infer_job,
    write_roads,
    write_tile,
)
from rasterio.crs import CRS
from typer.testing import CliRunner

from geo.cracks.parts import InspectedRow
from geo.errors import GeoError, InputError
from geo.grid import Window
from geo.imagery.mosaic import Block
from jobs.cli import app
from jobs.infer import run as infer
from jobs.infer.inputs import open_mosaic
from jobs.infer.job_log import BlockLine, JobLog, JobRecord
from jobs.infer.plan import Forecast, make_plan
from jobs.infer.report import read_status
from jobs.infer.work_folder import LOCK
from wpcrack.errors import ConfigError

SIDE = 256
MPX = Window(0, 0, 1000, 1000)


def job_of(folder, **values):
    model = describe_model(folder / "run")
    return infer_job(folder / "tiles", folder / "o.gpkg", model=model, min_area_m2=2e-4, **values)


def row_of(name, status="inspected", seconds=1.0):
    return InspectedRow(name, MPX, status, "", (), 100.0, 5.0, seconds)


FOREIGN = ["../../x", "/tmp/x", "r000000_c000000/../../x", "", "r000000_c000000\n"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_work_folder_whose_blocks_would_lie_elsewhere_is_refused(tmp_path, pool, name):
    write_tile(tmp_path / "tiles" / "a.tif", np.full((SIDE, SIDE), 200, np.uint8))
    job = job_of(tmp_path)
    infer.run_inference(job, darkness)
    file = job.work_folder / "job.jsonl"
    first, rest = file.read_text().split("\n", 1)
    content = json.loads(first)
    content["blocks"][0][0] = name
    file.write_text(json.dumps(content) + "\n" + rest)
    for attempt in (JobLog.read, read_status):
        with pytest.raises(ConfigError, match="is not the name of a block"):
            attempt(job.work_folder)


def test_a_work_folder_with_a_link_is_refused_and_its_target_is_left_alone(tmp_path, pool):
    write_tile(tmp_path / "tiles" / "a.tif", np.full((SIDE, SIDE), 200, np.uint8))
    job, mine = job_of(tmp_path), tmp_path / "diary"
    job.work_folder.mkdir()
    mine.write_text("dear diary")
    (job.work_folder / "job.jsonl").symlink_to(mine)
    for attempt in (
        lambda: infer.run_inference(job, darkness),
        lambda: read_status(job.work_folder),
        lambda: infer.plan_inference(job),
    ):
        with pytest.raises(ConfigError, match=r"holds job\.jsonl, which is a link"):
            attempt()
    assert mine.read_text() == "dear diary"


@pytest.fixture
def pool(monkeypatch):
    made = Pool()
    monkeypatch.setattr(infer, "compute", made)
    monkeypatch.setattr(infer, "load_model", lambda *_: darkness())
    return made


@pytest.fixture
def folder(tmp_path):
    image = np.full((SIDE, SIDE, 3), 150, np.uint8)
    image[100:104] = 20
    write_tile(tmp_path / "tiles" / "a.tif", image)
    write_tile(tmp_path / "tiles" / "b.tif", image, 0, SIDE)
    return tmp_path


def start(work, started, blocks):
    """Write the log of a job without finished blocks; returns the file."""
    work.mkdir()
    places = tuple(Block(str(number), MPX) for number in range(blocks))
    config = infer_job(work, work.with_suffix(".gpkg")).model_dump(mode="json")
    grid = [0.005, 0, 5e5, 0, -0.005, 5.7e6, 10, 10, CRS.from_epsg(25832).to_wkt()]
    ground = {"grid": grid, "stretch": None, "area": None}
    JobLog(JobRecord(started, config, "m", "0", ground, {}, (), places), {}).save(work)
    return work / "job.jsonl"


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


def test_a_processor_without_bfloat16_is_assumed_to_be_slower(folder, monkeypatch):
    speeds = []
    for native in (True, False):
        monkeypatch.setattr("jobs.infer.plan.native_bfloat16", lambda native=native: native)
        speeds.append(infer.plan_inference(job_of(folder, actors=1)).mpx_per_s)
    assert speeds[0] == pytest.approx(3.5 * speeds[1])


def test_the_plan_names_a_system_with_heights_without_them(tmp_path):
    image = np.full((SIDE, SIDE), 90, np.uint8)
    write_tile(tmp_path / "tiles" / "a.tif", image, crs="EPSG:25832+7837")
    text = infer.plan_inference(job_of(tmp_path)).text()
    assert "grid      EPSG:25832, 256 x 256 pixels" in text


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
    slow = [row_of(block.block_id, seconds=4.0) for block in plan.blocks[:4]]
    measured = Forecast.of(job_of(folder, actors=2), plan, slow)
    assert measured.mpx_per_s == pytest.approx(0.5)
    with pytest.raises(ConfigError, match=r"blocks of another run \(threshold was 0.5, is 0.7\)"):
        infer.plan_inference(job_of(folder, threshold=0.7))  # as the job itself says
    other = infer.plan_inference(job_of(folder, threshold=0.7, resume="force"))
    assert not other.finished
    assert "measured on 4 blocks before" in other.text()
    assert not infer.plan_inference(job_of(folder, resume="never")).finished


def test_the_plan_refuses_what_the_job_would_refuse(folder, tmp_path):
    roads = write_roads(tmp_path / "roads.gpkg", [[(EAST, NORTH), (EAST + 1, NORTH)]], ref=["a"])
    (tmp_path / "file").touch()
    for values, message in (
        ({"roads": {"path": roads, "id": "wrong"}}, "wrong"),
        ({"lattice": {"window": 32768}, "batch": 64, "block_strides": 1}, "one actor with such"),
    ):
        for attempt in (infer.plan_inference, lambda job: infer.run_inference(job, darkness)):
            with pytest.raises((ConfigError, GeoError), match=message):
                attempt(job_of(folder, **values))
    job = job_of(folder)
    with pytest.raises(GeoError, match="is not a folder"):
        infer.plan_inference(job.model_copy(update={"out": tmp_path / "file" / "a.gpkg"}))
    job.work_folder.mkdir()
    (job.work_folder / "diary").touch()
    with pytest.raises(ConfigError, match="diary, which does not belong"):
        infer.plan_inference(job)


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
    pool.stop_after = None
    infer.run_inference(job)
    for path in (job.out, job.work_folder, folder):
        assert read_status(path).done == 8
    assert read_status(job.out).text().endswith("all blocks finished")


def test_the_speed_is_that_of_the_present_start(tmp_path):
    work, began = tmp_path / "o.work", time.time()
    log = start(work, began, 10)
    lines = [
        BlockLine(row_of(name), began + at).text()
        for name, at in (("before", -500), ("a", 5), ("b", 7), ("c", 9))
    ]
    log.write_text(log.read_text() + "".join(lines) + lines[0][:20])
    status = read_status(work)
    assert (status.done, status.total) == (4, 10)
    assert status.mpx_per_s == pytest.approx(3 / 5)  # the first began at 4 s
    assert status.eta_s == pytest.approx(10)


def test_blocks_that_arrive_at_once_make_no_speed_of_their_own(tmp_path):
    work, began = tmp_path / "o.work", time.time()
    log = start(work, began, 3)
    log.write_text(log.read_text() + BlockLine(row_of("a", seconds=10.0), began + 74.28).text())
    assert read_status(work).mpx_per_s == pytest.approx(0.1)
    log.write_text(log.read_text() + BlockLine(row_of("b", seconds=40.0), began + 74.3).text())
    assert read_status(work).mpx_per_s == pytest.approx(2 / 40)
    assert read_status(work).eta_s == pytest.approx(20)


def test_a_block_that_failed_counts_once_it_succeeds_as_done(tmp_path):
    work = tmp_path / "o.work"
    log = start(work, 0.0, 2)
    failed, done = (
        BlockLine(row_of("a", status), 1.0).text() for status in ("failed", "inspected")
    )
    log.write_text(log.read_text() + failed)
    assert read_status(work).failed == 1
    log.write_text(log.read_text() + done)
    assert (read_status(work).failed, read_status(work).done) == (0, 1)


@pytest.mark.parametrize("name", ["nothing", "empty", "odd.work"])
def test_a_status_of_no_job_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.work").mkdir()
    with pytest.raises(ConfigError, match="give the GeoPackage"):
        read_status(tmp_path / name)


def test_the_command_plans_and_reports_without_work(folder, pool):
    runner, job = CliRunner(), job_of(folder)
    settings = [f"tiles={folder / 'tiles'}", f"model={job.model}", f"out={job.out}"]
    planned = runner.invoke(app, ["infer", *settings, "--plan"])
    assert planned.exit_code == 0
    assert "blocks" in planned.stdout
    assert not job.work_folder.exists()
    infer.run_inference(job)
    as_json = runner.invoke(app, ["infer", *settings, "resume=force", "--plan", "--json", "-"])
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
    gone, lives = 999_999_999, os.getppid()
    torn = [folder / f".o.{gone}.tmp.gpkg{end}" for end in ("", "-journal", "-wal")]
    torn.append(job.work_folder / "parts" / f".r000000_c000000.parquet.{gone}.tmp")
    others = [folder / f".other.{gone}.tmp.gpkg", folder / ".o.gpkg"]
    others += [folder / f".o.{lives}.tmp.gpkg", folder / f".o.v2.{lives}.tmp.gpkg"]
    for path in (*torn, *others):
        path.touch()
    pool.stop_after = None
    infer.run_inference(job)
    assert not [path for path in torn if path.exists()]
    assert all(path.exists() for path in others)


def test_lines_tell_when_blocks_were_finished(folder, pool):
    job = job_of(folder)
    before = time.time()
    infer.run_inference(job)
    times = [line.at for line in JobLog.read(job.work_folder).lines.values()]
    assert before - 0.001 <= min(times) <= max(times) <= time.time() + 0.001
    assert len((job.work_folder / "job.jsonl").read_text().splitlines()) == 1 + 8

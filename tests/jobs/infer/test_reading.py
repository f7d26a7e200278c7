"""Reading ahead and reading what does not answer; a stand-in network, no Ray."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import geopandas
import numpy as np
import pandas as pd
import pytest
from factories import Pool, darkness, infer_job, layer, write_tile

from geo.cracks.parts import read_part
from geo.errors import InputError
from geo.imagery import mosaic as mosaic_module
from geo.imagery import tile_reader
from jobs.infer import run as infer
from jobs.infer.attempts import FolderMarks
from jobs.infer.inputs import open_mosaic
from jobs.infer.outputs import MapFiles
from jobs.infer.plan import make_plan
from jobs.infer.worker import BLOCKS_AT_A_TIME, BlockWorker

SIDE = 192

PATIENCE_S = 2.0
"""For tiles that hang; the others answer within it on a busy machine, too."""


@pytest.fixture
def tiles(tmp_path):
    """Four tiles in a row with a crack along all of them and one across each."""
    for number in range(4):
        image = np.random.default_rng(number).integers(140, 170, (SIDE, SIDE, 3), np.uint8)
        image[100:104] = image[:, 50:53] = 20
        write_tile(tmp_path / "tiles" / f"{number}.tif", image, 0, number * SIDE)
    return tmp_path / "tiles"


def job_of(tiles, name="o", **values):
    return infer_job(tiles, tiles.parent / f"{name}.gpkg", **{"block_strides": 1} | values)


def run(job, monkeypatch, threads=1, factory=darkness):
    pool = Pool()
    pool.threads = threads
    monkeypatch.setattr(infer, "compute", pool)
    return infer.run_inference(job, factory)


def test_reading_ahead_changes_nothing(tiles, monkeypatch):
    alone = run(job_of(tiles, "a"), monkeypatch)
    ahead = run(job_of(tiles, "b"), monkeypatch, threads=BLOCKS_AT_A_TIME)
    assert alone.n_cracks == 5
    for name in ("crack", "inspected"):
        tables = (layer(made.package, name, ("run_id", "seconds")) for made in (alone, ahead))
        pd.testing.assert_frame_equal(*tables)


def plan_of(job):
    plan = make_plan(job, open_mosaic(job, None, lambda text: None))
    plan.parts.mkdir(parents=True)
    return plan


def test_the_next_block_is_read_while_the_model_works_and_no_third_one(tiles, monkeypatch):
    reads, original = [], mosaic_module.Mosaic.read
    second = threading.Event()

    def counting(self, window):
        reads.append(window)
        if len(reads) == 2:
            second.set()
        return original(self, window)

    monkeypatch.setattr(mosaic_module.Mosaic, "read", counting)
    seen, at_once = [], []

    def predictor(windows):
        at_once.append(1)
        assert len(at_once) == 1, "two blocks in the model at a time"
        assert second.wait(600), "nothing is read while the model works"
        seen.append(len(reads))
        at_once.pop()
        return np.zeros(windows.shape[:3], np.float32)

    worker = BlockWorker(plan_of(job_of(tiles, batch=100)), predictor)
    with ThreadPoolExecutor(BLOCKS_AT_A_TIME) as calls:
        results = list(calls.map(worker.run, range(6)))
    assert {result.status for result in results} == {"inspected"}
    assert all(count <= done + BLOCKS_AT_A_TIME for done, count in enumerate(seen))


def test_a_block_whose_part_is_there_is_not_computed_again(tiles):
    plan = plan_of(job_of(tiles))
    first, part = BlockWorker(plan, darkness()).run(0), plan.part(plan.blocks[0])
    whole = read_part(part)

    def unwanted(windows):
        raise AssertionError("computed again")

    marks = FolderMarks(plan.parts.parent)
    marks.add(first.block_id)  # by a worker that was killed after it had written
    assert BlockWorker(plan, unwanted).run(0) == first
    assert marks.count(first.block_id) == 0
    part.write_bytes(b"PAR1")
    BlockWorker(plan, darkness()).run(0)
    assert read_part(part).pieces.equals(whole.pieces)


def hang(monkeypatch, *names, after=0):
    """Lets reading some tiles take for ever `after` some times; returns what ends it."""
    original, release, calls = tile_reader.TileReader.read, threading.Event(), []

    def read(self, tile, window):
        if os.path.basename(tile.path) in names:
            calls.append(tile.path)
            if len(calls) > after:
                release.wait()
        return original(self, tile, window)

    monkeypatch.setattr(tile_reader.TileReader, "read", read)
    return release, calls


def test_a_tile_that_hangs_is_recorded_and_the_rest_delivered(tiles, monkeypatch):
    whole = run(job_of(tiles, "whole"), monkeypatch)
    release, calls = hang(monkeypatch, "1.tif")
    report = run(job_of(tiles, timeout_s=PATIENCE_S), monkeypatch, threads=BLOCKS_AT_A_TIME)
    assert report.exit_code == 3
    (failure,) = report.failures
    assert failure.startswith(str(tiles / "1.tif"))
    assert "gave no answer within 2 s" in failure
    assert report.surveyed_mpx == pytest.approx(whole.surveyed_mpx * 3 / 4)
    assert len(calls) == 2  # as it hung and as it was asked by itself; then it is left alone
    release.set()


def test_a_block_of_which_nothing_answers_has_failed(tiles, monkeypatch):
    release, _ = hang(monkeypatch, "0.tif", "1.tif")
    report = run(job_of(tiles, timeout_s=PATIENCE_S), monkeypatch)
    assert [os.path.basename(text.partition(":")[0]) for text in report.failures] == [
        "0.tif",
        "1.tif",
    ]
    states = geopandas.read_file(report.package, layer="inspected").set_index("block_id")
    assert states.loc["r000000_c000000", "status"] == "failed"
    release.set()


def test_a_map_whose_only_tile_falls_silent_is_delivered_with_a_blank_page(tiles, monkeypatch):
    release, _ = hang(monkeypatch, "0.tif", after=3)
    job = job_of(tiles / "0.tif", timeout_s=PATIENCE_S)
    report = run(job, monkeypatch)
    release.set()
    assert report.exit_code == 3
    assert len(report.failures) == 1
    assert report.n_cracks > 0
    files = MapFiles.of(job.out)
    assert all(path.exists() for path in (files.overview, files.page, files.report, files.figures))


def test_a_pipe_in_the_place_of_a_tile_does_not_stop_the_job(tiles, monkeypatch):
    job = job_of(tiles, timeout_s=3, retries=0)

    def replaced():
        victim = tiles / "2.tif"
        victim.unlink()
        os.mkfifo(victim)  # opening it waits for a writer that never comes
        return darkness()

    report = run(job, monkeypatch, factory=replaced)
    assert report.exit_code == 3
    assert [os.path.basename(text.partition(":")[0]) for text in report.failures] == ["2.tif"]
    with (tiles / "2.tif").open("r+b", buffering=0):
        pass  # lets the waiting threads go


def times_of(job):
    parts = (job.work_folder / "parts").glob("*.parquet")
    return {path.name: path.stat().st_mtime_ns for path in parts}


def test_too_many_failures_in_mid_run_stop_the_job_and_keep_its_parts(tiles, monkeypatch):
    job = job_of(tiles, max_failed=0, retries=0)
    victim = tiles / "3.tif"
    original = BlockWorker.run

    def vanishing(self, index):
        victim.unlink(missing_ok=True)
        return original(self, index)

    kept = victim.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(BlockWorker, "run", vanishing)
        with pytest.raises(InputError, match=r"1 tiles or blocks failed.*3\.tif.*are kept"):
            run(job, patched)
    finished = {
        path.name: path.stat().st_mtime_ns for path in (job.work_folder / "parts").iterdir()
    }
    assert 5 < len(finished) < 36
    assert not job.out.exists()
    victim.write_bytes(kept)
    assert run(job.model_copy(update={"resume": "force"}), monkeypatch).exit_code == 0
    again = times_of(job)
    assert sum(again[name] == time for name, time in finished.items()) > 5

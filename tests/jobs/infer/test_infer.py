"""An inference job from tiles to map, its work folder, its failures; a stand-in network."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
from factories import GSD_M, Pool, darkness, describe_model, infer_job, layer, street, write_tile
from numpy.typing import NDArray
from pydantic import ValidationError

from geo.cracks.parts import InspectedRow
from geo.errors import InputError, OutputError
from geo.grid import Window
from jobs.infer import run as infer
from jobs.infer.inputs import ModelFiles
from jobs.infer.job import InferJob
from jobs.infer.report import InferReport, Progress
from jobs.infer.worker import PredictorFactory
from wpcrack.errors import CheckpointError, ConfigError, WpcrackError
from wpcrack.inference.predict import WindowPredictor

SIDE = 384
"""Pixels of the drawn street on each side."""

IMAGE, MASK = street(
    SIDE,
    (
        (((10, 20), (190, 200), (370, 290)), 5),
        (((15, 360), (200, 185), (365, 30)), 3),
        (((300, 340), (380, 380)), 2),
    ),
)
"""Two crossing cracks and one apart."""


def write_tiles(folder: Path, cuts: int) -> Path:
    """The street as cuts x cuts files."""
    step = SIDE // cuts
    for row in range(0, SIDE, step):
        for col in range(0, SIDE, step):
            part = IMAGE[row : row + step, col : col + step]
            write_tile(folder / f"r{row}_c{col}.tif", part, row, col)
    return folder


@pytest.fixture
def ray_less(monkeypatch: pytest.MonkeyPatch) -> Pool:
    pool = Pool()
    monkeypatch.setattr(infer, "compute", pool)
    return pool


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "tiles", 2)


def run(job: InferJob, factory: PredictorFactory | None = None) -> InferReport:
    made = darkness()
    return infer.run_inference(job, factory or (lambda: made))  # pickled by value


def inspected(out: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_file(out, layer="inspected")


def block_lines(log: Path) -> list[str]:
    """The lines of blocks in a log, but for the moments they were written, sorted."""
    return sorted(line.partition(', "at": ')[0] for line in log.read_text().splitlines()[1:])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.usefixtures("ray_less")
def test_the_map_shows_the_drawn_cracks(tiles: Path, tmp_path: Path) -> None:
    report = run(infer_job(tiles, tmp_path / "map" / "out.gpkg"))
    frame = geopandas.read_file(report.package, layer="crack")
    assert report.n_cracks == len(frame) == 3
    assert report.area_m2 == pytest.approx(MASK.sum() * GSD_M**2)
    assert frame["area_m2"].sum() == pytest.approx(report.area_m2)
    assert frame["confidence"].to_numpy() == pytest.approx(0.9, abs=0.003)
    assert frame.crs.to_epsg() == 25832
    assert set(frame["run_id"]) == {report.run_id}
    assert inspected(report.package).geometry.area.sum() == pytest.approx((SIDE * GSD_M) ** 2)
    assert (report.exit_code, report.failures) == (0, ())
    assert report.surveyed_mpx == pytest.approx(SIDE**2 / 1e6)
    (made,) = pyogrio.read_dataframe(report.package, layer="run").to_dict("records")
    assert made["run_id"] == report.run_id
    assert json.loads(made["config"])["block_strides"] == 2
    assert json.loads(made["inputs"])["files"] == 4
    assert made["started"] <= made["finished"]
    overview = cv2.imread(str(report.overview))
    assert overview is not None
    assert min(overview.shape[:2]) >= SIDE  # and a title, a legend


@pytest.mark.usefixtures("ray_less", "no_pictures")
@pytest.mark.parametrize(("cuts", "strides", "batch"), [(1, 1, 3), (2, 3, 8), (3, 9, 1)])
def test_the_cut_into_files_and_blocks_changes_no_crack(
    tmp_path: Path, cuts: int, strides: int, batch: int
) -> None:
    reference, other = tmp_path / "a.gpkg", tmp_path / "b.gpkg"
    run(infer_job(write_tiles(tmp_path / "four", 2), reference))
    folder = write_tiles(tmp_path / "other", cuts)
    run(infer_job(folder, other, block_strides=strides, batch=batch))
    pd.testing.assert_frame_equal(layer(reference), layer(other))


@pytest.mark.usefixtures("ray_less", "no_pictures")
def test_small_cracks_are_dropped_after_joining(tiles: Path, tmp_path: Path) -> None:
    full = run(infer_job(tiles, tmp_path / "a.gpkg"))
    areas = sorted(layer(full.package)["area_m2"])
    kept = run(infer_job(tiles, tmp_path / "b.gpkg", min_area_m2=areas[0] + 1e-9))
    assert kept.n_cracks == full.n_cracks - 1


@pytest.mark.usefixtures("ray_less")
def test_bad_tiles_are_recorded_and_the_rest_is_delivered(tmp_path: Path) -> None:
    tiles = write_tiles(tmp_path / "tiles", 3)
    truncate(tiles / "r0_c0.tif")
    (tiles / "empty.tif").touch()
    report = run(infer_job(tiles, tmp_path / "out.gpkg"))
    assert report.exit_code == 3
    assert len(report.failures) == 2
    assert "r0_c0.tif: is truncated" in report.summary()
    rows = inspected(report.package).set_index("tiles_failed")
    for name in ("r0_c0.tif", "empty.tif"):
        assert rows.loc[str(tiles / name), "status"] == "failed"
    assert report.n_cracks > 0


@pytest.mark.usefixtures("ray_less")
def test_a_tile_that_breaks_while_it_is_read_is_recorded(
    tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tiles / "r0_c0.tif"

    def vanishing() -> WindowPredictor:
        victim.unlink()
        return darkness()

    report = run(infer_job(tiles, tmp_path / "out.gpkg"), vanishing)
    assert report.exit_code == 3
    assert [failure.partition(":")[0] for failure in report.failures] == [str(victim)]
    assert "with failures" in capsys.readouterr().err
    assert {"partial", "inspected"} <= set(inspected(report.package)["status"])


@pytest.mark.usefixtures("ray_less")
def test_on_bad_tile_stop_ends_the_job_at_once(tiles: Path, tmp_path: Path) -> None:
    (tiles / "empty.tif").touch()
    with pytest.raises(InputError, match=r"empty\.tif is empty.*on_bad_tile=record"):
        run(infer_job(tiles, tmp_path / "out.gpkg", on_bad_tile="stop"))
    assert not (tmp_path / "out.gpkg").exists()


@pytest.mark.usefixtures("no_pictures")
def test_more_failures_than_allowed_are_refused_before_any_work_and_by_the_plan(
    tiles: Path, tmp_path: Path, ray_less: Pool
) -> None:
    def job(**values: object) -> InferJob:
        model = describe_model(tmp_path / "model", gsd_mm=None)
        return infer_job(tiles, tmp_path / "out.gpkg", model=model, **values)

    run(job())
    kept = {path.name for path in (tmp_path / "out.work" / "parts").iterdir()}
    for number in range(3):
        (tiles / f"empty{number}.tif").touch()
    ray_less.computed = []
    words = "3 tiles or blocks failed, max_failed allows 2.* set a larger max_failed$"
    for resume in ("never", "force"):
        for refused in (run, infer.plan_inference):
            with pytest.raises(InputError, match=words):
                refused(job(max_failed=2, resume=resume))
    assert {path.name for path in (tmp_path / "out.work" / "parts").iterdir()} == kept
    assert ray_less.computed == []
    assert run(job(max_failed=3, resume="force")).exit_code == 3


@pytest.mark.usefixtures("ray_less", "no_pictures")
def test_the_plan_counts_what_failed_in_finished_blocks(
    tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer, "model_files", lambda _: ModelFiles.stand_in())
    victim = tiles / "r0_c0.tif"
    kept, moment = victim.read_bytes(), victim.stat().st_mtime_ns

    def vanishing() -> WindowPredictor:
        victim.unlink()
        return darkness()

    job = infer_job(tiles, tmp_path / "out.gpkg", block_strides=8)
    assert infer.run_inference(job, vanishing).exit_code == 3
    victim.write_bytes(kept)
    os.utime(victim, ns=(moment, moment))
    strict = job.model_copy(update={"max_failed": 0})
    for refused in (run, infer.plan_inference):
        with pytest.raises(InputError, match=r"max_failed allows 0.*finished blocks are kept$"):
            refused(strict)


def test_a_percentage_of_failures_allows_at_least_ten() -> None:
    job = infer_job(Path("tiles"), Path("out.gpkg"))
    assert [job.failures_allowed(n) for n in (1, 200, 1000)] == [10, 10, 50]
    for share in range(100):
        some = infer_job(Path("tiles"), Path("out.gpkg"), max_failed=f"{share}%")
        assert some.failures_allowed(100) == max(10, share)
        finer = infer_job(Path("tiles"), Path("out.gpkg"), max_failed=f"{share}.7%")
        assert finer.failures_allowed(1000) == max(10, 10 * share + 7)


@pytest.mark.usefixtures("ray_less")
def test_no_usable_tile_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "a.tif").write_text("no raster")
    with pytest.raises(InputError, match="no usable tile"):
        run(infer_job(tmp_path / "tiles", tmp_path / "out.gpkg"))


@pytest.mark.usefixtures("ray_less")
def test_tiles_that_all_vanish_deliver_nothing(tiles: Path, tmp_path: Path) -> None:
    def vanishing() -> WindowPredictor:
        for tile in tiles.iterdir():
            tile.unlink()
        return darkness()

    with pytest.raises(InputError, match="could be inspected"):
        run(infer_job(tiles, tmp_path / "out.gpkg"), vanishing)
    assert not (tmp_path / "out.gpkg").exists()


@pytest.mark.usefixtures("no_pictures")
def test_an_interrupted_job_continues_where_it_was(
    tiles: Path, tmp_path: Path, ray_less: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    run(infer_job(tiles, tmp_path / "straight.gpkg"))
    every_block, ray_less.computed = ray_less.computed, []
    out = tmp_path / "out.gpkg"
    shutil.copy(tmp_path / "straight.gpkg", out)
    before = out.read_bytes()
    ray_less.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        run(infer_job(tiles, out))
    assert "4 of 9 blocks are finished and kept" in capsys.readouterr().err
    assert out.read_bytes() == before
    ray_less.stop_after = None
    report = run(infer_job(tiles, out))
    assert sorted(ray_less.computed) == sorted(every_block)
    assert report.n_blocks == 9
    pd.testing.assert_frame_equal(layer(out), layer(tmp_path / "straight.gpkg"))
    assert not [path for path in tmp_path.iterdir() if ".tmp" in path.name]


@pytest.mark.usefixtures("no_pictures")
def test_a_finished_job_computes_nothing_again(tiles: Path, tmp_path: Path, ray_less: Pool) -> None:
    first = run(infer_job(tiles, tmp_path / "out.gpkg"))
    ray_less.computed = []
    second = run(infer_job(tiles, tmp_path / "out.gpkg", actors=2, batch=1))
    assert ray_less.computed == []
    assert (first.n_cracks, first.run_id) == (second.n_cracks, second.run_id)


@pytest.mark.usefixtures("no_pictures")
def test_a_part_that_the_log_misses_is_not_computed_again(
    tiles: Path, tmp_path: Path, ray_less: Pool
) -> None:
    run(infer_job(tiles, tmp_path / "out.gpkg"))
    log = tmp_path / "out.work" / "job.jsonl"
    before, lines = block_lines(log), log.read_text().splitlines()
    log.write_text("\n".join(lines[:-2]) + "\n" + lines[-2][:20])  # killed while writing
    ray_less.computed = []
    run(infer_job(tiles, tmp_path / "out.gpkg"))
    assert ray_less.computed == []
    assert block_lines(log) == before


@pytest.mark.usefixtures("no_pictures")
def test_a_damaged_part_is_computed_again(tiles: Path, tmp_path: Path, ray_less: Pool) -> None:
    run(infer_job(tiles, tmp_path / "out.gpkg"))
    work = tmp_path / "out.work"
    part = sorted((work / "parts").iterdir())[0]
    part.write_bytes(b"PAR1")
    log = work / "job.jsonl"
    log.write_text(log.read_text().split("\n")[0] + "\n")
    ray_less.computed = []
    run(infer_job(tiles, tmp_path / "out.gpkg"))
    assert ray_less.computed == [part.stem]


@pytest.mark.usefixtures("no_pictures")
def test_failed_blocks_are_tried_again(tiles: Path, tmp_path: Path, ray_less: Pool) -> None:
    def failing() -> WindowPredictor:
        calls = iter(range(1000))
        inner = darkness()

        def predict(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
            if next(calls) < 2:
                raise RuntimeError("out of luck")
            return inner(windows)

        return predict

    first = run(infer_job(tiles, tmp_path / "out.gpkg", batch=100), failing)
    assert first.exit_code == 3
    assert len(first.failures) == 2
    assert "RuntimeError: out of luck" in first.failures[0]
    lost = inspected(first.package).query("status == 'failed'")["block_id"]
    ray_less.computed = []
    second = run(infer_job(tiles, tmp_path / "out.gpkg", batch=100))
    assert sorted(ray_less.computed) == sorted(lost)
    assert second.exit_code == 0


@pytest.mark.usefixtures("ray_less", "no_pictures")
def test_other_settings_are_refused_with_what_changed(tiles: Path, tmp_path: Path) -> None:
    run(infer_job(tiles, tmp_path / "out.gpkg"))
    os.utime(tiles / "r0_c0.tif", ns=(1, 1))
    with pytest.raises(ConfigError) as caught:
        run(infer_job(tiles, tmp_path / "out.gpkg", threshold=0.6))
    for part in ("threshold was 0.5, is 0.6", "r0_c0.tif", "resume=force", "resume=never"):
        assert part in str(caught.value)


@pytest.mark.usefixtures("no_pictures")
def test_settings_of_the_map_alone_keep_every_block(
    tiles: Path, tmp_path: Path, ray_less: Pool
) -> None:
    first = run(infer_job(tiles, tmp_path / "out.gpkg"))
    total, ray_less.computed = len(ray_less.computed), []
    assert total > 1
    limits = {"d6433_mm": [3, 5], "max_gsd_mm": 50}
    changed: dict[str, object] = {
        "min_length_m": 0.6,
        "severity": limits,
        "survey_date": "2026-05-01",
    }
    second = run(infer_job(tiles, tmp_path / "out.gpkg", **changed))
    assert ray_less.computed == []
    assert second.n_cracks == first.n_cracks - 1
    assert second.run_id != first.run_id
    fresh = run(infer_job(tiles, tmp_path / "fresh.gpkg", **changed))
    for name, without in (("crack", ("run_id",)), ("inspected", ("seconds",))):
        tables = [layer(made.package, name, without) for made in (second, fresh)]
        pd.testing.assert_frame_equal(*tables)
        assert set(tables[0].survey_date.astype(str)) == {"2026-05-01"}
    assert set(layer(second.package).severity_d6433) == {"high"}


@pytest.mark.usefixtures("no_pictures")
def test_force_recomputes_only_what_changed(tmp_path: Path, ray_less: Pool) -> None:
    tiles = write_tiles(tmp_path / "tiles", 3)
    values: dict[str, object] = {"block_strides": 1}
    run(infer_job(tiles, tmp_path / "out.gpkg", **values))
    total = len(ray_less.computed)

    def recomputed(**changed: object) -> int:
        ray_less.computed = []
        values.update(changed)
        run(infer_job(tiles, tmp_path / "out.gpkg", resume="force", **values))
        return len(ray_less.computed)

    assert recomputed(min_area_m2=0.001, simplify_px=0) == 0
    write_tile(tiles / "r0_c0.tif", np.full((128, 128, 3), 150, np.uint8))
    assert 0 < recomputed() < total
    fresh = tmp_path / "fresh.gpkg"
    run(infer_job(tiles, fresh, **values))
    pd.testing.assert_frame_equal(layer(tmp_path / "out.gpkg"), layer(fresh))
    assert recomputed(threshold=0.95) == total


@pytest.mark.usefixtures("no_pictures")
def test_never_starts_anew(tiles: Path, tmp_path: Path, ray_less: Pool) -> None:
    run(infer_job(tiles, tmp_path / "out.gpkg"))
    total, ray_less.computed = len(ray_less.computed), []
    run(infer_job(tiles, tmp_path / "out.gpkg", resume="never", threshold=0.3))
    assert len(ray_less.computed) == total


@pytest.mark.usefixtures("ray_less")
def test_a_folder_that_is_no_work_folder_is_left_alone(tiles: Path, tmp_path: Path) -> None:
    strange = tmp_path / "out.work" / "thesis.docx"
    strange.parent.mkdir()
    strange.touch()
    with pytest.raises(ConfigError, match=r"holds thesis\.docx"):
        run(infer_job(tiles, tmp_path / "out.gpkg", resume="never"))
    assert strange.exists()


@pytest.mark.usefixtures("ray_less")
def test_a_work_folder_of_an_older_version_is_refused_with_the_way_out(
    tiles: Path, tmp_path: Path, ray_less: Pool
) -> None:
    work = tmp_path / "out.work"
    (work / "parts").mkdir(parents=True)
    for name in ("fingerprint.json", "manifest.jsonl", "session.json", "job.json"):
        (work / name).write_text("{}")
    for resume in ("auto", "force"):
        with pytest.raises(ConfigError, match=r"another version.*resume=never"):
            run(infer_job(tiles, tmp_path / "out.gpkg", resume=resume))
    assert ray_less.computed == []
    assert run(infer_job(tiles, tmp_path / "out.gpkg", resume="never")).n_cracks == 3
    assert {path.name for path in work.iterdir()} == {
        *("job.jsonl", "parts", "backdrop.tif", "crops.json", ".lock")
    }


@pytest.mark.usefixtures("no_pictures")
def test_a_job_on_16_bit_imagery_continues(tmp_path: Path, ray_less: Pool) -> None:
    tile = write_tile(tmp_path / "a.tif", IMAGE.astype(np.uint16) * 40)
    run(infer_job(tile, tmp_path / "out.gpkg"))
    ray_less.computed = []
    run(infer_job(tile, tmp_path / "out.gpkg"))
    assert ray_less.computed == []


@pytest.mark.usefixtures("ray_less")
def test_two_processes_do_not_share_a_work_folder(tiles: Path, tmp_path: Path) -> None:
    work = tmp_path / "out.work"
    work.mkdir()
    with (work / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process works in"):
            run(infer_job(tiles, tmp_path / "out.gpkg"))


@pytest.mark.usefixtures("ray_less")
def test_an_output_that_cannot_be_written_is_refused_before_work(
    tiles: Path, tmp_path: Path, ray_less: Pool
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"out=.* cannot be made"):
        run(infer_job(tiles, tmp_path / "file" / "out.gpkg"))
    assert ray_less.computed == []


@pytest.mark.usefixtures("ray_less")
def test_an_output_among_the_inputs_is_refused(tiles: Path) -> None:
    with pytest.raises(InputError, match="lies in the folder of the tiles"):
        run(infer_job(tiles, tiles / "maps" / "out.gpkg"))


def test_an_output_that_is_no_geopackage_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"name it \*\.gpkg"):
        infer_job(Path("tiles"), Path("out.shp"))


@pytest.mark.usefixtures("ray_less")
def test_a_missing_model_is_refused_before_work(tiles: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        infer.run_inference(infer_job(tiles, tmp_path / "out.gpkg"))
    (tmp_path / "run" / "model").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="holds no"):
        infer.run_inference(infer_job(tiles, tmp_path / "out.gpkg", model=tmp_path / "run"))


@pytest.mark.usefixtures("ray_less")
def test_a_model_that_gives_no_numbers_ends_the_job(tiles: Path, tmp_path: Path) -> None:
    def broken() -> WindowPredictor:
        return lambda windows: np.full(windows.shape[:3], np.nan, np.float32)

    with pytest.raises(CheckpointError, match="not numbers"):
        run(infer_job(tiles, tmp_path / "out.gpkg"), broken)


def test_the_threshold_is_met_by_the_smallest_8_bit_probability_at_or_above_it() -> None:
    for threshold in (0.004, 0.2, 0.5, 0.6, 0.999, 1.0):
        level = infer_job(Path("t"), Path("o.gpkg"), threshold=threshold).level
        assert level / 255 >= threshold - 1e-12
        assert (level - 1) / 255 < threshold


def row_of(name: str, status: str = "inspected", **values: object) -> InspectedRow:
    window = Window(0, 0, 1000, 1000)
    given = {"reason": "", "tiles_failed": (), "valid_pct": 100.0, "gsd_mm": 5.0, "seconds": 1.0}
    return InspectedRow(name, window, status, **given | values)  # type: ignore[arg-type]


def test_progress_says_how_far_how_fast_and_how_long() -> None:
    done = row_of("a")
    progress = Progress(4, [done])
    progress.add(row_of("b", "partial", tiles_failed=("t",)))
    line = progress.line()
    assert line.startswith("infer 2/4 blocks, ")
    assert line.endswith(", 1 with failures")


def test_the_speed_counts_from_the_work_on_the_first_block_on() -> None:
    progress = Progress(5, [row_of("a")])
    assert progress.line() == "infer 1/5 blocks"
    progress.add(row_of("b", seconds=20.0))
    progress.add(row_of("c", seconds=10.0))  # both arrive at once
    assert progress.line() == "infer 3/5 blocks, 0.1 Mpx/s, ETA 0:20"


SCRIPT = """
import sys
import numpy as np
from jobs.infer.inputs import ModelFiles
from jobs.infer.job import InferJob
from jobs.infer.run import run_inference

tiles, out = sys.argv[1:]

def factory():
    import time
    def predict(windows):
        time.sleep(0.3)
        return np.where(windows.mean(-1) < 80, 0.9, 0.1).astype(np.float32)
    return predict

if __name__ == "__main__":
    job = InferJob(tiles=tiles, model="none", out=out, actors=1, block_strides=1, min_area_m2=0,
                   lattice={"window": 96, "overlap": 32, "blend": 16})
    try:
        run_inference(job, factory)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def processes_with(mark: str) -> list[str]:
    """Command lines of the processes that inherited a mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has just ended
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.ray
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_leaves_no_process_and_a_state_that_can_be_continued_on_ray(
    tmp_path: Path, ray_less: Pool, number: signal.Signals
) -> None:
    tiles, out = write_tiles(tmp_path / "tiles", 2), tmp_path / "out.gpkg"
    script, log = tmp_path / "job.py", tmp_path / "out.work" / "job.jsonl"
    script.write_text(SCRIPT)
    mark = f"WPCRACK_TEST={tmp_path}"
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "WPCRACK_TEST": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, str(script), str(tiles), str(out)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | environment,
    ) as process:
        assert wait_until(lambda: log.exists() and bool(block_lines(log)), 600)
        assert processes_with(mark)
        os.killpg(process.pid, number)  # what a terminal does: the whole group gets it
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "the same command continues" in errors
    assert "Traceback" not in errors
    assert wait_until(lambda: not processes_with(mark), 20), processes_with(mark)
    assert not out.exists()
    done = [json.loads(line)["block_id"] for line in log.read_text().splitlines()[1:]]
    report = run(infer_job(tiles, out, block_strides=1))
    assert len(ray_less.computed) + len(done) == 36
    assert not set(ray_less.computed) & set(done)
    assert report.n_cracks == 3


@pytest.mark.ray
@pytest.mark.usefixtures("no_pictures")
def test_one_raster_and_four_tiles_give_the_same_cracks_on_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from jobs.runtime.capacity import Request
    from jobs.runtime.ray_session import DATA_THREADS, ray_session

    reports, still_there, end = [], [], ray.shutdown

    def shutdown() -> None:
        still_there.extend(thread.name for thread in threading.enumerate())
        end()

    monkeypatch.setattr(ray, "shutdown", shutdown)
    with ray_session(Request("actor", 2, {"CPU": 1}, 1), local=True):
        for cuts, actors in ((1, 1), (2, 2)):
            job = infer_job(write_tiles(tmp_path / f"t{cuts}", cuts), tmp_path / f"{cuts}.gpkg")
            reports.append(run(job.model_copy(update={"actors": actors})))

        def broken() -> WindowPredictor:
            gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
            raise CheckpointError(f"the model is of another kind, GPUs are {gpus!r}")

        with pytest.raises(WpcrackError, match=r"another kind, GPUs are ''$"):
            run(infer_job(tmp_path / "t2", tmp_path / "broken.gpkg", actors=1), broken)
    assert still_there
    assert not [name for name in still_there if name.startswith(DATA_THREADS)]
    assert [report.n_cracks for report in reports] == [3, 3]
    pd.testing.assert_frame_equal(layer(reports[0].package), layer(reports[1].package))


def killed_by(trap: NDArray[np.uint8]) -> Callable[[], WindowPredictor]:
    """A network that ends its process, as a crash in C++ does, where it sees white."""
    inner = darkness()

    def predict(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        if (windows == trap).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(windows)

    return lambda: predict


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_block_or_a_model_that_kills_its_worker_is_given_up_on_ray(
    tmp_path: Path, tiles: Path
) -> None:
    from jobs.runtime.capacity import Request
    from jobs.runtime.ray_session import ray_session

    trap = IMAGE.copy()
    trap[350:356, 40:46] = 255  # in one block, and in the halo of none
    lethal = tmp_path / "lethal"
    write_tile(lethal / "a.tif", trap)
    with ray_session(Request("actor", 2, {"CPU": 1}, 1), local=True):
        out = tmp_path / "out.gpkg"
        report = run(infer_job(lethal, out, actors=1), killed_by(np.uint8(255)))

        def unloadable() -> WindowPredictor:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        with pytest.raises(WpcrackError, match=r"loading the model killed its worker 3 times"):
            run(infer_job(tiles, tmp_path / "never.gpkg", actors=1), unloadable)
    assert report.exit_code == 3
    rows = inspected(out).set_index("block_id")
    failed = rows[rows.status == "failed"]
    assert list(failed.index) == ["r000002_c000000"]
    assert "the block killed its worker 3 times" in failed.reason.item()
    assert set(rows.status) == {"failed", "inspected"}
    assert not list(out.with_suffix(".work").glob(".*.tmp"))

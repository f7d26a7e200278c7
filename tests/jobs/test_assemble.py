"""Further maps from a work folder: equal to those of a run with these settings; nothing silent."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import yaml
from factories import EAST, GSD_M, NORTH, Pool, in_process, infer_job, layer, write_tile
from shapely.geometry import LineString
from typer.testing import CliRunner, Result

import jobs.cli
from geo.errors import OutputError
from jobs.assemble.source import NOT_COMPUTED
from jobs.infer import outputs
from jobs.infer import run as infer
from jobs.infer.report import InferReport, read_status
from jobs.runtime.folder import hold_output
from wpcrack.inference.predict import WindowPredictor

ROOT = Path(__file__).parents[2]
LAYERS = ("crack", "outline", "road_segment")


def brightness() -> WindowPredictor:
    """Probability falls with brightness, so that thresholds tell cracks apart."""
    return lambda windows: (1 - windows.mean(-1) / 255).astype(np.float32)


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "compute", in_process)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of layers: pictures and pages take a third of the time."""
    monkeypatch.setattr(infer, "draw_map", lambda *_: None)
    for name in ("draw_overview", "write_map"):
        monkeypatch.setattr(outputs, name, lambda *_: None)


def street(folder: Path) -> Path:
    """Two tiles, the second of coarser pixels and half without imagery, a road, a broken file."""
    image = np.full((200, 300), 210, np.uint8)
    image[60:64, 10:300] = 20  # dark: found by any threshold
    image[100:103, 40:220] = 100  # pale: only by low ones
    image[20:160, 250:253] = 60
    image[150, 30:34] = 20
    write_tile(folder / "tiles" / "a.tif", image, nodata=0)
    coarse = np.full((100, 100), 210, np.uint8)
    coarse[30:32] = 20
    coarse[60:] = 0
    write_tile(folder / "tiles" / "b.tif", coarse, 0, 300, gsd=2 * GSD_M, nodata=0)
    (folder / "tiles" / "c.tif").write_bytes(b"no raster")
    line = LineString([(EAST, NORTH - 0.5), (EAST + 2.5, NORTH - 0.5)])
    roads = geopandas.GeoDataFrame(
        {"key": ["A7"], "street": ["Mill Street"]}, geometry=[line], crs=25832
    )
    roads.to_file(folder / "roads.gpkg")
    return folder


def run(folder: Path, name: str = "cracks", **values: object) -> InferReport:
    roads = {"path": folder / "roads.gpkg", "id": "key", "name": "street", "section_m": 1.0}
    given = {"gsd_mm": 1000 * GSD_M, "survey_date": "2025-05-17", "roads": roads, **values}
    out = given.pop("out", folder / "map" / f"{name}.gpkg")
    return infer.run_inference(infer_job(folder / "tiles", out, **given), brightness)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that kept its probability; tests only read it."""
    folder = street(tmp_path_factory.mktemp("kept"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer, "compute", in_process)
        assert run(folder, probability="keep").exit_code == 3
    return folder


def assemble(*arguments: object) -> Result:
    return CliRunner().invoke(jobs.cli.app, ["assemble", *map(str, arguments)])


def assert_equal_maps(one: Path, other: Path, layers: tuple[str, ...] = LAYERS) -> None:
    for name in layers:
        tables = [layer(path, name, ()) for path in (one, other)]
        assert len(tables[0])
        pd.testing.assert_frame_equal(*tables)


@pytest.mark.usefixtures("no_pictures")
def test_the_same_settings_give_the_runs_own_layers(kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.gpkg"
    result = assemble(kept / "map" / "cracks.work", f"out={out}")
    assert result.exit_code == 3, result.output  # the broken file is still missing
    assert_equal_maps(out, kept / "map" / "cracks.gpkg", (*LAYERS, "inspected"))
    assert "c.tif" in result.stdout


@pytest.mark.usefixtures("no_pictures")
def test_a_clock_that_is_set_back_changes_no_layer(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 2e9 - 3600 * next(hours))
    pool = Pool()
    pool.stop_after = 2
    monkeypatch.setattr(infer, "compute", pool)
    out = tmp_path / "map.gpkg"
    with pytest.raises(KeyboardInterrupt):
        run(kept, out=out)
    assert read_status(out).done == 2
    pool.stop_after = None
    run(kept, out=out)
    assert (read_status(out).eta_s or 0) >= 0
    assert len(pool.computed) == len(set(pool.computed))
    figures = tmp_path / "figures.json"
    assert assemble(out, f"out={tmp_path / 'again.gpkg'}", "--json", figures).exit_code == 3
    assert json.loads(figures.read_text())["seconds"] >= 0
    for path in (out, tmp_path / "again.gpkg"):
        assert_equal_maps(path, kept / "map" / "cracks.gpkg")


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("threshold", [0.3, 0.501, 0.85])
def test_another_threshold_gives_what_a_run_with_it_gives(
    kept: Path, tmp_path: Path, threshold: float
) -> None:
    out = tmp_path / "other.gpkg"
    given = f"threshold={threshold}"
    assert assemble(kept / "map" / "cracks.gpkg", f"out={out}", given).exit_code == 3
    run(kept, "truth", threshold=threshold, out=tmp_path / "truth.gpkg")
    assert_equal_maps(out, tmp_path / "truth.gpkg")
    cracks = geopandas.read_file(out, layer="crack")
    assert cracks["touches_nodata"].any()
    assert cracks["gsd_mm"].max() == pytest.approx(10)


KILLED = """
import os, signal, sys
import geo.layers.geopackage, jobs.cli
geo.layers.geopackage.add_styles = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
jobs.cli.app(["assemble", *sys.argv[1:]])
"""


@pytest.mark.usefixtures("no_pictures")
def test_the_next_run_removes_what_a_killed_one_left(kept: Path, tmp_path: Path) -> None:
    out, given = tmp_path / "other.gpkg", "threshold=0.3"
    work = str(kept / "map" / "cracks.work")
    command = [sys.executable, "-c", KILLED, work, f"out={out}", given]
    assert subprocess.run(command, capture_output=True, cwd=ROOT).returncode == -signal.SIGKILL
    left = {path.name.split(".")[-1] for path in tmp_path.iterdir()}
    assert left >= {"parts", "gpkg"}
    assert not out.exists()
    (tmp_path / f".other.{os.getppid()}.tmp.gpkg").touch()  # of a process that lives
    (tmp_path / ".other.b.999999999.tmp.gpkg").touch()  # of another map
    assert assemble(work, f"out={out}", given).exit_code == 3
    hidden = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert hidden == {f".other.{os.getppid()}.tmp.gpkg", ".other.b.999999999.tmp.gpkg"}


@pytest.mark.usefixtures("no_pictures")
def test_thresholds_find_more_and_fewer_cracks(kept: Path, tmp_path: Path) -> None:
    found = []
    for threshold in (0.5, 0.7, 0.85):
        out = tmp_path / f"t{threshold}.gpkg"
        assemble(kept / "map", f"out={out}", f"threshold={threshold}", "--json", tmp_path / "j")
        figures = json.loads((tmp_path / "j").read_text())
        assert figures["cracks"] == len(geopandas.read_file(out, layer="crack"))
        assert figures["source"] == ("parts" if threshold == 0.5 else "probability")
        found.append(figures["length_m"])
    assert found[0] > found[1] > found[2] > 0


@pytest.mark.usefixtures("no_pictures")
def test_probability_is_vectorized_by_several_processes_alike(kept: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        out = tmp_path / f"w{workers}.gpkg"
        given = (f"out={out}", "threshold=0.3", f"workers={workers}")
        assert assemble(kept / "map", *given).exit_code == 3
    assert_equal_maps(tmp_path / "w1.gpkg", tmp_path / "w2.gpkg")


def test_limits_and_filters_of_the_new_map_are_those_of_a_run_with_them(
    kept: Path, tmp_path: Path
) -> None:
    out = tmp_path / "other.gpkg"
    limits: dict[str, object] = {"severity": {"d6433_mm": [3, 18]}, "min_length_m": 0.5}
    config = tmp_path / "limits.yaml"
    config.write_text(yaml.safe_dump(limits | {"type": {"angle_deg": 5}}))
    result = assemble(kept / "map", config, f"out={out}", "type.angle_deg=45")
    assert result.exit_code == 3, result.output
    truth = tmp_path / "truth.gpkg"
    run(kept, out=truth, type={"angle_deg": 45}, **limits)
    assert_equal_maps(out, truth)
    assert "high (> 18 mm)" in out.with_name("other.map.html").read_text(encoding="utf-8")


def test_tiles_and_model_are_not_needed(kept: Path, tmp_path: Path) -> None:
    work = tmp_path / "moved.work"
    shutil.copytree(kept / "map" / "cracks.work", work)
    (work / ".lock").unlink()
    out = tmp_path / "new" / "other.gpkg"
    result = assemble(work, f"out={out}", "roads.path=", "formats=[gpkg,parquet]")
    assert result.exit_code == 3, result.output
    assert {path.name for path in out.parent.iterdir()} == {
        "other.gpkg", "other.map.html", "other.overview.png", "other.report.md",
        "other.report.json", "other_crack.parquet", "other_network.parquet",
        "other_outline.parquet", "other_inspected.parquet",
    }  # fmt: skip
    assert "road_segment" not in {name for name, _ in pyogrio.list_layers(out)}
    assert set(geopandas.read_file(out, layer="crack")["type"]) == {"unknown"}
    assert "data:image/webp" in out.with_name("other.map.html").read_text(encoding="utf-8")


def test_roads_and_tiles_are_those_of_the_run_from_whatever_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    street(tmp_path)
    monkeypatch.chdir(tmp_path)
    first = run(Path(), out=Path("map") / "cracks.gpkg")
    (tmp_path / "map" / "roads.gpkg").write_bytes(b"others")
    monkeypatch.chdir(tmp_path / "map")
    assert assemble("cracks.work", "out=again.gpkg").exit_code == 3
    assert_equal_maps(Path("again.gpkg"), Path("cracks.gpkg"))
    given = f"roads.path={Path('..') / 'roads.gpkg'}"
    assert assemble("cracks.work", "out=again.gpkg", given).exit_code == 3
    assert set(geopandas.read_file("again.gpkg", layer="crack")["run_id"]) == {first.run_id}
    beside = assemble("cracks.work", f"out={tmp_path / 'tiles' / 'new.gpkg'}")
    assert "lies in the folder of the tiles" in beside.stderr


@pytest.mark.usefixtures("no_pictures")
def test_the_run_row_says_where_the_map_comes_from(kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "other.gpkg"
    assemble(kept / "map", f"out={out}", "threshold=0.3")
    first, second = (
        pyogrio.read_dataframe(path, layer="run").iloc[0]
        for path in (kept / "map" / "cracks.gpkg", out)
    )
    inputs, config = json.loads(second.inputs), json.loads(second.config)
    assert inputs["assembled_from"] == str(kept / "map" / "cracks.work")
    assert inputs["assembled_of"] == "probability"
    assert inputs["first_run_id"] == first.run_id != second.run_id
    assert inputs["files"] == json.loads(first.inputs)["files"] == 3
    assert (config["threshold"], config["out"]) == (0.3, str(out))
    assert (second.model, second.model_hash) == (first.model, first.model_hash)


def test_blocks_that_were_never_computed_are_named_and_exit_3(kept: Path, tmp_path: Path) -> None:
    work = tmp_path / "half.work"
    shutil.copytree(kept / "map" / "cracks.work", work)
    gone = sorted((work / "parts").glob("*.parquet"))[:2]
    for path in gone:
        path.unlink()
    (work / "backdrop.tif").unlink()
    out = tmp_path / "half.map.gpkg"
    result = assemble(work, f"out={out}", "--json", "-")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["blocks_unfinished"] == 2
    assert "2 of 8 blocks are not computed yet" in result.stderr
    assert "no imagery behind the map" in result.stderr
    rows = geopandas.read_file(out, layer="inspected").set_index("block_id")
    for path in gone:
        row = rows.loc[path.stem]
        assert (row.status, row.reason, row.valid_pct) == ("failed", NOT_COMPUTED, 0)
    seen = 200 * 500 - 80 * 200  # half of the second tile has no imagery
    assert rows.geometry.area.sum() == pytest.approx(seen * GSD_M**2, rel=0.01)


@pytest.mark.usefixtures("no_pictures")
def test_another_threshold_without_probability_is_refused_with_the_way_to_it(
    tmp_path: Path,
) -> None:
    folder = street(tmp_path)
    run(folder)
    out = tmp_path / "map" / "other.gpkg"
    result = assemble(folder / "map" / "cracks.work", f"out={out}", "threshold=0.4")
    assert result.exit_code == 1
    assert "probability=keep" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list((tmp_path / "map").glob("*other*"))


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("map/cracks.gpkg", "is the map of the run itself"),
        ("map/cracks.GPKG", "is the map of the run itself"),
        ("map/cracks.work/new.gpkg", "lies in the work folder"),
        ("tiles/new.gpkg", "lies in the folder of the tiles"),
        ("map/new.shp", "name it *.gpkg"),
    ],
)
def test_an_output_in_a_wrong_place_is_refused(kept: Path, out: str, words: str) -> None:
    before = sorted(kept.rglob("*"))
    result = assemble(kept / "map" / "cracks.work", f"out={kept / out}")
    assert result.exit_code == 1
    assert words in result.stderr
    assert sorted(kept.rglob("*")) == before


def test_an_existing_map_stays_until_the_new_one_is_complete(kept: Path, tmp_path: Path) -> None:
    work, out = tmp_path / "a.work", tmp_path / "map" / "b.gpkg"
    shutil.copytree(kept / "map" / "cracks.work", work)
    assemble(work, f"out={out}")
    before = out.read_bytes()
    next((work / "parts").iterdir()).write_bytes(b"torn")
    result = assemble(work, f"out={out}", "min_length_m=1")
    assert result.exit_code == 1
    assert "is not a readable part" in result.stderr
    next((work / "probability").glob("*.tif")).write_bytes(b"torn")
    result = assemble(work, f"out={out}", "threshold=0.3")
    assert result.exit_code == 1
    assert "compute it again" in result.stderr
    assert out.read_bytes() == before
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]


def test_a_folder_that_is_no_source_is_refused(kept: Path, tmp_path: Path) -> None:
    assert "does not exist" in assemble(tmp_path / "no.work", "out=o.gpkg").stderr
    work = tmp_path / "a.work"
    shutil.copytree(kept / "map" / "cracks.work", work)
    log = (work / "job.jsonl").read_text()
    (work / "job.jsonl").unlink()
    assert "has no job.jsonl" in assemble(work, "out=o.gpkg").stderr
    for old in ("{", '{"format": 1}\n'):
        (work / "job.jsonl").write_text(old)
        assert "is of another version of this program" in assemble(work, "out=o.gpkg").stderr
    (work / "job.jsonl").unlink()
    (work / "fingerprint.json").write_text("{}")
    assert "is of another version of this program" in assemble(work, "out=o.gpkg").stderr
    (work / "job.jsonl").write_text(log)
    shutil.rmtree(work / "parts")
    assert "holds no finished block" in assemble(work, "out=o.gpkg").stderr


def test_a_folder_in_which_a_job_runs_is_left_alone(kept: Path, tmp_path: Path) -> None:
    with (kept / "map" / "cracks.work" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = assemble(kept / "map", f"out={tmp_path / 'o.gpkg'}")
    assert result.exit_code == 1
    assert "another process works in" in result.stderr


def test_one_map_is_not_written_by_two_commands_at_once(kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.gpkg"
    with hold_output(out, str(out)):
        result = assemble(kept / "map", f"out={out}")
        with pytest.raises(OutputError, match=f"another process writes out={out}; wait for its"):
            run(kept, out=out)
    assert (result.exit_code, result.stdout) == (1, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: another process writes out={out}; wait for its end or")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_pictures")
def test_probability_of_a_block_goes_with_its_part(tmp_path: Path) -> None:
    folder = street(tmp_path)
    run(folder, probability="keep")
    stored = folder / "map" / "cracks.work" / "probability"
    before = len(list(stored.glob("*.tif")))
    image = np.full((100, 100), 210, np.uint8)
    write_tile(folder / "tiles" / "b.tif", image, 0, 300, gsd=2 * GSD_M, nodata=0)
    run(folder, resume="force")  # does not keep probability
    assert 0 < len(list(stored.glob("*.tif"))) < before
    out = f"out={tmp_path / 'o.gpkg'}"
    assert "keeps no probability of" in assemble(folder / "map", out, "threshold=0.3").stderr


@pytest.mark.usefixtures("no_pictures")
def test_the_printed_config_leaves_every_value_to_the_run(kept: Path, tmp_path: Path) -> None:
    printed = CliRunner().invoke(jobs.cli.app, ["config", "assemble"])
    assert yaml.safe_load(printed.stdout) is None
    assert "#threshold: 0.5" in printed.stdout.splitlines()
    config = tmp_path / "my.yaml"
    config.write_text(printed.stdout)
    out = tmp_path / "o.gpkg"
    assert assemble(kept / "map", config, f"out={out}").exit_code == 3
    assert "road_segment" in {name for name, _ in pyogrio.list_layers(out)}

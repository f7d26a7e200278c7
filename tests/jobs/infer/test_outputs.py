"""What lies beside the GeoPackage after a job: segments, page, report; and what the layers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from factories import EAST, NORTH, darkness, in_process, infer_job, write_tile
from shapely.geometry import LineString

from geo.errors import OutputError
from geo.imagery import overview
from geo.imagery.overview import Overview, read_backdrop
from geo.imagery.thumbnails import PictureGrid
from geo.layers.roads import Segment
from geo.options import AssembleOptions, MapRules, RoadOptions
from jobs.infer import outputs, plan
from jobs.infer import run as infer
from jobs.infer.report import InferReport


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[InferReport, Path]:
    """A street of 2 x 1.2 m along x with a crack along it and one that ends at missing imagery."""
    folder = tmp_path_factory.mktemp("street")
    image = np.full((240, 400, 3), 150, np.uint8)
    image[100:104, 20:380] = image[150:240, 200:204] = 20
    image[220:] = 0  # nodata
    write_tile(folder / "tiles" / "a.tif", image, nodata=0)
    line = LineString([(EAST, NORTH - 0.6), (EAST + 2, NORTH - 0.6)])
    roads = geopandas.GeoDataFrame(
        {"key": ["A7"], "street": ["Mill Street"], "width": [1.2]}, geometry=[line], crs=25832
    )
    roads.to_file(folder / "roads.gpkg")
    given = {"id": "key", "name": "street", "width": "width", "section_m": 1.0}
    job = infer_job(
        folder / "tiles",
        folder / "map" / "cracks.gpkg",
        min_area_m2=2e-4,
        formats=["gpkg", "parquet"],
        roads={"path": folder / "roads.gpkg", **given},
    )
    job.out.parent.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer, "compute", in_process)
        report = infer.run_inference(job, darkness)
    return report, job.out


def test_the_users_road_is_cut_into_ranked_segments(delivered: tuple[InferReport, Path]) -> None:
    segments = geopandas.read_file(delivered[1], layer="road_segment")
    assert set(segments.road_id) == {"A7"}
    assert set(segments.name) == {"Mill Street"}
    assert sorted(segments["rank"]) == [1, 2]
    table = pd.read_csv(delivered[1].with_suffix(".segments.csv"), encoding="utf-8-sig")
    assert sorted(table.segment_id) == sorted(segments.segment_id)


def test_a_crack_at_missing_imagery_is_marked(delivered: tuple[InferReport, Path]) -> None:
    cracks = geopandas.read_file(delivered[1], layer="crack").set_index("type")
    assert not cracks.loc["longitudinal", "touches_nodata"]
    assert cracks.loc["transverse", "touches_nodata"]


def test_each_crack_belongs_to_a_segment(delivered: tuple[InferReport, Path]) -> None:
    cracks = geopandas.read_file(delivered[1], layer="crack")
    segments = geopandas.read_file(delivered[1], layer="road_segment")
    assert set(cracks.segment_id) <= set(segments.segment_id)


def test_page_picture_and_report_lie_beside_the_map(delivered: tuple[InferReport, Path]) -> None:
    report, out = delivered
    assert "Mill Street" in report.map_page.read_text(encoding="utf-8")
    assert report.overview.is_file()
    assert "Mill Street" in out.with_name("cracks.report.md").read_text(encoding="utf-8")
    assert json.loads(out.with_name("cracks.report.json").read_text())
    assert str(report.map_page) in report.summary()
    assert "m2 of pixels, on " in report.summary()  # no area of networks, which the page tells


def test_geoparquet_on_request_holds_the_same_cracks(delivered: tuple[InferReport, Path]) -> None:
    cracks = geopandas.read_file(delivered[1], layer="crack")
    copy = geopandas.read_parquet(delivered[1].with_name("cracks_crack.parquet"))
    assert sorted(copy.crack_id) == sorted(cracks.crack_id)
    assert copy.crs == cracks.crs


def test_what_an_earlier_map_left_and_this_one_does_not_make_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = infer_job(tmp_path, tmp_path / "a.gpkg", formats=["gpkg", "parquet"])
    made, left = ("map.html", "crack.parquet"), ("segments.csv", "road_segment.parquet")
    for name in (*made, *left, "streets.pdf"):
        (tmp_path / f"a{'_' if name.endswith('parquet') else '.'}{name}").touch()
    outputs.MapFiles.of(job.out).prepare(job, job.roads, [])
    told = capsys.readouterr().err
    assert "a.segments.csv, a.streets.pdf, a_road_segment.parquet" in told
    assert not any(name in told for name in ("map.html", "_crack"))


def test_districts_and_streets_beyond_those_with_a_page_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "write_street_pages", lambda *_: None)
    names = [f"name {k}" for k in range(502)]
    monkeypatch.setattr(outputs, "places", lambda _: (names, names[1:]))
    outputs.MapFiles.of(tmp_path / "a.gpkg").draw_streets(None)  # type: ignore[arg-type]
    told = capsys.readouterr().err
    assert "the worst 500 of 502 districts" in told
    assert "the worst 500 of 501 streets" in told


def test_a_column_that_names_too_many_districts_is_warned_of_before_any_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line, roads = LineString([(0, 0), (1, 0)]), RoadOptions(district="id")
    for count, formats, told in (
        (501, ("gpkg", "pdf"), 1),
        (500, ("pdf",), 0),
        (501, ("gpkg",), 0),
    ):
        rules = MapRules.model_construct(formats=formats)
        segments = [Segment(str(k), "", "", line, 0, 1, 7, district=str(k)) for k in range(count)]
        outputs.warn_of_districts(rules, roads, [*segments, *segments])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == told
        assert all("roads.district=id names 501 districts" in line for line in lines)


def test_names_of_roads_that_may_come_out_wrong_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roads, rules = tmp_path / "roads.shp", AssembleOptions()
    (tmp_path / "roads.dbf").write_bytes(bytes(8) + b"\x20" + bytes(23) + "Ленина".encode("cp1251"))
    for name, told in (("street", 1), (None, 0)):
        files = outputs.MapFiles.of(tmp_path / "a.gpkg")
        files.prepare(rules, RoadOptions(path=roads, name=name), [])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == told
        assert all(line.startswith(f"warning: roads.path={roads} does not say") for line in lines)


def test_ground_that_no_web_map_shows_is_refused_before_any_work(tmp_path: Path) -> None:
    near_pole = Affine(0.005, 0, 1000.0, 0, -0.005, 500.0)
    image = np.full((100, 100), 150, np.uint8)
    write_tile(tmp_path / "tiles" / "a.tif", image, crs="EPSG:3413", transform=near_pole)
    job = infer_job(tmp_path / "tiles", tmp_path / "o.gpkg", formats=("gpkg", "pmtiles"))
    with pytest.raises(OutputError, match=r"end at 85\.05 degrees.* leave pmtiles out"):
        infer.run_inference(job, darkness)
    assert [path.name for path in tmp_path.iterdir()] == ["tiles"]


@pytest.mark.parametrize("missing", [False, True])
def test_workers_make_the_picture_of_a_large_map_and_tiles_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    image = np.random.default_rng(0).integers(90, 200, (150, 260, 3), np.uint8)
    image[70:74, 20:240] = 20
    write_tile(tmp_path / "tiles" / "a.tif", image)
    monkeypatch.setattr(infer, "compute", in_process)
    small = infer.run_inference(infer_job(tmp_path / "tiles", tmp_path / "small.gpkg"), darkness)
    read: list[int] = []

    def reduce(*given: Any) -> Overview:
        read.append(1)
        return overview.reduce(*given)

    monkeypatch.setattr(outputs, "reduce", reduce)
    monkeypatch.setattr(plan, "PICTURED_FROM", 1)
    if missing:  # as in a part of an earlier version
        monkeypatch.setattr(PictureGrid, "thumbnail", lambda *_: "")
    large = infer.run_inference(infer_job(tmp_path / "tiles", tmp_path / "large.gpkg"), darkness)
    assert len(read) == missing
    one, other = (
        read_backdrop(report.package.with_suffix(".work") / "backdrop.tif")
        for report in (small, large)
    )
    assert one is not None
    assert other is not None
    assert (one.image == other.image).all()
    assert (one.valid == other.valid).all()
    assert one.valid.any()
    assert small.overview.read_bytes() == large.overview.read_bytes()

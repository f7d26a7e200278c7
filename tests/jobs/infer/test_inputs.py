"""Inference on imagery of any kind, with a stand-in network and without Ray."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from factories import (
    EAST,
    GSD_M,
    NORTH,
    darkness,
    describe_model,
    in_process,
    infer_job,
    layer,
    street,
    write_roads,
    write_tile,
)
from rasterio.transform import from_origin

from geo.errors import InputError
from geo.grid import Grid, Window
from geo.imagery.web import WebFile
from jobs.infer import run as infer
from jobs.infer.inputs import ModelFiles, load_model, model_files, open_mosaic
from jobs.infer.job_log import JobRecord
from jobs.infer.plan import make_plan
from wpcrack.errors import CheckpointError

SIDE = 320
IMAGE, MASK = street()


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch):
    monkeypatch.setattr(infer, "compute", in_process)


def run(tiles, out, **values):
    return infer.run_inference(infer_job(tiles, out, **values), darkness)


def cracks(report):
    return geopandas.read_file(report.package, layer="crack")


def comparable(report):
    return layer(report.package)


def test_imagery_of_any_kind_gives_the_same_map_of_cracks(tmp_path):
    area = MASK.sum() * GSD_M**2
    half = SIDE // 2
    alpha = np.dstack((IMAGE, np.full((SIDE, SIDE), 255, np.uint8)))
    write_tile(tmp_path / "rgba" / "a.tif", alpha)
    write_tile(tmp_path / "deep" / "a.tif", IMAGE.astype(np.uint16) * 40)
    write_tile(tmp_path / "mixed" / "a.tif", IMAGE[:half])
    write_tile(tmp_path / "mixed" / "b.tif", IMAGE[half:].astype(np.uint16) * 40, half)
    write_tile(tmp_path / "gray" / "a.tif", IMAGE[..., :1])
    write_tile(tmp_path / "strips" / "a.tif", IMAGE[:10])
    write_tile(tmp_path / "strips" / "b.tif", IMAGE[10:, :1], 10)
    write_tile(tmp_path / "strips" / "c.tif", IMAGE[10:, 1:], 10, 1)
    reference = run(write_tile(tmp_path / "one.tif", IMAGE), tmp_path / "one.gpkg")
    assert reference.area_m2 == pytest.approx(area)
    for kind in ("rgba", "deep", "mixed", "gray", "strips"):
        report = run(tmp_path / kind, tmp_path / f"{kind}.gpkg")
        assert report.exit_code == 0, kind
        found, expected = comparable(report), comparable(reference)
        widths = [name for name in found.columns if name.startswith("width")]
        assert found[widths].to_numpy() == pytest.approx(expected[widths].to_numpy(), rel=0.06)
        pd.testing.assert_frame_equal(
            found.drop(columns=widths), expected.drop(columns=widths), obj=kind
        )


def test_a_street_in_degrees_is_mapped_in_meters(tmp_path):
    step = GSD_M / 111_320
    place = from_origin(9.0, 51.44, step / np.cos(np.radians(51.44)), step)
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", "GTiff", SIDE, SIDE, 3, "EPSG:4326", place, "uint8") as tiff:
        tiff.write(IMAGE.transpose(2, 0, 1))
    report = run(path, tmp_path / "out.gpkg")
    assert report.exit_code == 0
    assert cracks(report).crs.to_epsg() == 32632
    assert report.n_cracks == 2
    assert report.area_m2 == pytest.approx(MASK.sum() * GSD_M**2, rel=0.05)


def test_resampled_tiles_give_the_same_cracks_however_blocks_are_cut(tmp_path):
    half = SIDE // 2
    write_tile(tmp_path / "t" / "a.tif", IMAGE[:, :half])
    write_tile(tmp_path / "t" / "b.tif", IMAGE[:, half:], 0.37, half + 0.41)
    frames = [
        comparable(run(tmp_path / "t", tmp_path / f"{n}.gpkg", block_strides=n)) for n in (1, 3)
    ]
    assert len(frames[0])
    pd.testing.assert_frame_equal(*frames)


def test_the_pixel_size_of_the_model_is_read_with_it(tmp_path):
    assert model_files(describe_model(tmp_path / "a" / "model", gsd_mm=5).parent).gsd_mm == 5
    assert model_files(describe_model(tmp_path / "b", gsd_mm=None)).gsd_mm is None


def test_a_worker_takes_the_model_that_the_job_began_with_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr("wpcrack.inference.engine.load_predictor", lambda folder, *_, **__: folder)
    known = model_files(describe_model(tmp_path / "a"))
    assert load_model(known, 1) == known.folder
    describe_model(tmp_path / "a", gsd_mm=7)  # by a training that goes on
    with pytest.raises(CheckpointError, match=r"was replaced .* resume=never"):
        load_model(known, 1)
    (known.folder / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match="was replaced"):
        load_model(known, 1)


@pytest.mark.parametrize(
    ("gsd", "values", "expected", "warned"),
    [
        (0.005, {}, 5.0, False),
        (0.007, {}, 7.0, False),
        (0.01, {}, 5.0, True),
        (0.002, {}, 5.0, True),
        (0.01, {"resample": "never"}, 10.0, True),
        (0.01, {"gsd_mm": 8}, 8.0, True),
    ],
)
def test_imagery_is_brought_to_the_pixel_size_of_the_model(tmp_path, gsd, values, expected, warned):
    job = infer_job(write_tile(tmp_path / "a.tif", IMAGE, gsd=gsd), tmp_path / "o.gpkg", **values)
    said = []
    mosaic = open_mosaic(job, 5.0, said.append)
    assert 1000 * mosaic.grid.gsd_m == pytest.approx(expected)
    assert any(text.startswith("warning: 1 of 1 tiles") for text in said) == warned


@pytest.mark.parametrize(
    ("model_mm", "values", "words"),
    [
        (None, {"gsd_mm": 20}, r"would have 20 mm, .* has 5 mm: that is 4 x.*leave gsd_mm out"),
        (
            None,
            {"gsd_mm": 1},
            r"would have 1 mm, .* has 5 mm: that is 5 x, and imagery is resampled",
        ),
        (40.0, {}, r"have 5 mm, .* 40 mm: that is 8 x.*another model.*gsd_mm.*resample=never"),
        (1.0, {}, r"have 5 mm, .* 1 mm: that is 5 x"),
        (None, {"gsd_mm": 15}, None),
        (40.0, {"gsd_mm": 10}, None),
        (40.0, {"resample": "never"}, None),
    ],
)
def test_pixels_of_quite_another_size_are_refused_before_any_work_and_by_the_plan(
    tmp_path, model_mm, values, words
):
    """What most of the imagery has decides, not a few tiles that are coarser."""
    write_tile(tmp_path / "t" / "a.tif", IMAGE)
    write_tile(tmp_path / "t" / "odd.tif", IMAGE[:100], SIDE, gsd=0.02)
    model = describe_model(tmp_path / "model", gsd_mm=model_mm)
    job = infer_job(tmp_path / "t", tmp_path / "map" / "o.gpkg", model=model, **values)
    if words is None:
        infer.plan_inference(job)
        return
    for refused in (infer.plan_inference, infer.run_inference):
        with pytest.raises(InputError, match=words):
            refused(job)
    assert not job.work_folder.exists()


def test_coarse_imagery_on_a_fine_grid_keeps_its_resolution_on_record(tmp_path):
    report = run(write_tile(tmp_path / "a.tif", IMAGE, gsd=0.01), tmp_path / "o.gpkg", gsd_mm=5)
    inspected = geopandas.read_file(report.package, layer="inspected")
    assert inspected["gsd_mm"].to_numpy() == pytest.approx(10)
    found = cracks(report)
    assert found["gsd_mm"].to_numpy() == pytest.approx(10)
    assert found["width_mean_mm"].isna().all()
    assert set(found["severity_d6433"]) == {"not_measurable"}


@pytest.mark.parametrize("strides", [1, 2, 9])
def test_a_crack_has_the_pixels_of_the_coarsest_imagery_under_it(tmp_path, strides):
    image = np.full((SIDE, SIDE, 3), 150, np.uint8)
    image[60:64, 20:-20] = image[120:124, 100:180] = 20
    write_tile(tmp_path / "t" / "a.tif", image)
    write_tile(tmp_path / "t" / "b.tif", image[::2, ::2], 0, SIDE, gsd=2 * GSD_M)
    write_tile(tmp_path / "t" / "c.tif", image, SIDE)
    report = run(tmp_path / "t", tmp_path / "o.gpkg", block_strides=strides, gsd_mm=1000 * GSD_M)
    found = cracks(report)
    expected = [5, 5, 5, 10, 10]  # two on each tile; one goes on from fine to coarse pixels
    assert sorted(found["gsd_mm"]) == pytest.approx(expected)
    assert (found["width_mean_mm"].notna() == (found["gsd_mm"] < 6)).all()


def whole_grid():
    return Grid(
        from_origin(EAST, NORTH, GSD_M, GSD_M), rasterio.crs.CRS.from_epsg(25832), (SIDE, SIDE)
    )


def area_file(path, windows, crs=25832):
    outlines = [whole_grid().footprint(window) for window in windows]
    geopandas.GeoDataFrame(geometry=outlines, crs=25832).to_crs(crs).to_file(path)
    return path


@pytest.mark.parametrize("strides", [1, 2, 5])
def test_only_the_area_of_interest_is_inspected_to_the_pixel(tmp_path, strides):
    tile = write_tile(tmp_path / "a.tif", IMAGE)
    aoi = area_file(tmp_path / "aoi.geojson", [Window(30, 50, 100, 90), Window(100, 100, 90, 130)])
    report = run(tile, tmp_path / "o.gpkg", aoi=str(aoi), block_strides=strides)
    inside = np.zeros_like(MASK)
    inside[30:130, 50:140] = inside[100:190, 100:230] = True
    assert report.area_m2 == pytest.approx((MASK & inside).sum() * GSD_M**2)
    assert report.surveyed_mpx == pytest.approx(inside.sum() / 1e6)
    assert (
        cracks(report)
        .union_all()
        .within(geopandas.read_file(aoi).to_crs(25832).union_all().buffer(GSD_M))
    )


def probabilities(job):
    with rasterio.open(job.work_folder / "probability" / "probability.vrt") as vrt:
        return vrt.read(1)


def test_windows_beyond_the_area_are_not_predicted_and_change_nothing_inside(tmp_path):
    tile = write_tile(tmp_path / "a.tif", IMAGE)
    aoi = area_file(tmp_path / "aoi.geojson", [Window(70, 80, 50, 40)])
    found = {}
    for name, area in (("whole", {}), ("part", {"aoi": str(aoi)})):
        counts = []

        def counting(counts=counts):
            def predict(windows):
                counts.append(len(windows))
                return windows.mean(-1, dtype=np.float32) / 255

            return predict

        values = {"probability": "keep", "block_strides": 5, **area}
        job = infer_job(tile, tmp_path / f"{name}.gpkg", **values)
        infer.run_inference(job, counting)
        found[name] = sum(counts), probabilities(job)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[70:120, 80:120] = True
    assert (found["whole"][0], found["part"][0]) == (36, 4)
    np.testing.assert_array_equal(found["part"][1], found["whole"][1] * inside)


def test_windows_without_overlap_give_a_map_too(tmp_path):
    tile = write_tile(tmp_path / "a.tif", IMAGE)
    plain = {"window": 96, "overlap": 0, "blend": 0}
    report = run(tile, tmp_path / "o.gpkg", lattice=plain)
    assert (report.exit_code, report.failures) == (0, ())
    assert report.area_m2 == pytest.approx(MASK.sum() * GSD_M**2)
    assert cracks(report).touches_nodata.sum() == 0


def test_tiles_beyond_the_area_are_not_read(tmp_path):
    for number, col in enumerate((0, SIDE, 2 * SIDE)):
        write_tile(tmp_path / "t" / f"{number}.tif", IMAGE, 0, col)
    aoi = area_file(tmp_path / "aoi.gpkg", [Window(10, 10, 60, 60)], crs=4326)
    job = infer_job(tmp_path / "t", tmp_path / "o.gpkg", aoi=str(aoi))
    mosaic = open_mosaic(job, None, lambda text: None)
    (tmp_path / "t" / "2.tif").write_bytes(b"broken")
    assert 1 <= len(mosaic.blocks(job.block_px)) <= 2
    report = run(tmp_path / "t" / "[01].tif", tmp_path / "o.gpkg", aoi=str(aoi))
    assert (report.exit_code, report.failures) == (0, ())


def test_roads_are_refused_before_any_work_and_by_the_plan(tmp_path):
    tile = write_tile(tmp_path / "tiles" / "a.tif", IMAGE)
    line = [(EAST, NORTH - 1), (EAST + 1, NORTH - 1)]
    roads = write_roads(tmp_path / "roads.gpkg", [line], wide=["7,5"])
    model = describe_model(tmp_path / "model", gsd_mm=None)
    given = {"roads": {"path": str(roads), "width": "wide"}, "model": model}
    job = infer_job(tile, tmp_path / "o.gpkg", **given)
    with pytest.raises(InputError, match="wide=7,5"):
        infer.plan_inference(job)
    with pytest.raises(InputError, match="wide=7,5"):
        infer.run_inference(job, darkness)
    assert not job.work_folder.exists()


def test_only_the_surroundings_of_roads_are_inspected(tmp_path):
    tile = write_tile(tmp_path / "a.tif", IMAGE)
    line = shapely.LineString([(EAST + 0.3, NORTH - 0.8), (EAST + 1.3, NORTH - 0.8)])
    roads = tmp_path / "roads.geojson"
    geopandas.GeoSeries([line], crs=25832).to_file(roads)
    report = run(tile, tmp_path / "o.gpkg", roads={"path": str(roads), "buffer_m": 0.25})
    assert report.surveyed_mpx * 1e6 * GSD_M**2 == pytest.approx(line.buffer(0.25).area, rel=0.01)
    aoi = area_file(tmp_path / "aoi.gpkg", [Window(0, 0, SIDE, 100)])
    both = run(
        tile, tmp_path / "b.gpkg", aoi=str(aoi), roads={"path": str(roads), "buffer_m": 0.25}
    )
    assert 0 < both.surveyed_mpx < report.surveyed_mpx / 2


def test_another_name_of_a_road_is_another_run_of_the_same_blocks(tmp_path):
    tile = write_tile(tmp_path / "a.tif", IMAGE)
    line = [(EAST, NORTH - 0.8), (EAST + 1.6, NORTH - 0.8)]

    def made_with(name):
        path = write_roads(tmp_path / "roads.gpkg", [line], name=[name])
        report = run(tile, tmp_path / "o.gpkg", roads={"path": str(path), "name": "name"})
        named = geopandas.read_file(report.package, layer="road_segment")
        assert set(named["name"]) == {name}
        return report.run_id

    old, new = made_with("Mill Street"), made_with("Church Street")
    assert old != new
    assert made_with("Mill Street") == old


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("nothing", "is not a GeoPackage"),
        (shapely.Point(0, 0), "holds no polygon"),
        (shapely.box(0, 0, 1, 1), "nothing of"),
    ],
)
def test_an_unusable_area_is_refused_with_its_file(tmp_path, content, words):
    tile = write_tile(tmp_path / "a.tif", IMAGE)
    path = tmp_path / "aoi.geojson"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        geopandas.GeoSeries([content], crs=25832).to_file(path)
    with pytest.raises(InputError, match=words) as caught:
        run(tile, tmp_path / "o.gpkg", aoi=str(path))
    assert "aoi.geojson" in str(caught.value)


def test_another_area_or_stretch_is_another_job(tmp_path):
    tile = write_tile(tmp_path / "a.tif", IMAGE.astype(np.uint16) * 40)
    run(tile, tmp_path / "o.gpkg")
    with pytest.raises(Exception, match="stretch was"):
        run(tile, tmp_path / "o.gpkg", stretch=[0, 9000])
    aoi = area_file(tmp_path / "aoi.gpkg", [Window(0, 0, 50, 50)])
    with pytest.raises(Exception, match="another area"):
        run(tile, tmp_path / "o.gpkg", aoi=str(aoi))


def test_an_output_of_an_earlier_run_is_not_taken_for_a_tile(tmp_path):
    write_tile(tmp_path / "a.tif", IMAGE)
    run(tmp_path / "*.*", tmp_path / "o.gpkg")
    with pytest.raises(InputError, match=r"overview\.png is an output of this job"):
        run(tmp_path / "*.*", tmp_path / "o.gpkg")


def test_a_corrupt_block_in_a_good_file_is_tried_again_recorded_and_the_rest_delivered(
    tmp_path, monkeypatch
):
    path = write_tile(
        tmp_path / "a.tif", IMAGE, tiled=True, blockxsize=64, blockysize=64, compress="lzw"
    )
    with rasterio.open(path) as tiff:
        offset = int(tiff.get_tag_item("BLOCK_OFFSET_2_2", "TIFF", bidx=1))
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * 300)
    pauses = []
    monkeypatch.setattr("geo.imagery.tile_reader.time.sleep", pauses.append)
    report = run(path, tmp_path / "o.gpkg")
    assert report.exit_code == 3
    assert len(pauses) == 2  # two further tries, once
    assert os.fspath(path) in report.failures[0]
    lost = np.zeros_like(MASK)
    lost[128:192, 128:192] = True
    assert report.area_m2 == pytest.approx((MASK & ~lost).sum() * GSD_M**2)
    assert report.surveyed_mpx == pytest.approx((~lost).sum() / 1e6)


def test_a_failure_that_passes_costs_nothing(tmp_path, monkeypatch):
    from geo.imagery import tile_reader as tile_pixels

    path = write_tile(tmp_path / "a.tif", IMAGE)
    original, calls = tile_pixels.open_raster, []

    def flaky(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError("stale file handle")
        return original(*arguments)

    monkeypatch.setattr(tile_pixels, "open_raster", flaky)
    report = run(path, tmp_path / "o.gpkg")
    assert (report.exit_code, report.failures) == (0, ())
    assert report.surveyed_mpx == pytest.approx(SIDE**2 / 1e6)


def test_a_tile_without_permission_is_recorded_with_the_reason(tmp_path, monkeypatch):
    write_tile(tmp_path / "t" / "a.tif", IMAGE)
    locked = write_tile(tmp_path / "t" / "b.tif", IMAGE, 0, SIDE)
    original = Path.open

    def guarded(self, *arguments, **options):
        if self == locked:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", guarded)  # root may read anything, so chmod proves nothing
    report = run(tmp_path / "t", tmp_path / "o.gpkg")
    assert report.exit_code == 3
    assert "Permission denied" in report.failures[0]


def test_pipes_and_folders_that_look_like_tiles_do_not_stall_the_job(tmp_path):
    write_tile(tmp_path / "t" / "a.tif", IMAGE)
    os.mkfifo(tmp_path / "t" / "b.tif")
    report = run(tmp_path / "t", tmp_path / "o.gpkg")
    assert report.exit_code == 3
    assert "not a regular file" in report.failures[0]


def test_every_wish_of_a_job_reaches_the_mosaic(tmp_path):
    job = infer_job(
        write_tile(tmp_path / "a.tif", IMAGE.astype(np.uint16) * 40),
        tmp_path / "o.gpkg",
        crs="EPSG:32632",
        stretch=[0, 9000],
        retries=0,
        timeout_s=3,
    )
    mosaic = open_mosaic(job, None, lambda text: None)
    assert mosaic.grid.crs.to_epsg() == 32632
    assert dataclasses.astuple(mosaic.stretch) == (0, 9000)
    assert (mosaic.reading.retries, mosaic.reading.timeout_s) == (0, 3)


def test_addresses_that_differ_in_their_query_alone_are_inputs_of_their_own(tmp_path):
    """However they are signed, and in whatever order."""
    for number in range(2):
        write_tile(tmp_path / "tiles" / f"{number}.tif", IMAGE, col=400 * number)
    job = infer_job(tmp_path / "tiles", tmp_path / "o.gpkg")
    mosaic = open_mosaic(job, None, lambda text: None)

    def inputs(*queries):
        tiles = [
            dataclasses.replace(tile, path=f"https://city.org/get?{query}")
            for tile, query in zip(mosaic.tiles, queries, strict=True)
        ]
        moved = dataclasses.replace(mosaic, tiles=tuple(tiles))
        return JobRecord.of(job, make_plan(job, moved), ModelFiles.stand_in(), 0.0).inputs

    found = inputs("file=a&sig=x", "file=b&sig=x")
    assert len(found) == 2
    assert inputs("file=b&sig=y", "file=a&sig=z") == found


def test_secrets_of_addresses_stand_in_no_file_and_no_message(tmp_path, monkeypatch, capfd):
    """Both tiles are on a server; one of them is missing there."""
    from geo.imagery import opening

    path = write_tile(tmp_path / "tiles" / "a.tif", IMAGE)
    folder = path.parent.as_uri().removeprefix("file://")
    secret = "https://anna:s3cret@city.org/{}.tif?sig=s3cret"
    url = re.compile(r"https://anna:s3cret@city\.org(.*)\?sig=s3cret")
    monkeypatch.setattr(opening, "gdal_path", lambda name: url.sub(rf"{folder}\1", name))
    told = WebFile(path.read_bytes()[:16], (0, 0))
    monkeypatch.setattr("geo.imagery.headers.look_at", lambda *given: told)
    tiles = [secret.format(name) for name in ("a", "gone")]
    out = tmp_path / "map" / "o.gpkg"
    job = infer_job(tmp_path, out).model_copy(update={"tiles": tuple(tiles), "retries": 0})
    report = infer.run_inference(job, darkness)
    assert report.exit_code == 3
    assert report.surveyed_mpx > 0
    files = [file for file in out.parent.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert [file.name for file in files if b"s3cret" in file.read_bytes()] == []
    told = capfd.readouterr()
    assert "s3cret" not in told.out + told.err + "".join(report.failures)

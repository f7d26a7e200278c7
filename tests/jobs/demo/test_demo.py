"""The demo around stand-ins for training and inference: its files, its figures, its refusals."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from factories import Pool, darkness
from pyogrio.errors import DataSourceError
from rasterio.features import shapes
from rasterio.merge import merge

import geo
from geo.errors import OutputError
from jobs.demo import run as demo
from jobs.demo.draw import (
    CRS,
    ORIGIN_M,
    TrainingSetSize,
    tile_transform,
    write_city,
    write_training_set,
)
from jobs.demo.run import DemoOptions, run_demo
from jobs.demo.score import score_map
from jobs.infer.inputs import ModelFiles
from wpcrack.data.images import read_rgb
from wpcrack.data.read import read_image_level
from wpcrack.errors import CheckpointError, ConfigError, DataError
from wpcrack.synthetic import City, CityConfig, WindowConfig, draw_city

SMALL = DemoOptions(
    city=CityConfig(main_tiles=2, side_tiles=1, side_columns=(1,)),
    training_set=TrainingSetSize(streets=3, per_street=2),
    train=True,
)


def write_map(path: Path, polygons: list[shapely.Geometry]) -> None:
    table = geopandas.GeoDataFrame({"crack_id": range(len(polygons))}, geometry=polygons, crs=CRS)
    for layer in ("outline", "crack"):
        table.to_file(path, layer=layer, driver="GPKG")


def true_polygons(masks: Path) -> list[shapely.Geometry]:
    found = []
    for path in sorted(masks.glob("*.tif")):
        with rasterio.open(path) as dataset:
            mask = dataset.read(1)
            parts = shapes(mask, mask > 0, connectivity=8, transform=dataset.transform)
            found += [shapely.geometry.shape(part) for part, _ in parts]
    return found


@pytest.fixture(scope="module")
def city() -> City:
    return draw_city(SMALL.city, 3)


@pytest.fixture(scope="module")
def folder(city: City, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    write_city(city, folder / "tiles", folder / "truth")
    return folder


def test_tiles_abut_and_carry_crs_resolution_and_nodata(city: City, folder: Path) -> None:
    bounds = {}
    for path in sorted((folder / "tiles").glob("*.tif")):
        with rasterio.open(path) as dataset:
            assert dataset.crs.to_string() == CRS
            assert dataset.res == (city.gsd_m, city.gsd_m)
            assert (dataset.nodata, dataset.count, dataset.block_shapes[0]) == (0, 3, (256, 256))
            assert 0.5 < (dataset.dataset_mask() > 0).mean() < 1
            bounds[path.stem] = dataset.bounds
    assert len(bounds) == len(city.places)
    assert bounds["tile_00_00"].right == pytest.approx(bounds["tile_00_01"].left, abs=1e-6)
    assert bounds["tile_00_01"].bottom == pytest.approx(bounds["tile_01_01"].top, abs=1e-6)


def test_truth_lies_where_the_cracks_are_painted(city: City, folder: Path) -> None:
    lines = geopandas.read_file(folder / "truth" / "centerlines.gpkg")
    assert len(lines) == len(city.cracks)
    assert lines.crs.to_string() == CRS
    assert lines.width_max_mm.max() <= 25.001
    roads = geopandas.read_file(folder / "truth" / "roads.gpkg")
    assert list(roads.columns) == ["road_id", "name", "width_m", "lanes", "geometry"]
    head = (folder / "truth" / "roads.gpkg").read_bytes()[:64]
    assert int.from_bytes(head[60:], "big") == 10300  # later versions make older desktops warn
    corridors = shapely.union_all(shapely.buffer(roads.geometry.to_numpy(), 2.2))
    assert shapely.covers(corridors, lines.geometry.to_numpy()).all()
    with rasterio.open(folder / "truth" / "masks" / "tile_00_00.tif") as dataset:
        mask, transform = dataset.read(1) > 0, dataset.transform
    assert transform == tile_transform(city, 0, 0)
    line = max(lines.geometry, key=lambda g: g.length if g.bounds[2] < dataset.bounds.right else 0)
    for share in np.linspace(0.05, 0.95, 20):
        point = line.interpolate(share, normalized=True)
        col, row = (point.x - transform.c) / transform.a, (point.y - transform.f) / transform.e
        assert mask[int(row) - 1 : int(row) + 2, int(col) - 1 : int(col) + 2].any()


def test_the_true_map_scores_one_and_an_empty_map_zero(
    city: City, folder: Path, tmp_path: Path
) -> None:
    write_map(tmp_path / "true.gpkg", true_polygons(folder / "truth" / "masks"))
    score = score_map(tmp_path / "true.gpkg", city)
    assert score.pixel_iou == score.f1 == 1.0
    assert min(score.recall_2cm, score.recall_2cm_thin, score.precision_2cm) > 0.999
    assert score.true_m + score.thin_m > 5
    write_map(tmp_path / "empty.gpkg", [shapely.box(0, 0, 1, 1)])
    empty = score_map(tmp_path / "empty.gpkg", city)
    assert empty.pixel_iou == empty.recall_2cm == empty.recall_2cm_thin == 0.0
    assert empty.predicted_m == 0.0


def test_a_false_bar_costs_precision_and_no_recall(
    city: City, folder: Path, tmp_path: Path
) -> None:
    polygons = true_polygons(folder / "truth" / "masks")
    good = score_map_of(polygons, city, tmp_path / "good.gpkg")
    x, y = ORIGIN_M[0] + 100 * city.gsd_m, ORIGIN_M[1] - 60 * city.gsd_m
    bar = shapely.box(x, y - 0.05, x + 5, y)  # along the street's side, where no crack lies
    worse = score_map_of([*polygons, bar], city, tmp_path / "worse.gpkg")
    assert worse.recall_2cm == good.recall_2cm
    assert worse.predicted_m - good.predicted_m == pytest.approx(5, abs=0.6)
    assert worse.precision_2cm < good.precision_2cm - 0.02


def score_map_of(polygons: list[shapely.Geometry], city: City, path: Path) -> demo.MapScore:
    write_map(path, polygons)
    return score_map(path, city)


def test_training_set_has_both_classes_and_sources_in_its_names(tmp_path: Path) -> None:
    seed = np.random.SeedSequence(1)
    drawn = write_training_set(tmp_path / "a", WindowConfig(), SMALL.training_set, seed)
    names = sorted(path.name for path in (tmp_path / "a").glob("*/*.png"))
    items = read_image_level(tmp_path / "a", val_fraction=0.4).items
    around = [item for item in items if item.surroundings is not None]
    assert around
    assert all(item.has_crack for item in around)
    for item in around:
        wide = read_rgb(item.surroundings.path)
        place = item.surroundings.find(wide.shape[:2], (item.height, item.width))
        assert np.abs(wide[place].astype(int) - read_rgb(item.path)).mean() < 6, "JPEG"
    assert len(names) == drawn.crack + drawn.road == 12
    assert len({name.rsplit("_r", 1)[0] for name in names}) == drawn.streets == 3
    again = np.random.SeedSequence(1)
    write_training_set(tmp_path / "b", WindowConfig(), SMALL.training_set, again)
    for path in (tmp_path / "a").glob("*/*.png"):
        twin = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == twin.read_bytes()


def test_demo_writes_report_and_prints_where_the_map_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the shipped model; then with one that is trained, which replaces the first demo."""
    models: list[Path | None] = []

    def infer(out: Path, model: Path | None) -> SimpleNamespace:
        masks, place = merge(sorted((out / "truth" / "masks").glob("*.tif")))
        image, _ = merge(sorted((out / "tiles").glob("*.tif")))
        probability = (masks[0] > 0).astype(np.float32)
        seen, gray = image.any(axis=0), image.transpose(1, 2, 0)
        package = out / "cracks.gpkg"
        geo.make_map(probability, place, CRS, package, valid=seen, image=gray)
        models.append(model)
        pages = {"overview": out / "cracks.overview.png", "map_page": out / "cracks.map.html"}
        return SimpleNamespace(package=package, infer_s=0.2, assemble_s=0.1, **pages)

    monkeypatch.setattr(demo, "find_model", lambda path: path)
    monkeypatch.setattr(demo, "_train", lambda out, seed, options: None)
    monkeypatch.setattr(demo, "_infer", infer)
    out = tmp_path / "demo"
    for train in (False, True):
        report = run_demo(out, options=replace(SMALL, train=train))
        assert models.pop() == (out / "run" if train else None)
        values = json.loads((out / "report.json").read_text())
        assert {"pixel_iou", "f1", "recall_2cm", "precision_2cm", "seconds"} <= values.keys()
        stages = ["draw", "train", "infer", "compare"] if train else ["draw", "infer", "compare"]
        assert list(values["seconds"]) == ["draw", "train", "infer", "vectorize"]
        assert values["recall_2cm"] > 0.99
        assert values["found_2cm"] > 0.95
        assert values["width_mae_mm"] < 2
        assert values["whole_cracks"] > 0.7
        assert report.cracks.is_file()
        printed = capsys.readouterr().out
        for number, stage in enumerate(stages, start=1):
            assert f"[{number}/{len(stages)}] {stage}" in printed
        for word in ("recall_2cm", "type_accuracy", str(report.cracks)):
            assert word in printed


def test_without_a_model_the_demo_says_so_before_it_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wpcrack.model.SHIPPED", tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no model"):
        run_demo(tmp_path / "demo", options=replace(SMALL, train=False))
    assert not (tmp_path / "demo").exists()


def test_a_seed_that_is_none_costs_no_earlier_demo(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / "tiles").mkdir()
    with pytest.raises(ConfigError, match="seed is -1; give 0 or more"):
        run_demo(tmp_path, seed=-1, options=SMALL)
    assert (tmp_path / "tiles").is_dir()


def test_an_interrupted_demo_says_that_it_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its map alone could be continued, but the same command draws the city anew."""
    pool = Pool()
    pool.stop_after = 0
    monkeypatch.setattr("jobs.infer.run.compute", pool)
    monkeypatch.setattr("jobs.infer.run.model_files", lambda model: ModelFiles.stand_in())
    monkeypatch.setattr("jobs.infer.run.load_model", lambda *_: darkness())
    monkeypatch.setattr(demo, "find_model", lambda path: path)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path, options=replace(SMALL, train=False))
    said = capsys.readouterr().err
    assert said.count("interrupted") == said.count("begins it anew") == 1
    assert "continues" not in said


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), DataSourceError("full")])
def test_a_disk_that_is_full_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(demo, "_draw", Mock(side_effect=error))
    with pytest.raises(OutputError, match=r"--out .* cannot be written \(.*; free space"):
        run_demo(tmp_path, options=SMALL)


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / "tiles").mkdir()
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process makes a demo"):
            run_demo(tmp_path, options=replace(SMALL, train=True))
    assert (tmp_path / "tiles").is_dir()


def test_demo_never_touches_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "precious.tif").write_text("mine")
    with pytest.raises(DataError, match="no demo made"):
        run_demo(tmp_path, options=SMALL)
    assert (tmp_path / "tiles" / "precious.tif").read_text() == "mine"
    with pytest.raises(DataError, match="is a file"):
        run_demo(tmp_path / "tiles" / "precious.tif", options=SMALL)

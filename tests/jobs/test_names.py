"""Names: of inputs that are no UTF-8, as old cameras write them; of outputs in one folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from factories import (
    EAST,
    NORTH,
    darkness,
    image_level_set,
    in_process,
    infer_job,
    layer,
    street,
    write_roads,
    write_tile,
)
from PIL import Image

from geo.errors import InputError, OutputError
from geo.layers.sound_map import require_map
from geo.paths import literal
from jobs.compare.run import run_compare
from jobs.dataset import run_dataset
from jobs.evaluate.run import EvaluateOptions, run_evaluate
from jobs.infer import run as infer
from jobs.predict import run_predict
from jobs.review.apply import run_apply
from jobs.settings.map import Imagery
from jobs.windows.cut import WindowsOptions
from jobs.windows.run import run_windows
from wpcrack.data.build import BuildOptions
from wpcrack.data.manifest import read_manifest
from wpcrack.data.read import read_image_level
from wpcrack.errors import DataError

LATIN = os.fsdecode("Straße".encode("latin-1"))
"""A name that is no UTF-8."""


def test_such_a_tile_is_left_out_by_name_and_the_others_are_mapped_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer, "compute", in_process)
    image, _ = street(256)
    tiles = write_tile(tmp_path / "tiles" / "a.tif", image).parent
    shutil.copy(tiles / "a.tif", tiles / f"{LATIN}.tif")
    job = infer_job(tiles, tmp_path / "o.gpkg")
    report = infer.run_inference(job, darkness)
    assert report.exit_code == 3
    assert "Stra\\xdfe.tif: has a name that is not UTF-8" in report.failures[0]
    assert len(layer(job.out)) > 0
    assert infer.run_inference(job, darkness).run_id == report.run_id  # found again in its log
    windows = run_windows(
        Imagery(tiles=str(tiles)), tmp_path / "windows", WindowsOptions(3, 64, ordered=False)
    )
    assert "has a name that is not UTF-8" in windows.left_out
    assert len(read_manifest(tmp_path / "windows" / "manifest.csv")) == 3
    for named in (tiles / f"{LATIN}.tif", tmp_path / LATIN):
        with pytest.raises(InputError, match=r"no usable tile|does not exist"):
            infer.run_inference(infer_job(named, tmp_path / "p.gpkg"), darkness)
    with pytest.raises(OutputError, match="not UTF-8"):
        infer.run_inference(infer_job(tiles, tmp_path / f"{LATIN}.gpkg"), darkness)
    (tmp_path / LATIN).mkdir()
    there = shutil.copy(job.out, tmp_path / LATIN / "o.gpkg")
    with pytest.raises(InputError, match="not UTF-8"):
        require_map(there)
    with pytest.raises(InputError, match="not UTF-8"):
        infer.run_inference(infer_job(tiles, tmp_path / "p.gpkg", aoi=there), darkness)


@pytest.mark.parametrize(
    ("folder", "name"), [("Neu!", "a"), (" x;y", "a;b"), ("s3:x", "a"), ("x.zip!y", "a!\nb")]
)
def test_maps_are_made_changed_and_compared_whatever_the_folder_and_the_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, name: str
) -> None:
    monkeypatch.setattr(infer, "compute", in_process)
    monkeypatch.chdir(tmp_path)
    (here := Path(folder)).mkdir()
    image, _ = street(160)
    tiles = write_tile(here.absolute() / "tiles" / "a.tif", image).parent
    line = shapely.LineString([(EAST, NORTH - 0.1), (EAST + 1, NORTH - 0.1)])
    streets = geopandas.GeoDataFrame({"name": ["A"]}, geometry=[line], crs=25832)
    streets.to_file(tmp_path / "roads.shp")
    for part in tmp_path.glob("roads.*"):  # a Shapefile is several files
        part.rename(here / f"{name}{part.suffix}")
    roads = {"path": here / f"{name}.shp", "name": "name"}
    out, later, changes = (here / f"{name}{k}.gpkg" for k in (1, 2, 3))
    for package, threshold in ((out, 0.5), (later, 0.6), (out, 0.5)):  # the last takes its place
        given = {
            "formats": ("gpkg", "parquet", "pmtiles", "pdf"),
            "roads": roads,
            "threshold": threshold,
        }
        assert infer.run_inference(infer_job(tiles, package, **given), darkness).exit_code == 0
    run_compare(out, later, changes)
    plain = shutil.copy(out, tmp_path / "plain.gpkg")
    cracks = pyogrio.read_dataframe(plain, layer="crack")
    assert list(layer(plain, "road_segment")["name"]) == ["A"]
    pyogrio.write_dataframe(cracks[1:], plain, layer="crack")
    shutil.move(plain, out)
    assert run_apply(out).applied is not None
    assert len(layer(literal(out))) == len(cracks) - 1
    assert {path.name for path in tmp_path.iterdir()} == {folder}
    assert not [path for path in here.iterdir() if ".tmp" in path.name]


def test_maps_in_one_folder_share_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "compute", in_process)
    image, _ = street(128)
    tiles = write_tile(tmp_path / "tiles" / "a.tif", image).parent
    roads = write_roads(tmp_path / "roads.gpkg", [[(EAST, NORTH), (EAST + 1, NORTH)]])
    found: set[str] = set()
    for stem in ("one", "two"):
        before = {p: p.read_bytes() for p in (tmp_path / "out").glob("*.*") if p.is_file()}
        job = infer_job(tiles, tmp_path / "out" / f"{stem}.gpkg", roads={"path": roads})
        report = infer.run_inference(job, darkness)
        assert report.map_page.is_file()
        assert report.overview.is_file()
        assert {path: path.read_bytes() for path in before} == before
        found |= {p.name for p in (tmp_path / "out").iterdir()}
    assert all(name.startswith(("one.", "two.")) for name in found)
    assert {"one.map.html", "two.segments.csv", "two.overview.png"} <= found


def test_such_photographs_are_scored_and_predicted_and_refused_where_a_manifest_names_them(
    tmp_path: Path,
) -> None:
    for k in range(2):
        image, mask = street(160, ((((20 + k, 0), (20 + k, 159)), 4),))
        for folder, array in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"{LATIN}{'ab'[k] * 3}.png")
    images, masks = tmp_path / "images", tmp_path / "masks"
    found = run_predict(None, tmp_path / "out", [images], predictor=darkness())
    assert len(found.written) == 6
    options = EvaluateOptions(None, images, masks, figure=tmp_path / "best.png")
    assert run_evaluate(options, darkness()).scores.n_images == 2
    with pytest.raises(DataError, match=r"not UTF-8 \(Stra\\xdfeaaa, Stra\\xdfebbb\); rename"):
        run_dataset(images, masks, tmp_path / "set", BuildOptions(window=64))


def test_label_folders_keep_their_split(tmp_path: Path) -> None:
    root = image_level_set(tmp_path / "set")
    for path in sorted(root.rglob("*.png")):
        path.rename(path.with_name(f"{LATIN}{path.name}"))
    data = read_image_level(root)
    kept = json.loads(json.dumps(data.sides))
    assert read_image_level(root, kept=kept).sides == data.sides

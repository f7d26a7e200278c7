"""What `import geo` offers: light to load, and as its examples say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio.windows
from affine import Affine
from factories import street, write_roads, write_tile

import geo

PLACE = Affine(0.005, 0, 5e5, 0, -0.005, 5.8e6)
MODULES = [one.name for one in pkgutil.walk_packages(geo.__path__, "geo.") if not one.ispkg]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["polygonize", "make_map", "read_tiles"])
def test_each_public_function_has_an_example(name):
    assert f"geo.{name}(" in getattr(geo, name).__doc__


def test_the_package_loads_nothing_heavy_until_a_name_is_asked_for():
    heavy = "{'torch', 'rasterio', 'geopandas', 'shapely', 'numpy'}"
    script = f"import sys, geo; assert not {heavy} & set(sys.modules)"
    root = Path(geo.__file__).parents[1]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
    assert all(hasattr(geo, name) for name in geo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        geo.nothing  # noqa: B018


def test_the_table_of_an_array_is_the_layer_of_its_map(tmp_path):
    image, mask = street()
    probability = np.where(mask, np.linspace(0.6, 0.9, mask.shape[1]), 0.1)
    table = geo.polygonize(probability, PLACE, "EPSG:25832", image=image)
    out = tmp_path / "new" / "cracks.gpkg"
    report = geo.make_map(probability, PLACE, "EPSG:25832", out, image=image)
    layer = pyogrio.read_dataframe(report.path, layer="crack")
    assert report.n_cracks == len(table) == 2
    assert table.width_mean_mm.tolist() == pytest.approx([33, 27], abs=1)  # of the mask
    for column in table.columns.drop("geometry"):
        values = table[column].astype(object).where(table[column].notna(), None)
        assert values.tolist() == layer[column].tolist(), column
    assert table.geometry.to_wkb().tolist() == layer.geometry.to_wkb().tolist()
    assert table.crs == layer.crs
    assert [path.name for path in report.path.parent.iterdir()] == ["cracks.gpkg"]


def test_without_imagery_there_is_no_crack_and_its_neighbors_say_so():
    _, mask = street()
    valid = np.ones(mask.shape, bool)
    valid[:, :100] = False
    whole = geo.polygonize(mask.astype(float), PLACE, "EPSG:25832")
    seen = geo.polygonize(mask.astype(float), PLACE, "EPSG:25832", valid=valid)
    assert not whole.touches_nodata.any()
    assert seen.touches_nodata.tolist() == [True]
    assert seen.area_m2.sum() == pytest.approx((mask & valid).sum() * 25e-6)


@pytest.mark.parametrize(
    ("probability", "crs", "words"),
    [
        (np.zeros((3, 4, 4)), "EPSG:25832", "give .height, width"),
        (np.full((4, 4), 255.0), "EPSG:25832", "from 255 to 255"),
        (np.full((4, 4), np.nan), "EPSG:25832", "from 0 to 1"),
        (np.zeros((4, 4)), "EPSG:4326", "not projected"),
    ],
)
def test_arrays_that_are_no_probability_on_a_map_are_refused(probability, crs, words):
    with pytest.raises(geo.InputError, match=words):
        geo.polygonize(probability, PLACE, crs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"probability": [[0.0, 1.0]]}, "probability is of type list; give a NumPy array"),
        ({"probability": None}, "probability is of type NoneType"),
        ({"valid": [[True]]}, "valid is of type list"),
        ({"transform": Affine(0, 0, 0, 0, 0, 0)}, "pixels without an area"),
        ({"transform": Affine(np.nan, 0, 0, 0, 1, 0)}, "pixels without an area"),
        ({"threshold": float("nan")}, "threshold is nan; give a number from 0 to 1"),
        ({"threshold": 127}, "threshold is 127"),
        ({"threshold": True}, "threshold is True"),
        ({"threshold": "0.5"}, "threshold is '0.5'; give a number"),
        ({"options": {"min_length_m": 1}}, "options is {'min_length_m': 1}; give geo.Assemble"),
        ({"options": geo.RoadOptions()}, "options is RoadOptions"),
        ({"probability": np.full((4, 4), "a")}, "type <U1; give .height, width. of floats"),
        ({"probability": np.zeros((4, 4), complex)}, "type complex128"),
        ({"probability": np.full((4, 4), 1 + 1e-7)}, "to 1.0000001; give"),
        ({"probability": np.ma.masked_array(np.zeros((4, 4)))}, "is a masked array; give its data"),
        ({"valid": np.ones((4, 4))}, "valid has shape .4, 4. and type float64; give that of"),
        ({"image": np.zeros((4, 4, 1, 1), np.uint8)}, "image has shape .4, 4, 1, 1."),
        ({"image": np.zeros((4, 4, 0), np.uint8)}, "image has shape .4, 4, 0."),
        ({"transform": None}, "transform=None; give an Affine"),
        ({"transform": (1, 2, 3)}, r"transform=.1, 2, 3.; give an Affine"),
        (
            {"transform": Affine(0.005, 0, np.nan, 0, -0.005, 0)},
            "is not defined; give a transform as rasterio does",
        ),
    ],
)
def test_what_cannot_be_mapped_is_refused_in_a_sentence(changes, words):
    given = {"probability": np.zeros((4, 4)), "transform": PLACE, "crs": "EPSG:25832", **changes}
    with pytest.raises(geo.InputError, match=words):
        geo.polygonize(**given)


def test_arguments_of_another_kind_are_refused_in_a_sentence(tmp_path):
    for out in (None, 5, b"a.gpkg", ["a.gpkg"]):
        with pytest.raises(geo.OutputError, match=r"^out is .*; give the path of a file"):
            geo.make_map(np.zeros((4, 4)), PLACE, "EPSG:25832", out)
    with pytest.raises(geo.InputError, match=r"^options is 'x'"):
        geo.make_map(np.zeros((4, 4)), PLACE, "EPSG:25832", tmp_path / "a.gpkg", options="x")
    for tiles in (None, 5, [None], [["a.tif"]], b"a.tif"):
        with pytest.raises(geo.InputError, match=r"^tiles is .*; give paths"):
            geo.read_tiles(tiles)
    tile = write_tile(tmp_path / "a.tif", street()[0])
    with pytest.raises(geo.InputError, match=r"^reading is {'retries': 1}"):
        geo.read_tiles(tile, reading={"retries": 1})
    mosaic = geo.read_tiles(path for path in (tile,))
    of_rasterio = rasterio.windows.Window(0, 0, 4, 4)
    for window in (
        None,
        (0, 0, 4, 4),
        of_rasterio,
        geo.Window(0.5, 0, 4, 4),
        geo.Window(0, 0, -1, 4),
    ):
        with pytest.raises(geo.InputError, match=r"^window is .*; give a geo\.Window"):
            mosaic.read(window)
    assert mosaic.read(geo.Window(np.int64(0), 0, np.uint8(4), 4)).image.shape == (4, 4, 3)


def test_where_there_is_no_imagery_may_be_told_as_rasterio_does_and_hold_anything(tmp_path):
    _, mask = street()
    probability = mask.astype(np.float32)
    dataset_mask = np.full(mask.shape, 255, np.uint8)
    dataset_mask[:, :100] = 0
    expected = geo.polygonize(probability, PLACE, "EPSG:25832", valid=dataset_mask > 0)
    probability[:, :50], probability[:, 50:100] = np.nan, 3e38
    seen = geo.polygonize(probability, PLACE, "EPSG:25832", valid=dataset_mask)
    assert seen.equals(expected)
    report = geo.make_map(probability, PLACE, "EPSG:25832", tmp_path / "a.gpkg", valid=dataset_mask)
    assert report.length_m == pytest.approx(expected.length_m.sum())


@pytest.mark.parametrize("out", ["s3://bucket/cracks.gpkg", "a.txt/cracks.gpkg"])
def test_where_no_map_can_be_written_is_said_and_nothing_is_left(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a file")
    with pytest.raises(geo.OutputError, match=r"is the address s3:|could not be written"):
        geo.make_map(np.zeros((4, 4)), PLACE, "EPSG:25832", out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_map_replaces_nothing_of_the_user_beside_it_and_names_formats_that_it_lacks(tmp_path):
    line = [(PLACE.c, PLACE.f - 0.01), (PLACE.c + 1, PLACE.f - 0.01)]
    roads = geo.RoadOptions(path=write_roads(tmp_path / "roads.gpkg", [line]))
    for beside, changes in (
        ("a.segments.csv", {"roads": roads}),
        ("a_crack.parquet", {"formats": ("gpkg", "parquet")}),
    ):
        mine = tmp_path / beside
        mine.write_text("mine")
        options = geo.AssembleOptions(**changes)
        with pytest.raises(geo.OutputError, match="was not written by this program"):
            geo.make_map(
                np.zeros((4, 4)), PLACE, "EPSG:25832", tmp_path / "a.gpkg", options=options
            )
        assert mine.read_text() == "mine"
        mine.unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["roads.gpkg"]
    options = geo.AssembleOptions(formats=("gpkg", "pmtiles", "pdf"))
    with pytest.raises(geo.InputError, match="has pmtiles, pdf, which only a job over tiles"):
        geo.make_map(np.zeros((4, 4)), PLACE, "EPSG:25832", tmp_path / "a.gpkg", options=options)


def test_a_map_is_called_gpkg(tmp_path):
    for name in ("cracks.shp", "cracks"):
        with pytest.raises(geo.OutputError, match=r"name it \*\.gpkg"):
            geo.make_map(np.zeros((4, 4)), PLACE, "EPSG:25832", tmp_path / name)
    assert list(tmp_path.iterdir()) == []

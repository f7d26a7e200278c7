"""STAC as a list of tiles: one raster per item, its place, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from factories import EAST, GSD_M, NORTH, write_tile

from geo import read_tiles
from geo.errors import InputError
from geo.grid import Window
from geo.imagery.find import find_tiles, read_index

COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def item(number, assets):
    box = shapely.box(7 + number, 50, 7.5 + number, 50.5)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"item{number}",
        "geometry": json.loads(shapely.to_geojson(box)),
        "properties": {"datetime": "2026-05-01T00:00:00Z"},
        "links": [{"rel": "self", "href": "http://127.0.0.1/secret.tif"}],
        "assets": assets,
    }


ITEMS = [
    item(0, {"visual": {"href": "tiles/a.tif", "type": COG, "roles": ["visual"]},
             "nir": {"href": "tiles/nir.tif", "type": COG, "roles": ["data"]}}),
    item(1, {"image": {"href": "https://city.org/b.tif?sig=1"},
             "thumbnail": {"href": "b.png", "type": "image/png", "roles": ["thumbnail"]},
             "info": {"href": "b.xml", "type": "application/xml"}}),
]  # fmt: skip


def write_json(path: Path, items):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def write_parquet(path: Path, items):
    shapes = [shapely.from_geojson(json.dumps(one["geometry"])) for one in items]
    frame = geopandas.GeoDataFrame(
        {"id": [one["id"] for one in items], "assets": [one["assets"] for one in items]},
        geometry=shapes,
        crs=4326,
    )
    frame.to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["items.json", "items.geojson", "items.parquet"])
def test_items_are_tiles_with_their_footprints(tmp_path, name):
    write = write_parquet if name.endswith("parquet") else write_json
    listing = find_tiles(str(write(tmp_path / name, ITEMS)))
    assert listing.paths == ()
    assert {tile.path for tile in listing.indexed} == {
        str(tmp_path / "tiles" / "a.tif"),
        "https://city.org/b.tif?sig=1",
    }
    near = next(tile for tile in listing.indexed if tile.path.endswith("a.tif"))
    assert near.footprint.bounds == (7.0, 50.0, 7.5, 50.5)
    assert near.crs.to_epsg() == 4326


@pytest.mark.parametrize(
    ("assets", "message"),
    [
        ({"info": {"href": "b.xml", "type": "application/xml"}}, "names 0 rasters in item item0"),
        ({n: {"href": f"{n}.tif", "roles": ["data"]} for n in "ab"}, "names 2 rasters in item"),
        ({"a": {"type": COG}}, "damaged item item0"),
    ],
)
def test_an_item_without_one_tile_is_named(tmp_path, assets, message):
    with pytest.raises(InputError, match=message):
        read_index(write_json(tmp_path / "items.json", [item(0, assets)]))


def test_an_item_at_a_point_has_no_footprint(tmp_path):
    point = {"type": "Point", "coordinates": [7, 50]}
    with pytest.raises(InputError, match="no footprint of item item0"):
        read_index(write_json(tmp_path / "items.json", [ITEMS[0] | {"geometry": point}]))


def test_an_item_without_a_place_is_named(tmp_path):
    lost = ITEMS[0] | {"geometry": None}
    with pytest.raises(InputError, match="no footprint of item item0"):
        read_index(write_json(tmp_path / "items.json", [lost]))


@pytest.mark.parametrize("right", [20, 32, 60])
def test_a_raster_is_seen_as_far_as_its_item_reaches(tmp_path, right):
    image = np.full((32, 40, 3), 90, np.uint8)
    write_tile(tmp_path / "a.tif", image)
    outline = shapely.box(EAST, NORTH - 32 * GSD_M, EAST + right * GSD_M, NORTH)
    of_item = geopandas.GeoSeries([outline], crs=25832).to_crs(4326)[0]
    geometry = json.loads(shapely.to_geojson(of_item))
    of_tile = item(0, {"a": {"href": "a.tif", "type": COG}}) | {"geometry": geometry}
    mosaic = read_tiles(write_json(tmp_path / "items.json", [of_tile]))
    seen = mosaic.read(Window(0, 0, 32, 60))
    assert not seen.failures
    cols = np.flatnonzero(seen.valid.any(axis=0))
    assert np.array_equal(cols, np.arange(len(cols)))
    assert min(right, 40) <= len(cols) <= min(right + 4, 40)

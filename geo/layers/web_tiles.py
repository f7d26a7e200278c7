"""Layers of a finished GeoPackage as PMTiles: vector tiles in one file, which a web map reads.

A page with millions of features shows what lies in its window; no server but one of files is
needed. GDAL brings the shapes into web mercator and cuts them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
from rasterio.warp import transform_bounds

from geo.errors import OutputError
from geo.files import built_locally, output_errors, remove_leftovers, whole_file
from geo.grid import Grid
from geo.layers.geopackage import write_rows
from geo.layers.schema import CRACK, NETWORK, ROAD_SEGMENT, Layer
from geo.outputs import TILES_SEAL, require_replaceable
from geo.paths import layer_names, literal

TILED = (CRACK, NETWORK, ROAD_SEGMENT)
"""Layers that a web map shows; outlines of pieces would be as many again."""

LEAST_ZOOM, MOST_ZOOM = 11, 19
"""From a town to single cracks: a tile's pixel is 38 m to .15 m wide; maps draw on beyond."""

MOST_LATITUDE = 85.05
"""Web mercator is a square, which ends there."""

HALF_GAP_DEG = 1e-8
"""Shapes end a millimeter before 180 degrees: what lies on it may be taken for -180."""

TILE_PARTS = 4096
"""In which a tile's side is counted: 1.9 cm at the most zoom."""


def tiles_path(package: Path, layer: Layer) -> Path:
    """Name the tiles of a layer.

    >>> tiles_path(Path("maps/cracks.gpkg"), CRACK).name
    'cracks_crack.pmtiles'
    """
    return package.with_name(f"{package.stem}_{layer.name}.pmtiles")


def require_on_web(grid: Grid) -> None:
    """Refuse tiles of ground that no web map shows, before any work.

    Raises:
        OutputError: some of it lies nearer to a pole than MOST_LATITUDE.
    """
    _, south, _, north = transform_bounds(grid.crs, "EPSG:4326", *grid.footprint().bounds)
    if max(-south, north) > MOST_LATITUDE:
        raise OutputError(
            f"formats has pmtiles, for web maps, which end at {MOST_LATITUDE} degrees of latitude, "
            f"and the tiles reach {max(-south, north):.2f}; leave pmtiles out"
        )


def write_web_tiles(package: Path) -> list[Path]:
    """Write the tiles of all layers of TILED that have features, beside the GeoPackage.

    Tiles of an earlier map whose layer is empty now are removed.

    Raises:
        OutputError: a file cannot be written, or is not ours.
    """
    there = layer_names(package)
    written = []
    for layer in TILED:
        out = tiles_path(package, layer)
        require_replaceable([out])
        remove_leftovers(out)
        count = (
            pyogrio.read_info(literal(package), layer=layer.name)["features"]
            if layer.name in there
            else 0
        )
        if not count:
            out.unlink(missing_ok=True)
            continue
        _write(package, layer, out)
        written.append(out)
    return written


def _write(package: Path, layer: Layer, out: Path) -> None:
    kinds = (DataLayerError, DataSourceError, FeatureError, GeometryError)
    with (
        output_errors(out, *kinds),
        whole_file(out) as temporary,
        built_locally(temporary) as built,
        pyogrio.open_arrow(literal(package), layer=layer.name, use_pyarrow=True) as (about, rows),
    ):
        schema, batches = _days_as_text(rows)
        write_rows(
            built,
            schema,
            _in_halves(batches, about) if _is_across_180(package, layer) else batches,
            layer=layer.name,
            driver="PMTiles",
            geometry_name=about["geometry_name"],
            geometry_type=about["geometry_type"],
            crs=about["crs"],
            dataset_options={
                "NAME": out.stem,
                "DESCRIPTION": f"{TILES_SEAL}{layer.meaning}",
                "MINZOOM": LEAST_ZOOM,
                "MAXZOOM": MOST_ZOOM,
                "EXTENT": TILE_PARTS,
            },
        )
        if not math.isfinite(pyogrio.read_info(literal(built))["total_bounds"][0]):
            raise OutputError(f"{out} shows nothing after writing; check the disk")


def _days_as_text(rows: pa.RecordBatchReader) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return schema and batches with days such as 2026-05-01: GDAL writes 2026/05/01 into tiles."""
    fields = [f.with_type(pa.string()) if pa.types.is_date(f.type) else f for f in rows.schema]
    schema = pa.schema(fields)
    return schema, (batch.cast(schema) for batch in rows)


def _is_across_180(package: Path, layer: Layer) -> bool:
    about = pyogrio.read_info(literal(package), layer=layer.name, force_total_bounds=True)
    if not np.isfinite(about["total_bounds"]).all():  # not a shape in it, which is told later
        return False
    west, _, east, _ = transform_bounds(about["crs"], "EPSG:4326", *about["total_bounds"])
    return bool(west > east)


def _in_halves(
    batches: Iterator[pa.RecordBatch], about: dict[str, Any]
) -> Iterator[pa.RecordBatch]:
    """Return rows whose shapes are cut at 180 degrees: GDAL would draw them around the Earth."""
    column = about["geometry_name"]
    there = pyproj.Transformer.from_crs(about["crs"], "EPSG:4326", always_xy=True)
    back = pyproj.Transformer.from_crs("EPSG:4326", about["crs"], always_xy=True)

    def halve(batch: pa.RecordBatch) -> pa.RecordBatch:
        place = batch.schema.get_field_index(column)
        shapes = shapely.from_wkb(np.asarray(batch[place].to_pylist(), object))
        degrees = shapely.transform(shapes, there.transform, interleaved=False)
        west, _, east, _ = shapely.bounds(degrees).T
        taken, parts = list(range(len(shapes))), list(shapes)
        for row in np.flatnonzero(east - west > 180).tolist():
            both = shapely.transform(_halves(degrees[row]), back.transform, interleaved=False)
            parts[row], half = both
            taken.append(row)
            parts.append(half)
        field = batch.schema.field(place)
        encoded = pa.array(shapely.to_wkb(np.array(parts, object)), field.type)
        return batch.take(pa.array(taken)).set_column(place, field, encoded)

    return map(halve, batches)


def _halves(shape: shapely.Geometry) -> list[shapely.Geometry]:
    """Return what of lines or areas in degrees lies west and what lies east of 180 degrees."""
    whole = shapely.transform(shape, lambda x, y: (x + 360 * (x < 0), y), interleaved=False)
    west = shapely.intersection(whole, shapely.box(0, -90, 180 - HALF_GAP_DEG, 90))
    east = shapely.intersection(whole, shapely.box(180 + HALF_GAP_DEG, -90, 360, 90))
    return [west, shapely.transform(east, lambda x, y: (x - 360, y), interleaved=False)]

"""Layers of a finished GeoPackage as PMTiles: vector tiles in one file, which a web map reads.

A page with millions of features shows what lies in its window; no server but one of files is
needed. GDAL brings the shapes into web mercator and cuts them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

from geo.errors import OutputError
from geo.files import built_locally, output_errors, remove_leftovers, whole_file
from geo.layers.geopackage import write_rows
from geo.layers.schema import CRACK, NETWORK, ROAD_SEGMENT, Layer
from geo.outputs import TILES_SEAL, require_replaceable
from geo.paths import layer_names, literal

TILED = (CRACK, NETWORK, ROAD_SEGMENT)
"""Layers that a web map shows; outlines of pieces would be as many again."""

LEAST_ZOOM, MOST_ZOOM = 11, 19
"""From a town to single cracks: a tile's pixel is 38 m to .15 m wide; maps draw on beyond."""

TILE_PARTS = 4096
"""In which a tile's side is counted: 1.9 cm at the most zoom."""


def tiles_path(package: Path, layer: Layer) -> Path:
    """Name the tiles of a layer.

    >>> tiles_path(Path("maps/cracks.gpkg"), CRACK).name
    'cracks_crack.pmtiles'
    """
    return package.with_name(f"{package.stem}_{layer.name}.pmtiles")


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
        write_rows(
            built,
            *_days_as_text(rows),
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

"""Tile indices: vector files whose rows name a raster and outline where it lies.

An index lets a job be planned without opening its rasters: 100 000 of them in seconds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS

from geo.errors import InputError, first_line
from geo.opening import is_remote
from geo.tile import ListedTile
from geo.vectors import PARQUET_SUFFIXES, layers, read_table

INDEX_SUFFIXES = frozenset({".gpkg", ".parquet", ".geoparquet", ".fgb", ".geojson", ".shp"})

PATH_COLUMNS = ("location", "path", "filepath", "filename", "file", "href", "url", "uri")
"""Names of the column with the raster, the first one found counts; gdaltindex calls it location."""

NAMED_COLUMNS = 8
"""Columns that an error lists."""


def read_index(path: Path) -> tuple[ListedTile, ...]:
    """Read a tile index: a column of paths (relative to the index) or URLs, and footprints.

    Args:
        path: GeoPackage, GeoParquet, FlatGeobuf, GeoJSON or Shapefile; in a file of several layers
            the first one with a column of paths.

    Raises:
        InputError: not readable, no column of paths, no CRS, a row without path or footprint.
    """
    frame = _read(path)
    column = _path_column(list(frame.columns))
    if column is None:
        names = ", ".join(str(name) for name in frame.columns[:NAMED_COLUMNS])
        raise InputError(
            f"{path} names its rasters in no column that is known ({', '.join(PATH_COLUMNS)}); "
            f"it has {names}; rename the right one"
        )
    if frame.crs is None:
        raise InputError(f"{path} has no coordinate system; write it again with one")
    if not len(frame):
        raise InputError(f"{path} lists no raster; check tiles=")
    incomplete = frame[column].isna() | frame.geometry.isna() | frame.geometry.is_empty
    if incomplete.any():
        row = int(incomplete.to_numpy().argmax())
        raise InputError(f"{path} has no path or no footprint in row {row}; complete or remove it")
    here, crs = os.path.abspath(path.parent), CRS.from_wkt(frame.crs.to_wkt())
    outlines = frame.geometry.envelope.to_numpy()
    return tuple(
        ListedTile(_absolute(here, str(name)), outline, crs)
        for name, outline in zip(frame[column], outlines, strict=True)
    )


def _absolute(folder: str, name: str) -> str:
    return name if is_remote(name) else os.path.abspath(os.path.join(folder, name))


def _read(path: Path) -> geopandas.GeoDataFrame:
    try:
        return read_table(path, None if path.suffix.lower() in PARQUET_SUFFIXES else _layer(path))
    except (OSError, ValueError, pa.ArrowException, DataSourceError, DataLayerError) as error:
        raise InputError(
            f"{path} cannot be read as a tile index ({first_line(error)}); write it again"
        ) from error


def _layer(path: Path) -> str:
    """The first layer with geometries and a column of paths, else the first with geometries."""
    names = layers(path)
    fitting = (n for n in names if _path_column(pyogrio.read_info(path, layer=n)["fields"]))
    return next(fitting, names[0])


def _path_column(columns: Any) -> str | None:
    by_name = {str(column).lower(): str(column) for column in columns}
    return next((by_name[name] for name in PATH_COLUMNS if name in by_name), None)

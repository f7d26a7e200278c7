"""Vector files of a user: areas and roads, in any format and CRS."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pyarrow as pa
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS

from geo.errors import InputError, first_line

PARQUET_SUFFIXES = frozenset({".parquet", ".geoparquet"})


def read_vectors(path: Path, crs: CRS, key: str) -> geopandas.GeoDataFrame:
    """Read a vector file into a CRS; rows without a geometry are left out.

    Args:
        path: GeoPackage, GeoParquet, GeoJSON, Shapefile or another OGR format; of several layers
            the first with geometries.
        crs: to transform to.
        key: the setting that names the file, for messages.

    Raises:
        InputError: missing, unreadable, without a CRS or empty.
    """
    if not path.exists():
        raise InputError(f"{key}={path} does not exist; give a vector file")
    try:
        frame = read_table(path)
    except (OSError, ValueError, pa.ArrowException, DataSourceError, DataLayerError) as error:
        raise InputError(
            f"{key}={path} cannot be read ({first_line(error)}); write it again"
        ) from error
    if frame.crs is None:
        raise InputError(f"{key}={path} has no coordinate system; write it again with one")
    present = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    return present.to_crs(crs.to_wkt())


def read_table(path: Path, layer: str | None = None) -> geopandas.GeoDataFrame:
    """Read one layer of a vector file; without a name the first one with geometries.

    Raises:
        OSError, ValueError, ArrowException, DataSourceError, DataLayerError: it is unreadable.
    """
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return geopandas.read_parquet(path)
    return pyogrio.read_dataframe(path, layer=layer or layers(path)[0])


def layers(path: Path) -> list[str]:
    """Names of the layers with geometries.

    Raises:
        ValueError: there is none.
        DataSourceError: the file is unreadable.
    """
    names = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if not names:
        raise ValueError("it has no layer with geometries")
    return names

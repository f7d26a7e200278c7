"""The layers of a map as tables, read from its GeoPackage, and back as rows of the schema."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
import pyarrow as pa
import pyogrio
import shapely
from rasterio.crs import CRS

from geo.errors import InputError
from geo.layers.run_rows import MapTerms
from geo.layers.schema import (
    CRACK,
    GEOMETRY,
    INSPECTED,
    NETWORK,
    OUTLINE,
    ROAD_SEGMENT,
    RUN,
    Layer,
)
from geo.options import Rules
from geo.paths import layer_names, literal


@dataclass(frozen=True, eq=False)
class EditedMap:
    """The layers of a map as tables.

    Attributes:
        tables: by name of the layer.
        rules: by which the map was made.
        crs: of its shapes.
        unit_m: meters of a unit of the CRS.
    """

    tables: dict[str, geopandas.GeoDataFrame]
    rules: Rules
    crs: CRS
    unit_m: float

    @classmethod
    def read(cls, package: Path) -> EditedMap:
        """Read the layers of a map.

        Raises:
            InputError: the file has no coordinate system.
        """
        names = layer_names(package)
        wanted = (CRACK, NETWORK, OUTLINE, ROAD_SEGMENT, INSPECTED, RUN)
        tables = {
            x.name: pyogrio.read_dataframe(literal(package), layer=x.name)
            for x in wanted
            if x.name in names
        }
        system = tables[CRACK.name].crs
        if system is None:
            raise InputError(f"{package} has no coordinate system; give a map of `wpcrack infer`")
        unit_m = float(system.axis_info[0].unit_conversion_factor)
        crs = CRS.from_wkt(system.to_wkt())
        return cls(tables, MapTerms.read(package).rules, crs, unit_m)


def to_batch(layer: Layer, table: pd.DataFrame) -> pa.RecordBatch:
    """Return a table in the columns and types of its layer; what it lacks is empty."""
    schema = layer.arrow()
    arrays = []
    for field in schema:
        if field.name == GEOMETRY:
            values: Any = shapely.to_wkb(table.geometry.to_numpy())
        else:
            values = table[field.name] if field.name in table else [None] * len(table)
        if pa.types.is_date(field.type) and len(table):
            days = pd.to_datetime(values)
            values = [None if pd.isna(day) else day.date() for day in days]
        column = pa.array(values, field.type, from_pandas=True)
        chunked = isinstance(column, pa.ChunkedArray)  # texts of pandas, of no row or put together
        arrays.append(column.combine_chunks() if chunked else column)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)

"""Whether a GeoPackage can be a map of ours: checked as a whole before anything is made from it.

People edit maps, so rows, columns and tables may have been added, and what they drew has empty
columns. A damaged file, another kind of file, and values that no map has are refused here, in one
sentence; readers of the layers need not think of them.
"""

from __future__ import annotations

import math
import sqlite3
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio.errors import CRSError

from geo.errors import InputError, first_line
from geo.files import NOT_UTF8, is_utf8, readable
from geo.layers.run_rows import MapTerms
from geo.layers.schema import (
    CRACK,
    INSPECTED,
    LAYERS,
    NETWORK,
    ROAD_SEGMENT,
    RUN,
    ColumnType,
    Layer,
)
from geo.paths import layer_names, literal
from geo.vectors import AREAS, HEAD_BYTES, LINES, Features, is_geopackage, read_features, refuse_far

REMEDY = "make the map again with `wpcrack assemble`, or copy it again"

NEEDED: Mapping[str, Sequence[str]] = {
    CRACK.name: ("crack_id", "length_m", "width_mean_mm", "gsd_mm"),
    NETWORK.name: ("network_id", "area_m2"),
    INSPECTED.name: ("status", "gsd_mm"),
    RUN.name: ("run_id",),
}
"""Layers and columns without which nothing can be said of a map."""

OPTIONAL = ("verdict", "surface", "district", "priority", "lanes")
"""Columns that older maps lack."""

IF_THERE = ("accuracy", "survey_date", "name")
"""Columns that are looked at wherever they are: a page and a report tell of them."""

EMPTY = ("rank", "lanes", "density_m_per_m2", "cracking_pct", "zeb_cell_pct")
"""Figures of road segments that may be empty, beside those of widths."""

LARGEST = 1e12
"""No figure of a map is larger."""

_TYPES: dict[ColumnType, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "real": (int, float),
    "boolean": (bool, int),
    "date": (date, str),  # a GIS may have stored it as text
}

_TRUTHS = ("True", "False", 0.0, 1.0)
"""How programs that edit maps write yes and no in a column that has empty cells as well."""

_DAMAGE = (
    sqlite3.Error,
    RuntimeError,  # root of pyogrio's errors
    OSError,
    ValueError,
    LookupError,
    TypeError,
    OverflowError,
    pa.ArrowException,
    CRSError,
)


def has_shape(table: geopandas.GeoDataFrame) -> NDArray[np.bool_]:
    """Return which rows have a shape, and not the empty one that a desktop may leave."""
    return np.asarray(shapely.get_num_coordinates(table.geometry.to_numpy()) > 0)


def require_map(package: Path, needed: Mapping[str, Sequence[str]] | None = None) -> None:
    """Refuse a file that is not a map of ours, or a damaged one.

    Args:
        package: the file.
        needed: layer -> columns without which it is none, and whose values are looked at beside
            those that older maps lack; None: all of the schema, and its rules.

    Raises:
        InputError: that it is, and why.
    """
    if not package.is_file():
        raise InputError(f"{package} is not a file; give a GeoPackage of `wpcrack infer`")
    if not is_utf8(package):
        raise InputError(f"{readable(package)} {NOT_UTF8}")
    try:
        with warnings.catch_warnings():  # what matters is refused below, in our words
            warnings.simplefilter("ignore")
            _require_database(package)
            names = layer_names(package)
            _require_layers(names, _layers() if needed is None else NEEDED)
            for layer in LAYERS:
                if layer.name in names:
                    columns = _columns(layer) if needed is None else needed.get(layer.name, ())
                    _require_layer(package, layer, columns)
            if needed is None:
                MapTerms.read(package)
    except InputError as error:
        raise InputError(f"{package} {error}") from error
    except _DAMAGE as error:
        raise InputError(f"{package} is damaged ({first_line(error)}); {REMEDY}") from error


def _require_database(package: Path) -> None:
    with package.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if not is_geopackage(head):
        raise InputError("is not a GeoPackage; give one of `wpcrack infer`")
    with closing(sqlite3.connect(f"{package.absolute().as_uri()}?mode=ro", uri=True)) as base:
        (verdict,) = base.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise ValueError(verdict)


def _layers() -> list[str]:
    return [layer.name for layer in LAYERS if layer is not ROAD_SEGMENT]


def _require_layers(names: Iterable[str], needed: Iterable[str]) -> None:
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(
            f"has no layer {', '.join(missing)}, so it is not a map of `wpcrack infer`; give one, "
            "or make it again with `wpcrack assemble`"
        )


def _columns(layer: Layer) -> list[str]:
    return [column.name for column in layer.columns if column.name not in OPTIONAL]


def _require_layer(package: Path, layer: Layer, needed: Sequence[str]) -> None:
    known = {column.name: column.type for column in layer.columns}
    if layer.is_spatial:
        wanted = [name for name in known if name in (*needed, *OPTIONAL, *IF_THERE)]
        try:
            found = read_features(package, layer.name, columns=wanted)
        except InputError as error:
            raise ValueError(f"layer {layer.name} {error}") from error
        columns = found.columns
        if found.crs is None or not found.crs.is_projected:
            raise InputError("has no projected coordinate system; lengths cannot be measured")
        _require_shapes(found, layer)
    else:
        _, table = pyogrio.read_arrow(literal(package), layer=layer.name)
        table.validate(full=True)
        columns = {name: table[name].to_pylist() for name in table.column_names}
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(
            f"has no column {', '.join(missing)} in its layer {layer.name}; make the map again "
            "with `wpcrack assemble`"
        )
    for name, values in columns.items():
        if name in known:
            _require_values(f"{layer.name}.{name}", values, known[name])
            if layer is ROAD_SEGMENT and _is_filled(name, known[name]):
                _require_filled(f"{layer.name}.{name}", values)


def _require_shapes(found: Features, layer: Layer) -> None:
    """Refuse what is no shape of a layer; an empty or missing one may be what a person left."""
    there = ~(shapely.is_missing(found.shapes) | shapely.is_empty(found.shapes))
    kinds = LINES if "Line" in layer.geometry else AREAS
    types = shapely.get_type_id(found.shapes[there])
    if layer is CRACK and np.isin(types, AREAS).any():
        raise InputError(
            "holds no lines in its layer crack: an earlier version wrote it; make the map again "
            "with `wpcrack assemble`"
        )
    if found.broken or not np.isin(types, kinds).all():
        raise ValueError(f"layer {layer.name} has shapes that are not {layer.geometry}")
    if layer is ROAD_SEGMENT and not there.all():
        raise ValueError(f"layer {layer.name} has rows without a line")
    refuse_far(found, layer.name)


def _require_values(name: str, values: Sequence[Any], kind: ColumnType) -> None:
    """Refuse values of another type; programs that edit maps write 1 as 1.0 beside empty cells."""
    for value in values:
        if kind == "boolean" and value in _TRUTHS:
            continue
        if kind == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
        is_odd = value is not None and not isinstance(value, _TYPES[kind])
        if is_odd or (kind in ("real", "integer") and value is not None and not _is_figure(value)):
            raise ValueError(f"{name} is {value!r:.60}")
        if kind == "date" and isinstance(value, str):
            date.fromisoformat(value[:10])


def _is_figure(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= LARGEST


def _is_filled(name: str, kind: ColumnType) -> bool:
    is_width = name.endswith("_width_mm") or name == "width_p95_mm"
    return name == "segment_id" or not (kind == "text" or name in EMPTY or is_width)


def _require_filled(name: str, values: Sequence[Any]) -> None:
    if None in values:
        raise ValueError(f"{name} is empty")

"""Every column of every output layer, once: name, type, unit, meaning.

The writer takes its types from here and README its table, so the two cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

ColumnType = Literal["text", "integer", "real", "boolean", "date"]
GeometryType = Literal["MultiPolygon", "MultiLineString", "LineString"]

GEOMETRY = "geom"
"""Name of every layer's geometry column."""

_ARROW: dict[ColumnType, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "real": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
}


@dataclass(frozen=True)
class Column:
    """One attribute: its unit is "" where it has none."""

    name: str
    type: ColumnType
    unit: str
    meaning: str


@dataclass(frozen=True)
class Layer:
    """One layer of the GeoPackage."""

    name: str
    geometry: GeometryType
    meaning: str
    columns: tuple[Column, ...]

    def arrow(self) -> pa.Schema:
        """Arrow schema of the layer, the geometry as WKB at the end."""
        fields = [pa.field(column.name, _ARROW[column.type]) for column in self.columns]
        wkb = {"ARROW:extension:name": "geoarrow.wkb"}
        return pa.schema([*fields, pa.field(GEOMETRY, pa.binary(), metadata=wkb)])


CRACK = Layer(
    "crack",
    "MultiPolygon",
    "One feature per crack: an 8-connected component of the crack mask, whole across seams.",
    (
        Column("crack_id", "text", "", "stable: hash of CRS, pixel size and topmost pixel"),
        Column("area_m2", "real", "m2", "pixels of the crack, measured before simplification"),
        Column("confidence", "real", "0-1", "mean crack probability over the crack's pixels"),
        Column("gsd_mm", "real", "mm", "pixel size of the imagery"),
        Column("model", "text", "", "name of the model"),
        Column("run_id", "text", "", "fingerprint of configuration, model and inputs"),
    ),
)

INSPECTED = Layer(
    "inspected",
    "MultiPolygon",
    "What was looked at: one feature per block; tiles that could not be used follow.",
    (
        Column("block_id", "text", "", "block of the lattice; empty for a tile left out"),
        Column("status", "text", "", "inspected, partial, nodata or failed"),
        Column("reason", "text", "", "why not wholly inspected, and what to do"),
        Column("tiles_failed", "text", "", "files that failed, separated by ;"),
        Column("valid_pct", "real", "%", "share of the block's pixels with imagery"),
        Column("gsd_mm", "real", "mm", "pixel size of the imagery"),
        Column("survey_date", "date", "", "day of the survey, as configured"),
        Column("seconds", "real", "s", "time spent on the block"),
    ),
)

LAYERS = (CRACK, INSPECTED)


def readme_table() -> str:
    """Render the layers and columns as Markdown tables."""
    lines: list[str] = []
    for layer in LAYERS:
        lines += [f"**{layer.name}** ({layer.geometry}). {layer.meaning}", ""]
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| {c.name} | {c.type} | {c.unit} | {c.meaning} |" for c in layer.columns]
        lines.append("")
    return "\n".join(lines)

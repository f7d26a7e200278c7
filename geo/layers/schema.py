"""Every column of every output layer, once: name, type, unit, meaning.

The writer takes its types from here and README its table, so the two cannot differ. A new column is
added here and filled where the rows of its layer are made; without that, writing fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

ColumnType = Literal["text", "integer", "real", "boolean", "date"]
GeometryType = Literal["MultiPolygon", "LineString", "none"]

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

    @property
    def description(self) -> str:
        """The meaning with its unit."""
        return f"{self.meaning} ({self.unit})" if self.unit else self.meaning


@dataclass(frozen=True)
class Layer:
    """One layer of the GeoPackage."""

    name: str
    geometry: GeometryType
    meaning: str
    columns: tuple[Column, ...]

    @property
    def is_spatial(self) -> bool:
        """Whether its rows have a geometry."""
        return self.geometry != "none"

    def arrow(self) -> pa.Schema:
        """Return the Arrow schema of the layer, the geometry as WKB at the end."""
        fields = [pa.field(column.name, _ARROW[column.type]) for column in self.columns]
        if self.is_spatial:
            wkb = {"ARROW:extension:name": "geoarrow.wkb"}
            fields.append(pa.field(GEOMETRY, pa.binary(), metadata=wkb))
        return pa.schema(fields)


CRACK = Layer(
    "crack",
    "MultiPolygon",
    "One feature per crack: an 8-connected component of the crack mask, whole across seams.",
    (
        Column("crack_id", "text", "", "stable: hash of CRS, pixel size and topmost pixel"),
        Column("area_m2", "real", "m2", "pixels of the crack, measured before simplification"),
        Column("length_m", "real", "m", "of all its centerlines"),
        Column("width_mean_mm", "real", "mm", "area / length"),
        Column("width_p95_mm", "real", "mm", "exceeded on 5 % of the centerlines"),
        Column("width_max_mm", "real", "mm", "largest along the centerlines"),
        Column("orientation_deg", "real", "deg", "mean direction, clockwise from grid north, <180"),
        Column("tortuosity", "real", "", "length / distance of the ends, over open centerlines"),
        Column("branches", "integer", "", "number of centerlines"),
        Column("loops", "integer", "", "independent closed paths"),
        Column("type", "text", "", "longitudinal, transverse, diagonal, network or unknown"),
        Column("severity_d6433", "text", "", "ASTM D6433 by mean width: low, medium, high"),
        Column("severity_ltpp", "text", "", "LTPP by mean width: low, moderate, high"),
        Column("confidence", "real", "0-1", "mean crack probability over the crack's pixels"),
        Column("gsd_mm", "real", "mm", "coarsest pixels that it was seen in, at least the map's"),
        Column(
            "width_reliable",
            "boolean",
            "",
            "mean width >= severity.reliable_px pixels of <= .max_gsd_mm",
        ),
        Column("touches_nodata", "boolean", "", "may go on where there is no imagery"),
        Column("segment_id", "text", "", "road segment with most of its pixels; empty if none"),
        Column("survey_date", "date", "", "day of the survey, as configured"),
        Column("model", "text", "", "name of the model"),
        Column("run_id", "text", "", "fingerprint of configuration, model and inputs"),
    ),
)

CENTERLINE = Layer(
    "centerline",
    "LineString",
    "One feature per branch of a crack, between free ends and junctions.",
    (
        Column("centerline_id", "text", "", "crack_id and number of the branch"),
        Column("crack_id", "text", "", "the crack it belongs to"),
        Column("length_m", "real", "m", "of the line"),
        Column("width_mean_mm", "real", "mm", "mean width along it"),
        Column("width_max_mm", "real", "mm", "largest width along it"),
        Column("from_node", "text", "", "crack_id and number of the node where it begins"),
        Column("to_node", "text", "", "node where it ends; the same for a loop"),
    ),
)

ROAD_SEGMENT = Layer(
    "road_segment",
    "LineString",
    "One feature per road segment, if roads are given; sums plus what is on no road are totals.",
    (
        Column("segment_id", "text", "", "road_id and number of the segment along the road"),
        Column("road_id", "text", "", "the user's id"),
        Column("name", "text", "", "the user's street name"),
        Column("from_m", "real", "m", "begin along the road"),
        Column("to_m", "real", "m", "end along the road"),
        Column("length_m", "real", "m", "of the segment"),
        Column("width_m", "real", "m", "from the user's width or lanes"),
        Column("surveyed_area_m2", "real", "m2", "ground with imagery nearest to this segment"),
        Column("coverage_pct", "real", "%", "surveyed share of its ground"),
        Column("crack_length_m", "real", "m", "of the cracks on it"),
        Column("density_m_per_m2", "real", "m/m2", "crack length / surveyed area"),
        Column("crack_area_pct", "real", "%", "crack area / surveyed area"),
        Column("zeb_cell_pct", "real", "%", "cells of 1 m x 1/3 lane with a crack (ZTV ZEB-StB)"),
        Column("low_m", "real", "m", "crack length of low severity (ASTM D6433)"),
        Column("medium_m", "real", "m", "crack length of medium severity"),
        Column("high_m", "real", "m", "crack length of high severity"),
        Column("not_measurable_m", "real", "m", "crack length from pixels too coarse for a class"),
        Column("longitudinal_m", "real", "m", "crack length along the road"),
        Column("transverse_m", "real", "m", "crack length across the road"),
        Column("diagonal_m", "real", "m", "crack length in between"),
        Column("network_m", "real", "m", "crack length of networks (alligator)"),
        Column("unknown_m", "real", "m", "crack length too short for a type"),
        Column("width_p95_mm", "real", "mm", "mean crack width exceeded on 5 % of the length"),
        Column(
            "rank",
            "integer",
            "",
            "1 = worst, by zeb_cell_pct, density, id; empty if seen too little",
        ),
        Column(
            "priority",
            "text",
            "",
            "high, medium or low by zeb_cell_pct; empty if unranked",
        ),
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
        Column("gsd_mm", "real", "mm", "coarsest pixels seen in it, at least the map's"),
        Column("survey_date", "date", "", "day of the survey, as configured"),
        Column("seconds", "real", "s", "time spent on the block"),
    ),
)

RUN = Layer(
    "run",
    "none",
    "One row: what made this file, and what it does not claim.",
    (
        Column("run_id", "text", "", "fingerprint of configuration, model and inputs"),
        Column("model", "text", "", "name of the model"),
        Column("model_hash", "text", "", "hash of the model's files"),
        Column("config", "text", "JSON", "resolved configuration"),
        Column("inputs", "text", "JSON", "what went in"),
        Column("versions", "text", "JSON", "of the software"),
        Column("started", "text", "ISO 8601", "begin of the run"),
        Column("finished", "text", "ISO 8601", "when this file was complete"),
        Column("rules", "text", "JSON", "limits of the severities, types and priorities"),
        Column("not_claimed", "text", "", "what must not be read into the layers"),
    ),
)

LAYERS = (CRACK, CENTERLINE, ROAD_SEGMENT, INSPECTED, RUN)


def readme_table() -> str:
    """Render the layers and columns as Markdown tables."""
    lines: list[str] = []
    for layer in LAYERS:
        kind = layer.geometry if layer.is_spatial else "table"
        lines += [f"**{layer.name}** ({kind}). {layer.meaning}", ""]
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| {c.name} | {c.type} | {c.unit} | {c.meaning} |" for c in layer.columns]
        lines.append("")
    return "\n".join(lines)

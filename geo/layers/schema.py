"""Every column of every output layer, once: name, type, unit, meaning.

The writer takes its types from here and README its table, so the two cannot differ. A new column is
added here and filled where the rows of its layer are made; without that, writing fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

ColumnType = Literal["text", "integer", "real", "boolean", "date"]
GeometryType = Literal["MultiPolygon", "MultiLineString", "LineString", "none"]

GEOMETRY = "geom"
"""Name of every layer's geometry column."""

_ARROW: dict[ColumnType, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "real": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
}


_LABELS = {
    "gap_m": "gaps",
    "width_mean_mm": "mean width",
    "width_p95_mm": "width exceeded on 5 %",
    "width_max_mm": "widest run",
    "orientation_deg": "direction",
    "severity_d6433": "severity (ASTM D6433)",
    "severity_ltpp": "severity (LTPP)",
    "low_m": "of low severity",
    "medium_m": "of medium severity",
    "high_m": "of high severity",
    "not_measurable_m": "too thin to measure",
    "gsd_mm": "pixel size",
    "touches_nodata": "may go on unseen",
    "density_m_per_m2": "line per area",
    "cell_m": "block size",
    "coverage_pct": "seen",
    "cracking_pct": "cracked area",
    "zeb_cell_pct": "cells with a crack (ZEB)",
    "unknown_m": "of unknown type",
    "longitudinal_width_mm": "mean width, longitudinal",
    "transverse_width_mm": "mean width, transverse",
    "diagonal_width_mm": "mean width, diagonal",
    "valid_pct": "with imagery",
}
"""Names in words, where the column's own name says too little."""

_ENDINGS = ("_m_per_m2", "_pct", "_deg", "_m2", "_mm", "_m")
"""Units in the names of columns."""

UNIT_SIGNS = {"m2": "m²", "m/m2": "m/m²", "deg": "°", "0-1": ""}
"""Units as people write them, where they differ."""

CLASS_WORDS: dict[str, dict[str, str]] = {
    "severity_d6433": {
        "high": "high",
        "medium": "medium",
        "low": "low",
        "not_measurable": "too thin to measure",
    },
    "severity_ltpp": {
        "high": "high",
        "moderate": "moderate",
        "low": "low",
        "not_measurable": "too thin to measure",
    },
    "type": {
        "longitudinal": "longitudinal",
        "transverse": "transverse",
        "diagonal": "diagonal",
        "unknown": "unknown (too short, or no road)",
    },
    "kind": {"alligator": "alligator", "block": "block"},
    "priority": {"high": "high", "medium": "medium", "low": "low"},
    "status": {
        "inspected": "inspected",
        "partial": "partly failed",
        "nodata": "no imagery",
        "failed": "failed",
    },
}
"""Values of the columns of classes, in words."""


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

    @property
    def label(self) -> str:
        """The name in words, without its unit.

        >>> Column("network_area_m2", "real", "m2", "").label
        'network area'
        """
        ending = next((end for end in _ENDINGS if self.name.endswith(end)), "")
        return _LABELS.get(self.name, self.name.removesuffix(ending).replace("_", " "))

    @property
    def sign(self) -> str:
        """The unit as people write it; "" where there is none, or where it is a format."""
        return "" if self.type == "text" else UNIT_SIGNS.get(self.unit, self.unit)

    @property
    def alias(self) -> str:
        """The name in words with its unit.

        >>> Column("area_m2", "real", "m2", "").alias
        'area (m²)'
        """
        return f"{self.label} ({self.sign})" if self.sign else self.label


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


_RUN_COLUMNS = (
    Column("survey_date", "date", "", "day of the survey, as configured"),
    Column("model", "text", "", "name of the model"),
    Column("run_id", "text", "", "fingerprint of configuration, model and inputs"),
)

_SEEN_COLUMNS = (
    Column("confidence", "real", "0-1", "mean crack probability over its pixels"),
    Column("gsd_mm", "real", "mm", "coarsest pixels that it was seen in, at least the map's"),
    Column("touches_nodata", "boolean", "", "may go on where there is no imagery"),
)

CRACK = Layer(
    "crack",
    "MultiLineString",
    "One feature per crack outside networks: its centerlines in the direction of travel.",
    (
        Column("crack_id", "text", "", "stable: hash of CRS, pixel size and place"),
        Column("length_m", "real", "m", "of the line and the gaps in it"),
        Column("gap_m", "real", "m", "of the gaps: linked, but not seen"),
        Column("width_mean_mm", "real", "mm", "from the imagery; empty if not measurable"),
        Column("width_p95_mm", "real", "mm", "exceeded on 5 % of the line; likewise"),
        Column("width_max_mm", "real", "mm", "of the widest run; likewise"),
        Column("area_m2", "real", "m2", "of its pixels in the mask"),
        Column("orientation_deg", "real", "deg", "mean direction, clockwise from grid north, <180"),
        Column("tortuosity", "real", "", "length / distance of the ends; empty for a loop"),
        Column("branches", "integer", "", "number of centerlines"),
        Column("pieces", "integer", "", "number of connected components of the mask"),
        Column("type", "text", "", "longitudinal, transverse, diagonal or unknown"),
        Column("severity_d6433", "text", "", "ASTM D6433 by mean width, or not_measurable"),
        Column("severity_ltpp", "text", "", "LTPP by mean width: low, moderate, high"),
        Column("low_m", "real", "m", "line of low severity (ASTM D6433), branch by branch"),
        Column("medium_m", "real", "m", "line of medium severity"),
        Column("high_m", "real", "m", "line of high severity"),
        Column("not_measurable_m", "real", "m", "line too thin for its pixels; the four add up"),
        *_SEEN_COLUMNS,
        Column("segment_id", "text", "", "road segment with most of its line; empty if none"),
        *_RUN_COLUMNS,
    ),
)

NETWORK = Layer(
    "network",
    "MultiPolygon",
    "One feature per area of alligator or block cracking.",
    (
        Column("network_id", "text", "", "stable: hash of CRS, pixel size and place"),
        Column("area_m2", "real", "m2", "of the area"),
        Column("crack_length_m", "real", "m", "of the centerlines in it"),
        Column("density_m_per_m2", "real", "m/m2", "line per area"),
        Column("cell_m", "real", "m", "mean size of its blocks"),
        Column("width_mean_mm", "real", "mm", "of its cracks; empty if not measurable"),
        Column("severity_d6433", "text", "", "alligator: by pattern; block: by mean width"),
        Column("kind", "text", "", "alligator or block, by the size of the blocks"),
        *_SEEN_COLUMNS,
        Column("segment_id", "text", "", "road segment with most of its area; empty if none"),
        *_RUN_COLUMNS,
    ),
)

OUTLINE = Layer(
    "outline",
    "MultiPolygon",
    "One feature per piece: an 8-connected component of the mask, whole across seams.",
    (
        Column("outline_id", "text", "", "stable: hash of CRS, pixel size and topmost pixel"),
        Column("crack_id", "text", "", "crack with most of its pixels; empty if in a network"),
        Column("network_id", "text", "", "network with most of its pixels; empty if in a crack"),
        Column("area_m2", "real", "m2", "of its pixels, before simplification"),
        Column("confidence", "real", "0-1", "mean crack probability over its pixels"),
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
        Column("surface", "text", "", "the user's surface"),
        Column("from_m", "real", "m", "begin along the road"),
        Column("to_m", "real", "m", "end along the road"),
        Column("length_m", "real", "m", "of the segment"),
        Column("width_m", "real", "m", "from the user's width or lanes"),
        Column("surveyed_area_m2", "real", "m2", "ground with imagery nearest to this segment"),
        Column("coverage_pct", "real", "%", "surveyed share of its ground"),
        Column("crack_length_m", "real", "m", "of the cracks on it, with gaps"),
        Column("crack_count", "integer", "", "cracks with most of their line on it"),
        Column("transverse_count", "integer", "", "transverse ones of them"),
        Column("network_area_m2", "real", "m2", "of the networks on it"),
        Column("density_m_per_m2", "real", "m/m2", "crack length / surveyed area"),
        Column(
            "cracking_pct",
            "real",
            "%",
            "networks, and cracks times segments.crack_band_m, of the surveyed area (after the "
            "percent cracking of 23 CFR 490)",
        ),
        Column(
            "zeb_cell_pct",
            "real",
            "%",
            "cells of 1 m x 1/3 lane with a crack (ZTV ZEB-StB); empty where lanes are unknown or "
            "the surface is concrete",
        ),
        Column("low_m", "real", "m", "line of cracks of low severity (ASTM D6433)"),
        Column("medium_m", "real", "m", "line of medium severity"),
        Column("high_m", "real", "m", "line of high severity"),
        Column("not_measurable_m", "real", "m", "line too thin for its pixels"),
        Column("longitudinal_m", "real", "m", "crack length along the road"),
        Column("transverse_m", "real", "m", "crack length across the road"),
        Column("diagonal_m", "real", "m", "crack length in between"),
        Column("unknown_m", "real", "m", "length of cracks too short for a type"),
        Column("longitudinal_width_mm", "real", "mm", "mean width of those, where measurable"),
        Column("transverse_width_mm", "real", "mm", "likewise"),
        Column("diagonal_width_mm", "real", "mm", "likewise"),
        Column("width_p95_mm", "real", "mm", "width exceeded on 5 % of the measurable line"),
        Column("rank", "integer", "", "1 = worst, by segments.rank_by; empty if seen too little"),
        Column("priority", "text", "", "high, medium or low by segments.rank_by"),
    ),
)

INSPECTED = Layer(
    "inspected",
    "MultiPolygon",
    "What was looked at: the imagery of each block; tiles that could not be used follow.",
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
        Column("accuracy", "text", "JSON", "what is known of the model's accuracy"),
        Column("not_claimed", "text", "", "what must not be read into the layers"),
    ),
)

LAYERS = (CRACK, NETWORK, OUTLINE, ROAD_SEGMENT, INSPECTED, RUN)


def class_words(layer: Layer) -> dict[str, dict[str, str]]:
    """Return the columns of classes of a layer of a map, with their values in words."""
    names = [column.name for column in layer.columns] if layer in LAYERS else []
    return {name: CLASS_WORDS[name] for name in names if name in CLASS_WORDS}


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

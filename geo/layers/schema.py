"""Every column of every output layer, once: name, type, unit, meaning.

The writer takes its types from here and README its table, so the two cannot differ. A new column is
added here and filled where the rows of its layer are made; without that, writing fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from geo.layers.words import CLASS_WORDS, ENDINGS, LABELS, UNIT_SIGNS

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
        ending = next((end for end in ENDINGS if self.name.endswith(end)), "")
        return LABELS.get(self.name, self.name.removesuffix(ending).replace("_", " "))

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

    def batch(self, columns: Mapping[str, Any]) -> pa.RecordBatch:
        """Return columns, given by name, in the order and types of the layer; nan is empty."""
        schema = self.arrow()
        arrays = [pa.array(columns[f.name], f.type, from_pandas=True) for f in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


_RUN_COLUMNS = (
    Column("survey_date", "date", "", "day of the survey, as configured"),
    Column("model", "text", "", "name of the model"),
    Column("run_id", "text", "", "fingerprint of configuration, model and inputs"),
)

_VERDICT = Column(
    "verdict", "text", "", "yours: right or wrong; wpcrack review --apply leaves out what is wrong"
)

_SEEN_COLUMNS = (
    Column("confidence", "real", "0-1", "mean crack probability over its pixels"),
    Column("gsd_mm", "real", "mm", "coarsest pixels that it was seen in, at least the map's"),
    Column("touches_nodata", "boolean", "", "may go on where there is no imagery"),
)

CRACK = Layer(
    "crack",
    "MultiLineString",
    "One feature per crack outside networks: its centerlines, one after the other from end to end.",
    (
        Column("crack_id", "text", "", "stable: hash of CRS, pixel size and place"),
        Column("length_m", "real", "m", "of the line and the gaps in it"),
        Column("gap_m", "real", "m", "of the gaps: linked, but not seen"),
        Column("width_mean_mm", "real", "mm", "from the imagery; empty if not measurable"),
        Column("width_p95_mm", "real", "mm", "of branches, exceeded on 5 % of the line; likewise"),
        Column("width_max_mm", "real", "mm", "of the widest run; likewise"),
        Column("area_m2", "real", "m2", "of its pixels in the mask"),
        Column("orientation_deg", "real", "deg", "mean direction, clockwise from grid north, <180"),
        Column("tortuosity", "real", "", "length / distance of the ends; empty for a loop"),
        Column("branches", "integer", "", "number of centerlines"),
        Column("pieces", "integer", "", "number of connected components of the mask"),
        Column("type", "text", "", "longitudinal, transverse, diagonal or unknown"),
        Column("severity_d6433", "text", "", "by mean width: low, medium, high or not_measurable"),
        Column("severity_ltpp", "text", "", "likewise: low, moderate, high or not_measurable"),
        Column("low_m", "real", "m", "line of low severity (ASTM D6433), branch by branch"),
        Column("medium_m", "real", "m", "line of medium severity"),
        Column("high_m", "real", "m", "line of high severity"),
        Column("not_measurable_m", "real", "m", "line without a measured width; the four add up"),
        *_SEEN_COLUMNS,
        Column("segment_id", "text", "", "road segment with most of its line; empty if none"),
        _VERDICT,
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
        Column("severity_d6433", "text", "", "as for cracks; alligator by pattern, block by width"),
        Column("kind", "text", "", "alligator or block, by the size of the blocks"),
        *_SEEN_COLUMNS,
        Column("segment_id", "text", "", "road segment with most of its area; empty if none"),
        _VERDICT,
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
        Column("district", "text", "", "the user's district"),
        Column("from_m", "real", "m", "begin along the road"),
        Column("to_m", "real", "m", "end along the road"),
        Column("length_m", "real", "m", "of the segment"),
        Column("width_m", "real", "m", "from the user's width or lanes"),
        Column("lanes", "integer", "", "the user's number of lanes"),
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
            "networks, and cracks times segments.crack_band_m (default .3 m), of the surveyed area "
            "(after the percent cracking of 23 CFR 490)",
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
        Column("not_measurable_m", "real", "m", "line without a measured width"),
        Column("longitudinal_m", "real", "m", "crack length along the road"),
        Column("transverse_m", "real", "m", "crack length across the road"),
        Column("diagonal_m", "real", "m", "crack length in between"),
        Column("unknown_m", "real", "m", "length of cracks too short for a type"),
        Column("longitudinal_width_mm", "real", "mm", "mean width of those, where measurable"),
        Column("transverse_width_mm", "real", "mm", "likewise"),
        Column("diagonal_width_mm", "real", "mm", "likewise"),
        Column("width_p95_mm", "real", "mm", "of branches, exceeded on 5 % of the line; likewise"),
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
"""Of a map."""

CHANGE = Layer(
    "change",
    "MultiLineString",
    "Cracks of two surveys, one feature per change and pair of cracks; meters before add up to the "
    "old survey, meters after to the new one.",
    (
        Column("change", "text", "", ", ".join(CLASS_WORDS["change"])),
        Column("old_id", "text", "", "crack_id in the old survey; of a growth, the crack it is of"),
        Column("new_id", "text", "", "crack_id in the new survey"),
        Column("before_m", "real", "m", "length of the stretch in the old survey"),
        Column("after_m", "real", "m", "length of the stretch in the new survey"),
        Column("growth_m", "real", "m", "of new, grown, shrunk and gone ones; 0 for others"),
        Column("growth_sd_m", "real", "m", "standard deviation of after - before"),
        Column("width_before_mm", "real", "mm", "mean width of the old crack, where measurable"),
        Column("width_after_mm", "real", "mm", "mean width of the new crack, where measurable"),
        Column("width_change_mm", "real", "mm", "after - before; empty if one is not measurable"),
        Column("width_sd_mm", "real", "mm", "standard deviation of the change"),
        Column("segment_id", "text", "", "road segment with most of its line; empty if none"),
    ),
)

CHANGE_NETWORK = Layer(
    "change_network",
    "MultiPolygon",
    "Networks of two surveys; those that overlap are one feature.",
    (
        Column("area_change", "text", "", ", ".join(CLASS_WORDS["area_change"])),
        Column("old_ids", "text", "", "network_id of the old survey, separated by ;"),
        Column("new_ids", "text", "", "network_id of the new survey, separated by ;"),
        Column("before_m2", "real", "m2", "area in the old survey, where both looked"),
        Column("after_m2", "real", "m2", "area in the new survey, where both looked"),
        Column("growth_m2", "real", "m2", "after - before"),
        Column("growth_sd_m2", "real", "m2", "standard deviation of it"),
        Column("segment_id", "text", "", "road segment with most of its area; empty if none"),
    ),
)

CHANGE_SEGMENT = Layer(
    "change_segment",
    "LineString",
    "Changes per road segment, if the new map has roads; where both surveys looked.",
    (
        Column("segment_id", "text", "", "as in the new map"),
        Column("name", "text", "", "street name"),
        Column("inspected_pct", "real", "%", "share of its ground that both surveys saw"),
        Column("before_m", "real", "m", "cracks in the old survey"),
        Column("after_m", "real", "m", "cracks in the new survey"),
        Column("change_m", "real", "m", "after - before"),
        Column("change_sd_m", "real", "m", "standard deviation of it"),
        Column("trend", "text", "", "more, fewer, or none beyond three standard deviations"),
        *(Column(f"{k}_m", "real", "m", f"cracks: {w}") for k, w in CLASS_WORDS["change"].items()),
        Column("width_change_mm", "real", "mm", "mean over cracks that both surveys measured"),
        Column("width_sd_mm", "real", "mm", "standard deviation of it"),
        Column("network_before_m2", "real", "m2", "networks in the old survey"),
        Column("network_after_m2", "real", "m2", "networks in the new survey"),
        Column("network_change_m2", "real", "m2", "after - before"),
        Column("network_sd_m2", "real", "m2", "standard deviation of it"),
    ),
)

COMPARED = Layer(
    "compared",
    "MultiPolygon",
    "Ground that both surveys saw.",
    (Column("area_m2", "real", "m2", "of the ground"),),
)

REGISTRATION = Layer(
    "registration",
    "MultiPolygon",
    "How the old survey was moved to lie on the new one, per neighborhood with cracks.",
    (
        Column("east_m", "real", "m", "shift to the east"),
        Column("north_m", "real", "m", "shift to the north"),
        Column("rotation_deg", "real", "deg", "about its center, counterclockwise"),
        Column("sd_m", "real", "m", "standard deviation of the shift"),
        Column("support_m", "real", "m", "meters of cracks that agree on it"),
        Column("source", "text", "", "own cracks, neighbors, or none (too uncertain)"),
    ),
)

CHANGE_RUN = Layer(
    "run",
    "none",
    "One row: what was compared, how, and what is not claimed.",
    (
        Column("old", "text", "", "file of the old map"),
        Column("new", "text", "", "file of the new map"),
        Column("old_run_id", "text", "", "run that made it"),
        Column("new_run_id", "text", "", "run that made it"),
        Column("old_date", "date", "", "day of the old survey, where configured"),
        Column("new_date", "date", "", "day of the new survey"),
        Column("old_gsd_mm", "real", "mm", "coarsest pixels of the old survey"),
        Column("new_gsd_mm", "real", "mm", "coarsest pixels of the new survey"),
        Column("old_crs", "text", "", "where it was another one than the new map's"),
        Column("shift_m", "real", "m", "median shift of the old survey"),
        Column("residual_m", "real", "m", "distance of agreeing lines that is left (sd)"),
        Column("tolerance_m", "real", "m", "median distance up to which lines are the same"),
        Column("rules", "text", "JSON", "limits"),
        Column("versions", "text", "JSON", "of the software"),
        Column("started", "text", "ISO 8601", "begin"),
        Column("finished", "text", "ISO 8601", "when this file was complete"),
        Column("not_claimed", "text", "", "what must not be read into the layers"),
    ),
)

CHANGE_LAYERS = (CHANGE, CHANGE_NETWORK, CHANGE_SEGMENT, COMPARED, REGISTRATION, CHANGE_RUN)
"""Of a comparison of two maps."""


def class_words(layer: Layer) -> dict[str, dict[str, str]]:
    """Return the columns of classes of a layer of a map, with their values in words."""
    names = [column.name for column in layer.columns]
    return {name: CLASS_WORDS[name] for name in names if name in CLASS_WORDS}


def readme_table(layers: Sequence[Layer] = LAYERS) -> str:
    """Render layers and their columns as Markdown tables."""
    lines: list[str] = []
    for layer in layers:
        kind = layer.geometry if layer.is_spatial else "table"
        lines += [f"**{layer.name}** ({kind}). {layer.meaning}", ""]
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| {c.name} | {c.type} | {c.unit} | {c.meaning} |" for c in layer.columns]
        lines.append("")
    return "\n".join(lines)

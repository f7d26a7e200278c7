"""How the layers look: every color and class label, and the QGIS styles in the GeoPackage."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from geo.layers.classes import NOT_MEASURABLE
from geo.layers.schema import CENTERLINE, CRACK, GEOMETRY, INSPECTED, ROAD_SEGMENT, Layer
from geo.options import Rules, SegmentOptions, SeverityOptions

VERMILION, ORANGE, YELLOW = "#d55e00", "#e69f00", "#f0e442"
SKY, BLUE, GREEN, PURPLE = "#56b4e9", "#0072b2", "#009e73", "#cc79a7"
GRAY = "#a0a0a0"
"""Categories: the colors of Okabe and Ito, which can be told apart with any color vision."""

WIDTH_RAMP = ("#fde725", "#5ec962", "#21918c", "#440154")
"""Grades, narrow to wide: viridis, for the same reason."""

CASING = "#1e1e1e"
"""Border of every line and area, by which it is read over imagery."""

OVERVIEW_CRACK, OVERVIEW_CASING, OVERVIEW_BLANK = "#ffb000", "#000000", "#ececec"
"""The overview picture: orange in black is told from gray pavement and white paint by every kind
of sight; where there is no imagery it is light gray."""


@dataclass(frozen=True)
class Entry:
    """One class: its value in the layer ("" for any other), a label, a color "#rrggbb"."""

    key: str
    label: str
    color: str


STATUS = (
    Entry("inspected", "inspected", GREEN),
    Entry("partial", "partly failed", ORANGE),
    Entry("nodata", "no imagery", GRAY),
    Entry("failed", "failed", VERMILION),
)


def severity_legend(options: SeverityOptions) -> tuple[Entry, ...]:
    """Return the classes of `severity_d6433`, with the limits by which they were told.

    >>> [entry.label for entry in severity_legend(SeverityOptions())][:2]
    ['high (> 75 mm)', 'medium (10 - 75 mm)']
    """
    low, medium = options.d6433_mm
    return (
        Entry("high", f"high (> {medium:g} mm)", VERMILION),
        Entry("medium", f"medium ({low:g} - {medium:g} mm)", ORANGE),
        Entry("low", f"low (< {low:g} mm)", SKY),
        Entry(NOT_MEASURABLE, "detected, width not measurable", PURPLE),
    )


def condition_legend(options: SegmentOptions) -> tuple[Entry, ...]:
    """Return the classes of `priority`, with the limits of `zeb_cell_pct`.

    >>> [entry.label for entry in condition_legend(SegmentOptions())][:2]
    ['poor (> 20 %)', 'fair (5 - 20 %)']
    """
    medium, high = options.medium_pct, options.high_pct
    return (
        Entry("high", f"poor (> {high:g} %)", VERMILION),
        Entry("medium", f"fair ({medium:g} - {high:g} %)", YELLOW),
        Entry("low", f"good (< {medium:g} %)", BLUE),
        Entry("", f"seen too little (< {options.min_coverage_pct:g} %)", GRAY),
    )


_WIDTH_GRADES: tuple[tuple[str, str, float], ...] = (
    ('"width_mean_mm" < 5', "below 5 mm", 0.4),
    ('"width_mean_mm" >= 5 AND "width_mean_mm" < 10', "5 - 10 mm", 0.6),
    ('"width_mean_mm" >= 10 AND "width_mean_mm" < 20', "10 - 20 mm", 0.9),
    ('"width_mean_mm" >= 20', "20 mm and wider", 1.3),
)

_STATUS_LOOKS = {"inspected": (40, 0.2), "partial": (110, 0.4), "nodata": (90, 0.2)}

_FAILED_LOOK = (140, 0.6)
"""Opacity of the filling (0-255) and width of the outline (mm)."""

OPAQUE = 255

_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
    f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now'))
)"""

_CONTENTS = """
INSERT INTO gpkg_contents (table_name, data_type, identifier, description)
VALUES ('layer_styles', 'attributes', 'layer_styles', 'Styles that QGIS applies on opening')"""


@dataclass(frozen=True)
class Rule:
    """Features of one look: an expression of QGIS, a label, a color "r,g,b,a", a size in mm."""

    filter: str
    label: str
    color: str
    size_mm: float


@dataclass(frozen=True)
class Style:
    """How a layer looks."""

    layer: Layer
    name: str
    rules: tuple[Rule, ...]


def styles(rules: Rules) -> tuple[Style, ...]:
    """Return the styles of all layers; their legends name the limits that the map was made with."""
    severity = [
        Rule(_severity(entry), entry.label, _rgba(entry.color, 230), 0.3)
        for entry in severity_legend(rules.severity)
    ]
    condition = [
        Rule(
            _condition_filter(entry, rules.segments),
            entry.label,
            _rgba(entry.color, OPAQUE),
            2 if entry.key else 1,
        )
        for entry in condition_legend(rules.segments)
    ]
    widths = [
        Rule(bounds, label, _rgba(color, OPAQUE), size_mm)
        for (bounds, label, size_mm), color in zip(_WIDTH_GRADES, WIDTH_RAMP, strict=True)
    ]
    status = []
    for entry in STATUS:
        opacity, outline = _STATUS_LOOKS.get(entry.key, _FAILED_LOOK)
        color = _rgba(entry.color, opacity)
        status.append(Rule(_equals("status", entry), entry.label, color, outline))
    return (
        Style(CRACK, "severity", tuple(severity)),
        Style(CENTERLINE, "width", tuple(widths)),
        Style(ROAD_SEGMENT, "condition", tuple(condition)),
        Style(INSPECTED, "status", tuple(status)),
    )


def _severity(entry: Entry) -> str:
    return "ELSE" if entry.key == NOT_MEASURABLE else _equals("severity_d6433", entry)


def _equals(column: str, entry: Entry) -> str:
    return f"\"{column}\" = '{entry.key}'"


def _condition_filter(entry: Entry, limits: SegmentOptions) -> str:
    """Return the filter of a priority's segments, by the share of cells that it comes from."""
    medium, high = f"{limits.medium_pct:g}", f"{limits.high_pct:g}"
    grade = {
        "high": f'"zeb_cell_pct" > {high}',
        "medium": f'"zeb_cell_pct" >= {medium} AND "zeb_cell_pct" <= {high}',
        "low": f'"zeb_cell_pct" < {medium}',
    }.get(entry.key)
    return f'{grade} AND "rank" IS NOT NULL' if grade else "ELSE"


def rgb(color: str) -> tuple[int, int, int]:
    """Return red, green and blue (0-255) of a color "#rrggbb"."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def _rgba(color: str, opacity: int) -> str:
    return ",".join(map(str, (*rgb(color), opacity)))


def add_styles(package: Path, layers: Sequence[Layer], rules: Rules) -> None:
    """Store the styles of the layers that a GeoPackage has, as defaults."""
    with closing(sqlite3.connect(package)) as base, base:
        base.execute(_TABLE)
        base.execute(_CONTENTS)
        base.executemany(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
            "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner) "
            "VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '')",
            [
                (s.layer.name, GEOMETRY, s.name, qml(s), f"{s.layer.name} by {s.name}")
                for s in styles(rules)
                if s.layer in layers
            ],
        )


def qml(style: Style) -> str:
    """Write a style as QGIS's own document: one rule and one symbol per look."""
    symbol = _fill if style.layer.geometry == "MultiPolygon" else _line
    rules = "".join(
        f"<rule key={quoteattr(str(k))} symbol={quoteattr(str(k))} "
        f"filter={quoteattr(rule.filter)} label={quoteattr(rule.label)}/>"
        for k, rule in enumerate(style.rules)
    )
    symbols = "".join(symbol(k, rule) for k, rule in enumerate(style.rules))
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
        '<qgis version="3.22.0" styleCategories="Symbology">'
        '<renderer-v2 type="RuleRenderer" symbollevels="0" enableorderby="0" forceraster="0">'
        f'<rules key="root">{rules}</rules><symbols>{symbols}</symbols>'
        "</renderer-v2></qgis>"
    )


def _fill(key: int, rule: Rule) -> str:
    options = {
        "color": rule.color,
        "style": "solid",
        "outline_color": _rgba(CASING, OPAQUE),
        "outline_style": "solid",
        "outline_width": f"{rule.size_mm}",
        "outline_width_unit": "MM",
    }
    return _symbol(key, "fill", _layer("SimpleFill", options))


def _line(key: int, rule: Rule) -> str:
    casing = {"line_color": _rgba(CASING, OPAQUE), "line_width": f"{rule.size_mm + 0.5:g}"}
    core = {"line_color": rule.color, "line_width": f"{rule.size_mm:g}"}
    both = {"line_style": "solid", "line_width_unit": "MM", "capstyle": "round"}
    layers = (_layer("SimpleLine", part | both) for part in (casing, core))
    return _symbol(key, "line", "".join(layers))


def _layer(kind: str, options: dict[str, str]) -> str:
    pairs = options.items()
    entries = "".join(f'<Option type="QString" name="{k}" value="{v}"/>' for k, v in pairs)
    old = "".join(f'<prop k="{k}" v="{v}"/>' for k, v in pairs)  # read by QGIS before 3.26
    return (
        f'<layer class="{kind}" enabled="1" locked="0" pass="0">'
        f'<Option type="Map">{entries}</Option>{old}</layer>'
    )


def _symbol(key: int, kind: str, layers: str) -> str:
    return f'<symbol name="{key}" type="{kind}" alpha="1" clip_to_extent="1">{layers}</symbol>'

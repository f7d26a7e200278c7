"""How the layers look: every color and class label, and the QGIS styles in the GeoPackage."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from geo.layers.classes import NOT_MEASURABLE
from geo.layers.schema import (
    CRACK,
    GEOMETRY,
    INSPECTED,
    NETWORK,
    OUTLINE,
    ROAD_SEGMENT,
    Layer,
)
from geo.options import Rules, SegmentOptions, SeverityOptions

VERMILION, ORANGE, SKY, WHITE = "#d55e00", "#e69f00", "#56b4e9", "#ffffff"
"""Severities: colors of Okabe and Ito, which can be told apart with any color vision."""

VIOLETS = ("#54278f", "#9e7bd0", "#cbc9e2")
"""Priorities of road segments, from high to low: one color means one thing on a map."""

GREEN, YELLOW, BLACK, GRAY, SLATE = "#009e73", "#f0e442", "#000000", "#a0a0a0", "#5f6a72"
"""What was looked at, and what is not ranked."""

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
    Entry("partial", "partly failed", YELLOW),
    Entry("nodata", "no imagery", GRAY),
    Entry("failed", "failed", BLACK),
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
        Entry(NOT_MEASURABLE, "too thin to measure", WHITE),
    )


RANKED = {
    "cracking_pct": "cracked area",
    "zeb_cell_pct": "cells",
    "density_m_per_m2": "m/m2",
}
"""What segments can be ranked by, in words."""


def priority_legend(options: SegmentOptions) -> tuple[Entry, ...]:
    """Return the classes of `priority`, with their limits.

    >>> [entry.label for entry in priority_legend(SegmentOptions())][:2]
    ['high priority (cracked area > 20 %)', 'medium priority (5 - 20 %)']
    """
    medium, high = options.medium_pct, options.high_pct
    unit = "" if options.rank_by == "density_m_per_m2" else " %"
    what = RANKED[options.rank_by]
    return (
        Entry("high", f"high priority ({what} > {high:g}{unit})", VIOLETS[0]),
        Entry("medium", f"medium priority ({medium:g} - {high:g}{unit})", VIOLETS[1]),
        Entry("low", f"low priority (< {medium:g}{unit})", VIOLETS[2]),
        Entry("", f"not ranked (seen below {options.min_coverage_pct:g} %)", SLATE),
    )


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
    """Features of one look.

    Attributes:
        filter: expression of QGIS.
        label: in the legend.
        color: "r,g,b,a".
        size_mm: width of a line, or of the border of an area.
        brush: how an area is filled, in QGIS's words.
        closest, farthest: scales 1:N between which it is drawn; 0 for no limit.
    """

    filter: str
    label: str
    color: str
    size_mm: float
    brush: str = "solid"
    closest: int = 0
    farthest: int = 0


@dataclass(frozen=True)
class Style:
    """How a layer looks; `label` is an expression written beside features, "" for none."""

    layer: Layer
    name: str
    rules: tuple[Rule, ...]
    label: str = ""


STREET_SCALE = 2_500
"""Closer than 1:2500 cracks are drawn by class; farther away thin, or they would be blots."""

CITY_SCALE = 25_000
"""Farther than 1:25 000 segments say enough."""

PIECE_SCALE = 300
"""Outlines of pieces are for a close look."""

FAINT = 60
"""Opacity of areas over imagery (0-255)."""


def styles(rules: Rules) -> tuple[Style, ...]:
    """Return the styles of all layers; their legends name the limits that the map was made with."""
    classes = severity_legend(rules.severity)
    cracks, networks = [], []
    for entry in classes:
        bright, chosen = _rgba(entry.color, OPAQUE), _severity(entry)
        cracks.append(Rule(chosen, entry.label, bright, 0.8, farthest=STREET_SCALE))
        far = Rule(chosen, entry.label, bright, 0.3, closest=STREET_SCALE, farthest=CITY_SCALE)
        cracks.append(far)
        networks.append(Rule(chosen, f"network, {entry.key}", bright, 0.4, brush="b_diagonal"))
    segments = [
        Rule(_priority_filter(entry), entry.label, _rgba(entry.color, OPAQUE), 1.4)
        for entry in priority_legend(rules.segments)
    ]
    status = []
    for entry in STATUS:
        brush, opacity = ("no", OPAQUE) if entry.key == "inspected" else ("dense6", FAINT)
        status.append(
            Rule(_equals("status", entry), entry.label, _rgba(entry.color, opacity), 0.2, brush)
        )
    piece = Rule("ELSE", "piece of a crack", _rgba(YELLOW, FAINT), 0.1, farthest=PIECE_SCALE)
    return (
        Style(CRACK, "severity", tuple(cracks)),
        Style(NETWORK, "severity", tuple(networks)),
        Style(OUTLINE, "piece", (piece,)),
        Style(ROAD_SEGMENT, "priority", tuple(segments), label=SEGMENT_LABEL),
        Style(INSPECTED, "status", tuple(status)),
    )


SEGMENT_LABEL = 'coalesce("name", "road_id") || coalesce(\' #\' || "rank", \'\')'


def _severity(entry: Entry) -> str:
    return "ELSE" if entry.key == NOT_MEASURABLE else _equals("severity_d6433", entry)


def _equals(column: str, entry: Entry) -> str:
    return f"\"{column}\" = '{entry.key}'"


def _priority_filter(entry: Entry) -> str:
    return _equals("priority", entry) if entry.key else "ELSE"


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
        f"filter={quoteattr(rule.filter)} label={quoteattr(rule.label)}{_scales(rule)}/>"
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


def _scales(rule: Rule) -> str:
    """Return the scales of a rule: the larger denominator is QGIS's smallest scale."""
    far = f' scalemaxdenom="{rule.farthest}"' if rule.farthest else ""
    return far + (f' scalemindenom="{rule.closest}"' if rule.closest else "")


def _fill(key: int, rule: Rule) -> str:
    options = {
        "color": rule.color,
        "style": rule.brush,
        "outline_color": rule.color,
        "outline_style": "solid",
        "outline_width": f"{rule.size_mm}",
        "outline_width_unit": "MM",
    }
    return _symbol(key, "fill", _layer("SimpleFill", options))


def _line(key: int, rule: Rule) -> str:
    casing = {"line_color": _rgba(CASING, OPAQUE), "line_width": f"{rule.size_mm + 0.3:g}"}
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

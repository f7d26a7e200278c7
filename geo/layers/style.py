"""How the layers look: every color, class and label, and the scales at which they are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

from geo.layers.classes import NOT_MEASURABLE
from geo.layers.schema import (
    CHANGE,
    CHANGE_NETWORK,
    CHANGE_SEGMENT,
    COMPARED,
    CRACK,
    INSPECTED,
    NETWORK,
    OUTLINE,
    REGISTRATION,
    ROAD_SEGMENT,
    Layer,
)
from geo.layers.words import CLASS_WORDS
from geo.options import Rules, SegmentOptions, SeverityOptions

VERMILION, ORANGE, SKY, WHITE = "#d55e00", "#e69f00", "#56b4e9", "#ffffff"
"""Severities: colors of Okabe and Ito, which can be told apart with any color vision."""

VIOLETS = ("#54278f", "#9e7bd0", "#cbc9e2")
"""Priorities of road segments, from high to low: one color means one thing on a map."""

GREEN, YELLOW, BLACK, GRAY, SLATE = "#009e73", "#f0e442", "#000000", "#a0a0a0", "#5f6a72"
"""What was looked at, and what is not ranked."""

CASING = "#1e1e1e"
"""Border of every line and area, by which it is read over imagery."""

OVERVIEW_BLANK = "#ececec"
"""Where a picture has no imagery."""


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


SEVERITY_HEADING = "Cracks and networks (alligator: by pattern)"
"""Of that legend: its limits are widths, by which alligator cracking is not told."""


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
        Entry(NOT_MEASURABLE, "not measurable", WHITE),
    )


RANKED = {
    "cracking_pct": "cracked area",
    "zeb_cell_pct": "cells",
    "density_m_per_m2": "m/m²",
}
"""What segments can be ranked by, in words."""

RANK_TITLES = {"cracking_pct": "cracked %", "zeb_cell_pct": "cells %", "density_m_per_m2": "m/m²"}
"""The same above a column."""


def priority_legend(options: SegmentOptions) -> tuple[Entry, ...]:
    """Return the classes of `priority`, with their limits.

    >>> [entry.label for entry in priority_legend(SegmentOptions())][:2]
    ['high priority (cracked area > 20 %)', 'medium priority (5 - 20 %)']
    """
    medium, high = options.limits
    unit = "" if options.rank_by == "density_m_per_m2" else " %"
    what = RANKED[options.rank_by]
    unknown = ", lanes not known or concrete" if options.rank_by == "zeb_cell_pct" else ""
    return (
        Entry("high", f"high priority ({what} > {high:g}{unit})", VIOLETS[0]),
        Entry("medium", f"medium priority ({medium:g} - {high:g}{unit})", VIOLETS[1]),
        Entry("low", f"low priority (< {medium:g}{unit})", VIOLETS[2]),
        Entry("", f"not ranked (seen below {options.min_coverage_pct:g} %{unknown})", SLATE),
    )


CHANGE_COLORS = {
    "new": VERMILION,
    "grown": ORANGE,
    "widened": YELLOW,
    "unchanged": "#0072b2",
    "narrowed": SKY,
    "shrunk": GREEN,
    "gone": "#44aa99",
    "in_network": "#cc79a7",
    "unsure": "#999999",
    "not_inspected": SLATE,
}
"""Changes, worst first: what came is warm, what went is green."""

TREND_COLORS = {"more": VERMILION, "fewer": GREEN, "none": SLATE}
"""What has become of road segments, beyond what is uncertain."""

CHANGED = ("new", "grown", "widened", "narrowed", "shrunk", "gone")
"""Changes that are drawn wide."""


def change_legend(column: str) -> tuple[Entry, ...]:
    """Return the classes of changes: of lines (`change`), areas (`area_change`), `trend`."""
    colors = TREND_COLORS if column == "trend" else CHANGE_COLORS
    words = CLASS_WORDS[column]
    return tuple(Entry(key, words[key], color) for key, color in colors.items() if key in words)


SEEN_BY_BOTH = Entry("", "seen by both surveys", GREEN)

OPAQUE = 255


@dataclass(frozen=True)
class Rule:
    """Features of one look.

    Attributes:
        filter: expression of QGIS; ELSE: those that no other rule takes.
        label: in the legend.
        color: "r,g,b,a".
        size_mm: width of a line, or of the border of an area.
        brush: how an area is filled, in QGIS's words.
        far_mm: width of a line farther away than STREET_SCALE; 0: the same.
        farthest: scale 1:N up to which it is drawn; 0 for no limit.
    """

    filter: str
    label: str
    color: str
    size_mm: float
    brush: str = "solid"
    far_mm: float = 0.0
    farthest: int = 0


@dataclass(frozen=True)
class Style:
    """How a layer looks and what it is called.

    Attributes:
        layer: it.
        name: of the style.
        rules: looks.
        title: of the layer, in a project; "": its name.
        tip: columns told where the mouse rests.
        label: expression of QGIS written beside features, "" for none.
        is_shown: whether a project opens with it.
    """

    layer: Layer
    name: str
    rules: tuple[Rule, ...]
    title: str = ""
    tip: tuple[str, ...] = ()
    label: str = ""
    is_shown: bool = True


STREET_SCALE = 500
"""Closer than 1:500 cracks are drawn wide; farther away thin, or they would be blots."""

CITY_SCALE = 25_000
"""Farther than 1:25 000 segments say enough."""

PIECE_SCALE = 300
"""Outlines of pieces are for a close look."""

FAINT = 60
"""Opacity of areas over imagery (0-255)."""


def styles(rules: Rules) -> tuple[Style, ...]:
    """Return the styles of all layers; their legends name the limits that the map was made with."""
    cracks, networks = [], []
    for entry in severity_legend(rules.severity):
        value = "" if entry.key == NOT_MEASURABLE else entry.key
        chosen, bright = equals("severity_d6433", value), rgba(entry.color, OPAQUE)
        cracks.append(Rule(chosen, entry.label, bright, 0.8, far_mm=0.3, farthest=CITY_SCALE))
        word = CLASS_WORDS["severity_d6433"][entry.key]
        hatch = Rule(chosen, f"network, {word}", bright, 0.4, "b_diagonal")
        networks.append(replace(hatch, farthest=CITY_SCALE))
    segments = [
        Rule(equals("priority", entry.key), entry.label, rgba(entry.color, OPAQUE), 1.4)
        for entry in priority_legend(rules.segments)
    ]
    status = []
    for entry in STATUS:
        brush, opacity = ("no", OPAQUE) if entry.key == "inspected" else ("dense6", FAINT)
        color = rgba(entry.color, opacity)
        status.append(Rule(equals("status", entry.key), entry.label, color, 0.2, brush))
    piece = Rule("ELSE", "piece of a crack", rgba(YELLOW, FAINT), 0.1, farthest=PIECE_SCALE)
    return (
        Style(CRACK, "severity", tuple(cracks), "Cracks", CRACK_TIP),
        Style(NETWORK, "severity", tuple(networks), "Networks", NETWORK_TIP),
        Style(OUTLINE, "piece", (piece,), "Pieces", OUTLINE_TIP, is_shown=False),
        Style(
            *(ROAD_SEGMENT, "priority", tuple(segments), "Road segments", SEGMENT_TIP),
            label=SEGMENT_LABEL,
        ),
        Style(INSPECTED, "status", tuple(status), "Inspected", INSPECTED_TIP, is_shown=False),
    )


def change_styles() -> tuple[Style, ...]:
    """Return the styles of the layers of a comparison."""
    lines = [
        Rule(
            equals("change", e.key),
            e.label,
            rgba(e.color, OPAQUE),
            0.9 if e.key in CHANGED else 0.3,
        )
        for e in change_legend("change")
    ]
    areas = [
        Rule(equals("area_change", e.key), e.label, rgba(e.color, OPAQUE), 0.4, brush="b_diagonal")
        for e in change_legend("area_change")
    ]
    segments = [
        Rule(equals("trend", key), word, rgba(TREND_COLORS[key], OPAQUE), 1.4)
        for key, word in CLASS_WORDS["trend"].items()
    ]
    colors = {"own": GREEN, "neighbors": ORANGE, "none": VERMILION}
    cells = [
        Rule(equals("source", key), word, rgba(colors[key], FAINT), 0.2)
        for key, word in CLASS_WORDS["source"].items()
    ]
    ground = (Rule("ELSE", SEEN_BY_BOTH.label, rgba(GREEN, FAINT), 0.2, brush="no"),)
    return (
        Style(CHANGE, "change", tuple(lines), "Changes of cracks", CHANGE_TIP),
        Style(CHANGE_NETWORK, "change", tuple(areas), "Changes of networks", AREA_TIP),
        Style(
            *(CHANGE_SEGMENT, "change", tuple(segments), "Changes of road segments"),
            tip=CHANGE_SEGMENT_TIP,
        ),
        Style(COMPARED, "ground", ground, "Seen by both surveys", ("area_m2",), is_shown=False),
        Style(
            *(REGISTRATION, "source", tuple(cells), "How the old survey was moved"),
            tip=REGISTRATION_TIP,
            is_shown=False,
        ),
    )


CRACK_TIP = ("type", "severity_d6433", "length_m", "width_mean_mm", "width_max_mm")
NETWORK_TIP = ("kind", "severity_d6433", "area_m2", "crack_length_m")
OUTLINE_TIP = ("area_m2", "confidence")
INSPECTED_TIP = ("status", "reason", "gsd_mm")
SEGMENT_TIP = ("name", "segment_id", "rank", "priority", "cracking_pct", "crack_length_m")
CHANGE_TIP = ("change", "before_m", "after_m", "growth_sd_m", "width_before_mm", "width_after_mm")
AREA_TIP = ("area_change", "before_m2", "after_m2", "growth_sd_m2")
CHANGE_SEGMENT_TIP = ("name", "segment_id", "before_m", "after_m", "change_m", "change_sd_m")
REGISTRATION_TIP = ("east_m", "north_m", "rotation_deg", "sd_m", "support_m", "source")
"""What is told of a feature where the mouse rests."""

SEGMENT_LABEL = 'coalesce("name", "road_id") || coalesce(\' #\' || "rank", \'\')'


def rgb(color: str) -> tuple[int, int, int]:
    """Return red, green and blue (0-255) of a color "#rrggbb"."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def equals(column: str, value: str) -> str:
    """Return the expression that a column has a value; ELSE for any other, which "" stands for."""
    return f"\"{column}\" = '{value}'" if value else "ELSE"


def rgba(color: str, opacity: int) -> str:
    """Return "r,g,b,a" of a color "#rrggbb" with an opacity (0-255)."""
    return ",".join(map(str, (*rgb(color), opacity)))

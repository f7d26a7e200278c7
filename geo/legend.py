"""Classes of the map with their colors and labels: one legend for QGIS, the page and the report.

Colors are from the scales of Okabe and Ito (categories) and of viridis (grades): they can be told
apart with any color vision.
"""

from __future__ import annotations

from dataclasses import dataclass

from geo.segment_rows import SegmentOptions
from geo.severity import NOT_MEASURABLE, SeverityOptions


@dataclass(frozen=True)
class Entry:
    """One class: its value in the layer ("" for any other), a label, a color "#rrggbb"."""

    key: str
    label: str
    color: str


STATUS = (
    Entry("inspected", "inspected", "#009e73"),
    Entry("partial", "partly failed", "#e69f00"),
    Entry("nodata", "no imagery", "#a0a0a0"),
    Entry("failed", "failed", "#d55e00"),
)


def severity_legend(options: SeverityOptions) -> tuple[Entry, ...]:
    """Classes of `severity_d6433`, with the limits by which they were told.

    >>> [entry.label for entry in severity_legend(SeverityOptions())][:2]
    ['high (> 75 mm)', 'medium (10 - 75 mm)']
    """
    low, medium = options.d6433_mm
    return (
        Entry("high", f"high (> {medium:g} mm)", "#d55e00"),
        Entry("medium", f"medium ({low:g} - {medium:g} mm)", "#e69f00"),
        Entry("low", f"low (< {low:g} mm)", "#56b4e9"),
        Entry(NOT_MEASURABLE, "detected, width not measurable", "#cc79a7"),
    )


def condition_legend(options: SegmentOptions) -> tuple[Entry, ...]:
    """Classes of `priority`, with the limits of `zeb_cell_pct`.

    >>> [entry.label for entry in condition_legend(SegmentOptions())][:2]
    ['poor (> 20 %)', 'fair (5 - 20 %)']
    """
    medium, high = options.medium_pct, options.high_pct
    return (
        Entry("high", f"poor (> {high:g} %)", "#d55e00"),
        Entry("medium", f"fair ({medium:g} - {high:g} %)", "#f0e442"),
        Entry("low", f"good (< {medium:g} %)", "#0072b2"),
        Entry("", f"seen too little (< {options.min_coverage_pct:g} %)", "#a0a0a0"),
    )

"""Changes gathered per road segment.

A place in the middle of a stretch says its segment, as on the map: the nearest within half its
width. Sums over the segments plus what lies on no road are the totals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from geo.compare.changes import KINDS, Comparison
from geo.compare.maps import Segments
from geo.compare.survey import BoolArray, FloatArray, IntArray, ShapeArray, sums
from geo.layers.roads import RoadLines

WIDTH_KINDS = ("unchanged", "widened", "narrowed")
"""Stretches whose two widths are of the same piece of crack."""


@dataclass(frozen=True, eq=False)
class SegmentChanges:
    """Sums over S segments.

    Attributes:
        meters: kind -> (S,) meters, in the survey that has more of it.
        before_m, after_m: (S,) of cracks where both surveys looked.
        sd_m: (S,) standard deviation of after - before.
        network_before_m2, network_after_m2, network_sd_m2: (S,) the same for networks.
        width_change_mm, width_sd_mm: (S,) mean over the meters of cracks that both surveys
            measured; nan without any.
        both_pct: (S,) share of the segment's ground that both surveys saw.
        line_segment, area_segment: segment of each row of the changes; -1 for none.
    """

    meters: dict[str, FloatArray]
    before_m: FloatArray
    after_m: FloatArray
    sd_m: FloatArray
    network_before_m2: FloatArray
    network_after_m2: FloatArray
    network_sd_m2: FloatArray
    width_change_mm: FloatArray
    width_sd_mm: FloatArray
    both_pct: FloatArray
    line_segment: IntArray
    area_segment: IntArray


def gather(result: Comparison, segments: Segments) -> SegmentChanges:
    """Sum changes up per segment."""
    lines, areas, count = result.lines, result.areas, len(segments)
    roads = RoadLines(segments.lines, segments.width_m / 2)
    found = [segment_of(shapes, roads) for shapes in lines.lines.shapes()]
    of_line = np.concatenate([np.empty(0, np.int64), *found])
    of_area = segment_of(areas.shape, roads)
    seen = lines.kind != "not_inspected"

    def total(values: FloatArray, chosen: BoolArray, owner: IntArray) -> FloatArray:
        chosen = chosen & (owner >= 0)
        return sums(owner[chosen], values[chosen], count)

    larger = np.maximum(lines.before_m, lines.after_m)
    change, sd = _widths(result, of_line, count)
    seen_area = areas.kind != "not_inspected"
    return SegmentChanges(
        meters={kind: total(larger, lines.kind == kind, of_line) for kind in KINDS},
        before_m=total(lines.before_m, seen, of_line),
        after_m=total(lines.after_m, seen, of_line),
        sd_m=np.sqrt(total(lines.sd_m**2, seen, of_line)),
        network_before_m2=total(areas.before_m2, seen_area, of_area),
        network_after_m2=total(areas.after_m2, seen_area, of_area),
        network_sd_m2=np.sqrt(total(areas.sd_m2**2, seen_area, of_area)),
        width_change_mm=change,
        width_sd_mm=sd,
        both_pct=_both_pct(result.both, segments),
        line_segment=of_line,
        area_segment=of_area,
    )


def segment_of(shapes: ShapeArray, roads: RoadLines) -> IntArray:
    """(N,) segment of each shape; -1 where it lies on no road."""
    found = np.full(len(shapes), -1)
    at, segment, _ = roads.nearest(shapely.point_on_surface(shapes))
    found[at] = segment
    return found


def _widths(result: Comparison, owner: IntArray, count: int) -> tuple[FloatArray, FloatArray]:
    lines = result.lines
    wider = lines.width_mm[:, 1] - lines.width_mm[:, 0]
    chosen = np.isin(lines.kind, WIDTH_KINDS) & ~np.isnan(wider) & (owner >= 0)
    owner, weight = owner[chosen], lines.after_m[chosen]
    total = sums(owner, weight, count)
    safe = np.where(total > 0, total, np.nan)
    change = sums(owner, weight * wider[chosen], count) / safe
    noise = (weight * lines.width_sd_mm[chosen]) ** 2
    return change, np.sqrt(sums(owner, noise, count)) / safe


def _both_pct(both: shapely.Geometry, segments: Segments) -> FloatArray:
    ground = np.asarray(
        [
            shapely.buffer(line, width / 2, cap_style="flat")
            for line, width in zip(segments.lines, segments.width_m, strict=True)
        ],
        object,
    )
    seen = shapely.area(shapely.intersection(ground, both))
    return np.asarray(100.0 * seen / shapely.area(ground))

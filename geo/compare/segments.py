"""Changes gathered per road segment.

Stretches and networks are shared out as on the map: each place belongs to the nearest segment
within half its width. Sums over the segments plus what lies on no road are the totals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from geo.arrays import BoolArray, FloatArray, IntArray, Shapes
from geo.compare.changes import KINDS, Comparison
from geo.compare.maps import Segments
from geo.compare.stretches import RowLines
from geo.compare.survey import Lines, sample_lines, sums
from geo.layers.roads import RoadLines
from geo.layers.segments import places_in

STEP_M = 1.0
"""Distance of such places on stretches: shorter ones have one, in the middle."""

AREA_STEPS = 10
"""In which the side of a square of a network's area is cut, for places in it."""

_Places = tuple[FloatArray, IntArray, FloatArray]
"""Places (N, 2) on rows, the row (N,) of each, and the share (N,) of it that it stands for."""

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
        line_segment, area_segment: segment with most of each row of the changes; -1 for none.
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
    of_line = _Shares.of(_on_lines(lines.lines), roads)
    of_area = _Shares.of(_in_areas(areas.shape), roads)
    seen, seen_area = lines.kind != "not_inspected", areas.kind != "not_inspected"

    def total(values: FloatArray, chosen: BoolArray) -> FloatArray:
        return of_line.total(np.where(chosen, values, 0.0), count)

    def total_area(values: FloatArray) -> FloatArray:
        return of_area.total(np.where(seen_area, values, 0.0), count)

    larger = np.maximum(lines.before_m, lines.after_m)
    change, sd = _widths(result, of_line, count)
    return SegmentChanges(
        meters={kind: total(larger, lines.kind == kind) for kind in KINDS},
        before_m=total(lines.before_m, seen),
        after_m=total(lines.after_m, seen),
        sd_m=np.sqrt(total(lines.sd_m**2, seen)),
        network_before_m2=total_area(areas.before_m2),
        network_after_m2=total_area(areas.after_m2),
        network_sd_m2=np.sqrt(total_area(areas.sd_m2**2)),
        width_change_mm=change,
        width_sd_mm=sd,
        both_pct=_both_pct(result.both, segments),
        line_segment=of_line.most(lines.lines.count),
        area_segment=of_area.most(len(areas.kind)),
    )


@dataclass(frozen=True, eq=False)
class _Shares:
    """What of each row lies on which segment, (P,) each: row, segment, share of the row."""

    row: IntArray
    segment: IntArray
    share: FloatArray

    @classmethod
    def of(cls, places: Iterable[_Places], roads: RoadLines) -> _Shares:
        """Share rows out over roads by places on them."""
        found, count = [np.empty((0, 3))], len(roads.lines)
        for xy, row, part in places:
            at, segment, _ = roads.nearest(shapely.points(xy))
            pair, number = np.unique(row[at] * count + segment, return_inverse=True)
            share = sums(number, part[at], len(pair))
            found.append(np.column_stack((pair // count, pair % count, share)))
        row, segment, share = np.concatenate(found).T
        return cls(row.astype(np.int64), segment.astype(np.int64), share)

    def total(self, values: FloatArray, count: int) -> FloatArray:
        """Return (count,) sum of the values of rows on each segment."""
        return sums(self.segment, values[self.row] * self.share, count)

    def most(self, count: int) -> IntArray:
        """Return (count,) segment with most of each row, the first of equals; -1 for none."""
        order = np.lexsort((-self.segment, self.share))
        result = np.full(count, -1)
        result[self.row[order]] = self.segment[order]  # the last assignment stays
        return result


def _on_lines(lines: RowLines) -> Iterator[_Places]:
    low = 0
    for shapes in lines.shapes():
        on = sample_lines(Lines.of(shapes), STEP_M)
        line_m = sums(on.crack, on.length_m, len(shapes))
        yield on.xy, on.crack + low, on.length_m / line_m[on.crack]
        low += len(shapes)


def _in_areas(shapes: Shapes) -> Iterator[_Places]:
    for row in np.flatnonzero(shapely.area(shapes) > 0).tolist():
        step = math.sqrt(shapes[row].area) / AREA_STEPS
        xy = np.concatenate([np.empty((0, 2)), *places_in(shapes[row], step)])
        yield xy, np.full(len(xy), row), np.full(len(xy), 1 / max(1, len(xy)))


def _widths(result: Comparison, on: _Shares, count: int) -> tuple[FloatArray, FloatArray]:
    lines = result.lines
    wider = lines.width_mm[:, 1] - lines.width_mm[:, 0]
    chosen = (np.isin(lines.kind, WIDTH_KINDS) & ~np.isnan(wider))[on.row]
    row, segment = on.row[chosen], on.segment[chosen]
    weight = lines.after_m[row] * on.share[chosen]
    total = sums(segment, weight, count)
    safe = np.where(total > 0, total, np.nan)
    change = sums(segment, weight * wider[row], count) / safe
    noise = (weight * lines.width_sd_mm[row]) ** 2
    return change, np.sqrt(sums(segment, noise, count)) / safe


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

"""How well the cracks and networks of a map agree with a drawn city: what an engineer reads.

Shares are of meters of true line. What was not found at all counts in `found` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import shapely

from geo.arrays import BoolArray, FloatArray, Shapes
from geo.cracks.measure import orientations
from geo.grid import Grid
from geo.layers.classes import crack_types, d6433
from geo.options import SeverityOptions, TypeOptions
from geo.paths import literal
from wpcrack.synthetic import City

FOUND_M = 0.02
"""A true line counts as found within this distance of a predicted one."""

BESIDE_M = 0.025
"""A crack covers a true branch where it runs so near to it."""

UNSEEN_M = 0.31
"""So much of a gap in a crack covers the true branch: most links are shorter, the longest .45 m."""

STEP_M = 0.02
"""Distance of the points along true lines at which types and widths are compared."""

WHOLE_SHARE = 0.8
SHORT_M, LONG_M = 0.3, 1.0
"""Shortest true branch that must be whole; shortest crack that is counted."""

RULES = SeverityOptions()
"""Limits of the classes."""

CLASSES = ("low", "medium", "high")

GROWN_M, SHRUNK_M = 0.12, 0.10
"""A true network is the area within 12 cm of its lines, shrunk by 10 cm again."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """Cracks and networks of a map.

    Attributes:
        parts: lines of all cracks.
        owner: (N,) row of the crack of each.
        cracks: the layer crack, attributes only.
        networks: (M,) areas.
    """

    parts: Shapes
    owner: npt.NDArray[np.int64]
    cracks: geopandas.GeoDataFrame
    networks: Shapes

    @classmethod
    def read(cls, package: Path) -> Mapped:
        """Read a map."""
        cracks = geopandas.read_file(literal(package), layer="crack")
        networks = geopandas.read_file(literal(package), layer="network")
        parts, owner = shapely.get_parts(cracks.geometry.to_numpy(), return_index=True)
        return cls(parts, owner, cracks, networks.geometry.to_numpy())


@dataclass(frozen=True)
class TruthFigures:
    """Agreement of a map with the truth.

    Attributes:
        found_2cm: share of true line within 2 cm of a crack's line or in a network.
        type_accuracy: right type (longitudinal, transverse, diagonal, network), of what was found
            of true lines >= 0.3 m.
        severity_accuracy: meters of the right ASTM D6433 class, of those with a class, crack by
            crack; outside true networks. The true class is by the true width of a true branch.
        severity_claimed: share of the meters found there that have a class.
        width_mae_mm: mean difference of a crack's width from the true width along it, by meter;
            cracks with a width, outside true networks.
        network_iou: areas of networks.
        whole_cracks: true branches >= 0.3 m that are one crack over >= 80 % of their length.
        count_error: cracks >= 1 m, (predicted - true) / true.
    """

    found_2cm: float
    type_accuracy: float
    severity_accuracy: float
    severity_claimed: float
    width_mae_mm: float
    network_iou: float
    whole_cracks: float
    count_error: float


@dataclass(frozen=True, eq=False)
class CityTruth:
    """True branches: lines, kind, widths at their vertices, type; true networks; roads."""

    lines: Shapes
    in_network: BoolArray
    widths_mm: Sequence[FloatArray]
    types: Shapes
    network: shapely.Geometry
    roads: Shapes

    @classmethod
    def of(cls, city: City, grid: Grid) -> CityTruth:
        """Return the truth of a city in world coordinates."""
        cracks = city.cracks
        lines = np.array([shapely.LineString(grid.to_world(c.points_px)) for c in cracks])
        in_network = np.array([crack.kind == "alligator" for crack in cracks])
        number = np.array([crack.crack_id for crack in cracks])
        areas = [
            shapely.buffer(
                shapely.union_all(shapely.buffer(lines[number == n], GROWN_M)), -SHRUNK_M
            )
            for n in np.unique(number[in_network])
        ]
        roads = [shapely.LineString(grid.to_world(s.centerline_px)) for s in city.streets]
        mm = 1000 * city.gsd_m
        truth = cls(
            lines,
            in_network,
            [crack.width_px * mm for crack in cracks],
            np.empty(len(lines), object),
            shapely.union_all(areas),
            np.array(roads),
        )
        truth.types[:] = np.where(in_network, "network", truth._types())
        return truth

    def road_deg(self, places: FloatArray) -> FloatArray:
        """Return (N,) direction of the nearest road at places (N, 2)."""
        points = shapely.points(places)
        away = shapely.distance(points[:, None], self.roads[None, :])
        roads = self.roads[away.argmin(axis=1)]
        along = shapely.line_locate_point(roads, points)
        ends = [
            shapely.get_coordinates(shapely.line_interpolate_point(roads, along + step))
            for step in (0.0, 0.5)
        ]
        run = ends[1] - ends[0]
        return np.asarray(np.degrees(np.arctan2(run[:, 0], run[:, 1])), np.float64)

    def _types(self) -> Shapes:
        steps, owner = [], []
        for number, line in enumerate(self.lines):
            runs = np.diff(shapely.get_coordinates(line), axis=0)
            steps.append(runs)
            owner.append(np.full(len(runs), number))
        middle = shapely.get_coordinates(
            shapely.line_interpolate_point(self.lines, 0.5, normalized=True)
        )
        return crack_types(
            orientations(np.concatenate(steps), np.concatenate(owner), len(self.lines)),
            shapely.length(self.lines),
            self.road_deg(middle),
            TypeOptions(),
        )

    def samples(self) -> Samples:
        """Return points along all lines."""
        found = []
        for number, (line, width) in enumerate(zip(self.lines, self.widths_mm, strict=True)):
            vertices = shapely.get_coordinates(line)
            way = np.append(0.0, np.cumsum(np.hypot(*np.diff(vertices, axis=0).T)))
            count = max(int(way[-1] / STEP_M), 1)
            along = (np.arange(count) + 0.5) * way[-1] / count
            columns = [np.interp(along, way, v) for v in (*vertices.T, width)]
            found.append(
                np.column_stack((*columns, np.full(count, number), np.full(count, way[-1] / count)))
            )
        x, y, width, owner, meters = np.concatenate(found).T
        return Samples(np.column_stack((x, y)), width, owner.astype(np.int64), meters)


@dataclass(frozen=True, eq=False)
class Samples:
    """P points (P, 2) on true lines: width there, number of the line, meters it stands for."""

    points: FloatArray
    width_mm: FloatArray
    line: npt.NDArray[np.int64]
    meters: FloatArray


def score_truth(package: Path, truth: CityTruth) -> TruthFigures:
    """Compare a map with the truth."""
    found, samples = Mapped.read(package), truth.samples()
    points = shapely.points(samples.points)
    network = shapely.union_all(found.networks)
    shapely.prepare(network)
    in_area = shapely.contains(network, points)
    at, part = shapely.STRtree(found.parts).query_nearest(
        points, max_distance=FOUND_M, all_matches=False
    )
    crack = np.full(len(points), -1)
    crack[at] = found.owner[part]
    crack[in_area] = -1
    seen, is_crack = in_area | (crack >= 0), crack >= 0
    named = np.append(found.cracks["type"].to_numpy(object), ["network"])[crack]
    typed = seen & (truth.types[samples.line] != "unknown")
    rated = is_crack & ~truth.in_network[samples.line]
    right, claimed = _rated_meters(found, truth, samples, crack, rated)
    width_mm = np.append(found.cracks["width_mean_mm"].to_numpy(float), [np.nan])[crack]
    true_mm = _means(samples.width_mm, samples.meters, np.where(rated, crack, len(found.cracks)))
    wide = rated & np.isfinite(width_mm)
    whole = _whole(found, truth)
    long = float((shapely.length(truth.lines)[~truth.in_network] >= LONG_M).sum())
    count = float((found.cracks["length_m"] >= LONG_M).sum())
    union = shapely.union(network, truth.network).area
    return TruthFigures(
        found_2cm=float(samples.meters[seen].sum() / samples.meters.sum()),
        type_accuracy=_share(named == truth.types[samples.line], typed, samples.meters),
        severity_accuracy=right / claimed if claimed > 0 else 1.0,
        severity_claimed=claimed / max(float(samples.meters[rated].sum()), STEP_M),
        width_mae_mm=_share(np.abs(width_mm - true_mm), wide, samples.meters),
        network_iou=shapely.intersection(network, truth.network).area / union if union else 1.0,
        whole_cracks=float(whole.mean()) if len(whole) else 1.0,
        count_error=(count - long) / long if long else count,
    )


def _rated_meters(
    found: Mapped,
    truth: CityTruth,
    samples: Samples,
    crack: npt.NDArray[np.int64],
    rated: BoolArray,
) -> tuple[float, float]:
    """Sum meters of the right class, and of any class, crack by crack.

    A map gives meters of each class per crack, so a crack agrees over as many meters of a class
    as both the map and the truth have; meters that the truth does not cover are left out.
    """
    count = len(found.cracks)
    true_mm = _means(samples.width_mm, samples.meters, samples.line)
    true = d6433(true_mm, np.ones(len(true_mm), bool), RULES)
    owner, meters = crack[rated], samples.meters[rated]
    line = found.cracks[[f"{name}_m" for name in (*CLASSES, "not_measurable")]].sum(axis=1)
    scale = np.bincount(owner, meters, count) / np.maximum(line.to_numpy(float), STEP_M)
    right = claimed = 0.0
    for name in CLASSES:
        mapped = scale * found.cracks[f"{name}_m"].to_numpy(float)
        truly = np.bincount(owner, np.where(true[rated] == name, meters, 0), count)
        right += float(np.minimum(mapped, truly).sum())
        claimed += float(mapped.sum())
    return right, claimed


def _means(values: FloatArray, weights: FloatArray, owner: npt.NDArray[np.int64]) -> FloatArray:
    """Return the weighted mean of the values of each owner, at each value."""
    total = np.bincount(owner, weights)
    return (np.bincount(owner, weights * values) / np.where(total > 0, total, 1))[owner]


def _share(values: npt.NDArray[np.generic], chosen: BoolArray, weights: FloatArray) -> float:
    """Return the mean of the chosen values by weight; 0 where there is none."""
    if not chosen.any():
        return 0.0
    return float(np.average(values[chosen].astype(float), weights=weights[chosen]))


def _whole(found: Mapped, truth: CityTruth) -> BoolArray:
    """Return which true branches outside networks are one crack."""
    tree = shapely.STRtree(found.parts)
    chosen = truth.lines[~truth.in_network & (shapely.length(truth.lines) >= SHORT_M)]
    whole = np.zeros(len(chosen), bool)
    for number, line in enumerate(chosen):
        beside = shapely.buffer(line, BESIDE_M)
        near = tree.query(beside, predicate="intersects")
        for crack in np.unique(found.owner[near]):
            parts = shapely.intersection(found.parts[near[found.owner[near] == crack]], beside)
            if shapely.length(parts).sum() < STEP_M:
                continue
            points = shapely.points(shapely.get_coordinates(shapely.segmentize(parts, STEP_M / 2)))
            along = np.sort(shapely.line_locate_point(line, points))
            length = np.minimum(np.diff(along), UNSEEN_M).sum()
            whole[number] |= length >= WHOLE_SHARE * line.length
    return whole

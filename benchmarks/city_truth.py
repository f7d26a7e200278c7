"""The truth of a drawn city, and how well cracks and networks of a map agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from geo.cracks.measure import orientations
from geo.grid import Grid
from geo.layers.classes import crack_types, d6433
from geo.layers.crack_width import CrackWidths
from geo.options import SeverityOptions, TypeOptions
from wpcrack.synthetic import City

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Shapes = npt.NDArray[np.object_]

FOUND_M = 0.02
"""A true line counts as found within this distance of a predicted one."""

BESIDE_M = 0.025
"""A crack covers a true branch where it runs so near to it."""

UNSEEN_M = 0.31
"""Longest gap in a crack that still covers the true branch: longer ones are never linked."""

STEP_M = 0.02
"""Distance of the points along true lines at which types and widths are compared."""

WHOLE_SHARE = 0.8
SHORT_M, LONG_M = 0.3, 1.0
"""Shortest true branch that must be whole; shortest crack that is counted."""

GSD_MM, RULES = 5.0, SeverityOptions()
"""Pixels of the city and limits of the classes."""

GROWN_M, SHRUNK_M = 0.12, 0.10
"""A true network is the area within 12 cm of its lines, shrunk by 10 cm again."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """Cracks and networks of a map.

    Attributes:
        lines: all branches, (K, 2) meters in the world.
        owner: (N,) crack of each branch; from ``n_cracks`` on, network.
        n_cracks: number of cracks.
        length_m, gap_m: (n_cracks,) with gaps, and of the gaps.
        networks: (M,) areas.
        types: (n_cracks,) of the cracks.
        widths: of branches, and of cracks and then networks.
    """

    lines: Sequence[Float64]
    owner: npt.NDArray[np.int64]
    n_cracks: int
    length_m: Float64
    gap_m: Float64
    networks: Shapes
    types: Shapes
    widths: CrackWidths


@dataclass(frozen=True)
class Figures:
    """Agreement of a map with the truth; shares are of meters of true line that was found.

    Attributes:
        found: share of true line within 2 cm of a predicted branch.
        type: right type (longitudinal, transverse, diagonal, network); of lines >= 0.3 m.
        severity: right ASTM D6433 class of a branch (by the true width along it), where one is
            claimed; outside true networks.
        claimed: share of those meters for which a class is claimed.
        severity_all: right class if one were given everywhere.
        width_mae_mm: mean difference of a crack's mean width from the true width along it;
            outside true networks.
        width_mae_claimed_mm: the same where the width is claimed.
        network_width_mae_mm: the same inside true networks, whose width is one figure.
        whole_cracks: true branches >= 0.3 m that are one crack over >= 80 % of their length.
        whole_outside: the same of those of which less than a fifth lies in a true network.
        count: cracks >= 1 m, predicted / true.
        network_iou: areas of networks.
        gap_m: length of gaps in cracks.
    """

    found: float
    type: float
    severity: float
    claimed: float
    severity_all: float
    width_mae_mm: float
    width_mae_claimed_mm: float
    network_width_mae_mm: float
    whole_cracks: float
    whole_outside: float
    count: float
    network_iou: float
    gap_m: float


@dataclass(frozen=True, eq=False)
class CityTruth:
    """True branches: lines, kind, widths at their vertices, type; true networks; roads."""

    lines: Shapes
    in_network: Bool
    widths_mm: Sequence[Float64]
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

    def road_deg(self, places: Float64) -> Float64:
        """(N,) direction of the nearest road at places (N, 2)."""
        points = shapely.points(places)
        away = shapely.distance(points[:, None], self.roads[None, :])
        roads = self.roads[away.argmin(axis=1)]
        along = shapely.line_locate_point(roads, points)
        ends = [
            shapely.get_coordinates(shapely.line_interpolate_point(roads, along + step))
            for step in (0.0, 0.5)
        ]
        run = ends[1] - ends[0]
        return np.degrees(np.arctan2(run[:, 0], run[:, 1]))

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
            np.zeros(len(self.lines)),
            self.road_deg(middle),
            TypeOptions(),
        )

    def samples(self) -> Samples:
        """Points along all lines."""
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

    points: Float64
    width_mm: Float64
    line: npt.NDArray[np.int64]
    meters: Float64


def score(predicted: Predicted, truth: CityTruth) -> Figures:
    """Compare a map with the truth."""
    samples = truth.samples()
    branches = np.array([shapely.LineString(xy) for xy in predicted.lines])
    at, branch = shapely.STRtree(branches).query_nearest(
        shapely.points(samples.points), max_distance=FOUND_M, all_matches=False
    )
    line, found_m, true_mm = samples.line[at], samples.meters[at], samples.width_mm[at]
    owner = predicted.owner[branch]
    is_crack = owner < predicted.n_cracks
    named = np.append(predicted.types, ["network"])[np.minimum(owner, predicted.n_cracks)]
    typed = truth.types[line] != "unknown"
    net, widths = truth.in_network[line], predicted.widths
    off_mm = np.abs(widths.crack_mm[owner] - _means(true_mm, found_m, owner))
    seen = np.isfinite(off_mm) & is_crack & ~net
    in_net = np.isfinite(off_mm) & ~is_crack & net
    rated = np.isfinite(widths.branch_mm[branch]) & ~net
    claimed = rated & widths.branch_measurable[branch]
    true_branch_mm = _means(true_mm, found_m, branch)
    classes = [d6433(w, GSD_MM, RULES) for w in (widths.branch_mm[branch], true_branch_mm)]
    whole, outside = _whole(predicted, branches, truth)
    length = shapely.length(truth.lines)
    network = shapely.union_all(predicted.networks)
    union = shapely.union(network, truth.network).area
    return Figures(
        found=found_m.sum() / samples.meters.sum(),
        type=_share(named == truth.types[line], typed, found_m),
        severity=_share(classes[0] == classes[1], claimed, found_m),
        claimed=_share(claimed, rated, found_m),
        severity_all=_share(classes[0] == classes[1], rated, found_m),
        width_mae_mm=_share(off_mm, seen, found_m),
        width_mae_claimed_mm=_share(off_mm, seen & widths.crack_measurable[owner], found_m),
        network_width_mae_mm=_share(off_mm, in_net, found_m),
        whole_cracks=float(whole.mean()),
        whole_outside=float(whole[outside].mean()),
        count=(predicted.length_m >= LONG_M).sum() / (length[~truth.in_network] >= LONG_M).sum(),
        network_iou=shapely.intersection(network, truth.network).area / union if union else 1.0,
        gap_m=float(predicted.gap_m.sum()),
    )


def _means(values: Float64, weights: Float64, owner: npt.NDArray[np.int64]) -> Float64:
    """Weighted mean of the values of each owner, at each value."""
    total = np.bincount(owner, weights)
    return (np.bincount(owner, weights * values) / np.where(total > 0, total, 1))[owner]


def _share(values: npt.NDArray[np.generic], chosen: Bool, weights: Float64) -> float:
    """Mean of the chosen values by weight."""
    return float(np.average(values[chosen].astype(float), weights=weights[chosen]))


def _whole(predicted: Predicted, branches: Shapes, truth: CityTruth) -> tuple[Bool, Bool]:
    """Which true branches are one crack, and which lie outside true networks."""
    in_crack = predicted.owner < predicted.n_cracks
    own, owner = branches[in_crack], predicted.owner[in_crack]
    tree = shapely.STRtree(own)
    chosen = truth.lines[~truth.in_network & (shapely.length(truth.lines) >= SHORT_M)]
    whole = np.zeros(len(chosen), bool)
    for number, line in enumerate(chosen):
        beside = shapely.buffer(line, BESIDE_M)
        near = tree.query(beside, predicate="intersects")
        for crack in np.unique(owner[near]):
            parts = shapely.intersection(own[near[owner[near] == crack]], beside)
            if shapely.length(parts).sum() < STEP_M:
                continue
            points = shapely.points(shapely.get_coordinates(shapely.segmentize(parts, STEP_M / 2)))
            along = np.sort(shapely.line_locate_point(line, points))
            covered = np.minimum(np.diff(along), UNSEEN_M).sum()
            whole[number] |= covered >= WHOLE_SHARE * line.length
    inside = shapely.length(shapely.intersection(chosen, truth.network))
    return whole, inside < (1 - WHOLE_SHARE) * shapely.length(chosen)

"""Draw two surveys of the same streets as geometry, with the truth of every meter.

Cracks stay, grow, widen, are sealed in part or as a whole, and appear. Each survey then sees them
its own way: pieces are missed (as often and as long as a detector misses them on drawn pavement),
lines are noisy, chains are cut differently, some lines are false; and the old survey lies up to
15 cm and .1 degree off. As maps, for `wpcrack compare`:

    python -m benchmarks.compare_draw --seed 0 --out drawn
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray

from geo.compare.survey import Lines, Survey

FloatArray = NDArray[np.float64]

STREET_WIDTH_M = 8.0
STREET_SPACING_M = 50.0
CRACKS_PER_M2 = 0.08
VERTEX_M = 0.05
GSD_M = 0.005
GAPS_PER_M = 1.6
"""397 gaps along the 250 m of true lines of the demo city."""
GAP_MEDIAN_M, GAP_SIGMA = 0.028, 1.14
"""Of the same gaps: median 28 mm, 95 % below 183 mm."""
LINK_M = 0.3
"""Pieces farther apart are two cracks here; a map links some across up to 45 cm."""
SHORTEST_M = 0.15
LINE_NOISE_M = 0.0025
LATERAL_NOISE_M, LATERAL_LENGTH_M = 0.004, 0.5
"""A line is drawn along the darker side of a crack, which depends on the light."""
WIDTH_NOISE_MM = 2.0
CUT_SHARE = 0.05
"""Cracks that are two, because a chain went on otherwise at a junction."""
FALSE_PER_CRACK = 0.02
"""Lines of stains and shadows: a survey of one crack in fifty."""
SHIFT_M, TURN_DEG, WAVE_M = 0.15, 0.1, 540.0
"""Registration error; on a larger town it comes in waves, as steep as the rotation."""
WHOLE_M = 350.0
"""Up to this size the error is one shift and one rotation."""
FATES = {
    "unchanged": 0.5,
    "grown": 0.17,
    "widened": 0.08,
    "shrunk": 0.05,
    "gone": 0.08,
    "new": 0.12,
}


@dataclass(frozen=True)
class Stretch:
    """A piece of true line and what happened to it."""

    kind: str
    line: FloatArray
    fate: str


@dataclass(eq=False)
class Drawn:
    """Two surveys and the truth, which lies where the new survey lies."""

    old: Survey
    new: Survey
    truth: list[Stretch]
    streets: list[shapely.LineString]
    error: Misplacement | None = None
    network_fates: list[str] = field(default_factory=list)

    def meters(self, kind: str) -> float:
        """Return true meters of a kind."""
        return sum(length(one.line) for one in self.truth if one.kind == kind)


def length(line: FloatArray) -> float:
    """Of a polyline (N, 2)."""
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def second_epoch(seed: int, *, street_m: float = 300.0, streets: int = 1) -> Drawn:
    """Draw streets with cracks as two surveys see them.

    Args:
        seed: another seed draws another town.
        street_m: length of a street.
        streets: how many, side by side.
    """
    rng = np.random.default_rng(seed)
    error = Misplacement(rng, street_m, streets)
    drawn = Drawn(_nothing(), _nothing(), [], [], error)
    old, new = _Seen(rng), _Seen(rng)
    for number in range(streets):
        middle = number * STREET_SPACING_M
        drawn.streets.append(shapely.LineString([(0, middle), (street_m, middle)]))
        for _ in range(round(street_m * STREET_WIDTH_M * CRACKS_PER_M2)):
            _draw_crack(rng, (street_m, middle), drawn, old, new)
        for _ in range(max(1, round(street_m / 40))):
            _draw_network(rng, (street_m, middle), drawn, old, new)
    grounds = [(0.0, 0.92), (0.06, 1.0)]
    drawn.old, drawn.new = (
        seen.survey(_ground(streets, street_m, *ground), move)
        for seen, ground, move in zip((old, new), grounds, (error, None), strict=True)
    )
    return drawn


class Misplacement:
    """Where the old survey has what truly lies at xy."""

    def __init__(self, rng: np.random.Generator, street_m: float, streets: int) -> None:
        size = np.array([street_m, (streets - 1) * STREET_SPACING_M])
        self._center = size / 2
        self._whole = bool(size.max() <= WHOLE_M)
        direction = rng.uniform(0, 2 * np.pi)
        self._shift = SHIFT_M * np.array([np.cos(direction), np.sin(direction)])
        self._turn = np.radians(TURN_DEG) * rng.choice([-1, 1])
        self._phase = rng.uniform(0, 2 * np.pi, 2)

    def __call__(self, xy: FloatArray) -> FloatArray:
        """Places (N, 2) -> places in the old survey."""
        if self._whole:
            lever = xy - self._center
            turned = np.column_stack((-lever[:, 1], lever[:, 0]))
            return np.asarray(xy + self._shift + self._turn * turned)
        wave = 2 * np.pi * xy[:, ::-1] / WAVE_M + self._phase
        return np.asarray(xy + SHIFT_M * np.sin(wave))


def _draw_crack(
    rng: np.random.Generator, place: tuple[float, float], drawn: Drawn, old: _Seen, new: _Seen
) -> None:
    fate = str(rng.choice(list(FATES), p=list(FATES.values())))
    base = float(np.clip(rng.lognormal(np.log(1.5), 0.7), 0.4, 8.0))
    more = rng.uniform(0.2, 1.5) if fate == "grown" else 0.0
    start = rng.uniform([0, place[1] - 3.5], [place[0], place[1] + 3.5])
    line = _walk(rng, start, base + more)
    was, now = (0.0, base), (0.0, base)
    if fate == "grown":
        first = more * rng.choice([0.0, 1.0, 0.5], p=[0.4, 0.4, 0.2])
        was, now = (first, first + base), (0.0, base + more)
    elif fate == "shrunk":
        left = base * rng.uniform(0.3, 0.7)
        now = (0.0, left)
    width = float(rng.lognormal(np.log(6), 0.5))
    wider = width * 1.8 + 5 if fate == "widened" else width
    if fate != "new":
        old.see(cut(line, *was), width)
    if fate != "gone":
        new.see(cut(line, *now), wider)
    drawn.truth += _true_stretches(fate, line, was, now)
    for seen in (old, new):
        if rng.random() < FALSE_PER_CRACK:
            stain = _walk(rng, rng.uniform([0, place[1] - 3.5], [place[0], place[1] + 3.5]), 0.5)
            seen.see(stain, 5.0)


def _true_stretches(
    fate: str, line: FloatArray, was: tuple[float, float], now: tuple[float, float]
) -> list[Stretch]:
    if fate in ("new", "gone", "unchanged", "widened"):
        return [Stretch(fate, line, fate)]
    low, high = max(was[0], now[0]), min(was[1], now[1])
    parts = [Stretch("unchanged", cut(line, low, high), fate)]
    outer = (min(was[0], now[0]), low), (high, max(was[1], now[1]))
    return parts + [Stretch(fate, cut(line, *part), fate) for part in outer if part[1] > part[0]]


def _draw_network(
    rng: np.random.Generator, place: tuple[float, float], drawn: Drawn, old: _Seen, new: _Seen
) -> None:
    fate = str(rng.choice(["unchanged", "grown", "new", "gone"], p=[0.4, 0.3, 0.2, 0.1]))
    middle = rng.uniform([5, place[1] - 2.5], [place[0] - 5, place[1] + 2.5])
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = rng.uniform(0.5, 1.2) * (1 + 0.2 * np.sin(3 * angle + rng.uniform(0, 6)))
    for seen, grown, absent in ((old, 1.0, "new"), (new, 1.4 if fate == "grown" else 1.0, "gone")):
        if fate != absent:
            noise = np.repeat(rng.normal(0, 0.05, 6), 10)
            ring = (radius * grown + noise)[:, None] * np.column_stack(
                (np.cos(angle), np.sin(angle))
            )
            seen.networks.append(middle + ring)
    drawn.network_fates.append(fate)


def _walk(rng: np.random.Generator, start: FloatArray, length_m: float) -> FloatArray:
    """Return a crooked line: mostly along or across the street."""
    main = rng.choice([0.0, 90.0, rng.uniform(0, 180)], p=[0.45, 0.35, 0.2]) + rng.normal(0, 8)
    count = max(2, round(length_m / VERTEX_M))
    drift = np.cumsum(rng.normal(0, 5, count))
    drift -= np.linspace(drift[0], drift[-1], count)
    heading = np.radians(main + drift)
    step = length_m / count
    steps = step * np.column_stack((np.cos(heading), np.sin(heading)))
    return np.vstack((start, start + np.cumsum(steps, axis=0)))


def cut(line: FloatArray, low: float, high: float) -> FloatArray:
    """Return the part of a polyline between two distances from its begin."""
    arc = np.append(0.0, np.cumsum(np.hypot(*np.diff(line, axis=0).T)))
    inner = arc[(arc > low) & (arc < high)]
    place = np.concatenate(([low], inner, [high]))
    return np.column_stack([np.interp(place, arc, axis) for axis in line.T])


class _Seen:
    """What a survey sees of the cracks."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._cracks: list[list[FloatArray]] = []
        self._widths: list[float] = []
        self.networks: list[FloatArray] = []

    def see(self, line: FloatArray, width_mm: float) -> None:
        """Add a crack as it is found: noisy, with gaps, perhaps as several."""
        rng, total = self._rng, length(line)
        noisy = line + rng.normal(0, LINE_NOISE_M, line.shape) + self._lateral(line)
        gaps = rng.poisson(GAPS_PER_M * total)
        middles = np.sort(rng.uniform(0, total, gaps))
        sizes = rng.lognormal(np.log(GAP_MEDIAN_M), GAP_SIGMA, gaps)
        chain: list[FloatArray] = []
        at, cut_at = 0.0, rng.uniform(0, total) if rng.random() < CUT_SHARE else np.inf
        total = length(noisy)
        for middle, size in zip([*middles, total + 1], [*sizes, 2.0], strict=True):
            low, high = max(middle - size / 2, 0), min(middle + size / 2, total)
            if low - at > 0.01:
                chain.append(cut(noisy, at, min(low, total)))
            if high > at and (size > LINK_M or at < cut_at <= high):
                self._keep(chain, width_mm)
                chain = []
            at = max(at, high)
        self._keep(chain, width_mm)

    def survey(self, ground: shapely.Geometry, move: Misplacement | None) -> Survey:
        """All of it that lies on the ground, moved."""
        place = move or (lambda xy: xy)
        cracks = shapely.multilinestrings(
            [shapely.linestrings(part) for chain in self._cracks for part in chain],
            indices=np.repeat(np.arange(len(self._cracks)), [len(c) for c in self._cracks]),
        )
        cracks = shapely.intersection(cracks, ground)
        kept = np.flatnonzero(shapely.length(cracks) > 0)
        networks = shapely.intersection(
            np.array([shapely.Polygon(r) for r in self.networks]), ground
        )
        networks = networks[shapely.area(networks) > 0]
        widths = np.array(self._widths)[kept]
        return Survey(
            crack_ids=np.array([f"{number:016x}" for number in kept], object),
            cracks=Lines.of(shapely.transform(cracks[kept], place)),
            width_mm=widths + self._rng.normal(0, WIDTH_NOISE_MM, len(widths)),
            network_ids=np.array([f"n{number:05d}" for number in range(len(networks))], object),
            networks=shapely.transform(networks, place),
            inspected=shapely.transform(shapely.segmentize(ground, 10.0), place),
            gsd_m=GSD_M,
        )

    def _keep(self, chain: list[FloatArray], width_mm: float) -> None:
        if sum(length(part) for part in chain) >= SHORTEST_M:
            self._cracks.append(chain)
            self._widths.append(width_mm)

    def _lateral(self, line: FloatArray) -> FloatArray:
        knots = np.arange(0, len(line) + LATERAL_LENGTH_M / VERTEX_M, LATERAL_LENGTH_M / VERTEX_M)
        noise = self._rng.normal(0, LATERAL_NOISE_M, (len(knots), 2))
        index = np.arange(len(line))
        return np.column_stack([np.interp(index, knots, axis) for axis in noise.T])


def _ground(streets: int, street_m: float, low: float, high: float) -> shapely.Geometry:
    half = STREET_WIDTH_M / 2 + 6
    boxes = [
        shapely.box(
            street_m * low - 10 * (low == 0),
            STREET_SPACING_M * number - half,
            street_m * high + 10 * (high == 1),
            STREET_SPACING_M * number + half,
        )
        for number in range(streets)
    ]
    return shapely.MultiPolygon(boxes)


def _nothing() -> Survey:
    none = np.empty(0, object)
    return Survey(none, Lines.of(none), np.empty(0), none, none, shapely.MultiPolygon(), GSD_M)


EPSG = 25832
ORIGIN = np.array([500_000.0, 5_800_000.0])


def write_map(path: Path, survey: Survey, streets: list[shapely.LineString], run_id: str) -> None:
    """Write what a survey sees as a map, with the layers and columns that a comparison reads."""

    def place(shapes: np.ndarray) -> np.ndarray:
        return np.asarray(shapely.transform(shapes, lambda xy: xy + ORIGIN))

    gsd_mm = survey.gsd_m * 1000
    lines = np.concatenate([np.empty(0, object), *survey.cracks.shapes()])
    crack = {"crack_id": survey.crack_ids, "length_m": shapely.length(lines)}
    crack |= {"width_mean_mm": survey.width_mm, "gsd_mm": gsd_mm}
    network = {"network_id": survey.network_ids, "area_m2": shapely.area(survey.networks)}
    seen = {"status": ["inspected"], "gsd_mm": [gsd_mm], "survey_date": ["2026-05-04"]}
    road = {"segment_id": [f"{n}-000" for n in range(len(streets))], "width_m": STREET_WIDTH_M}
    road |= {"name": [f"street {n}" for n in range(len(streets))]}
    tables = {
        "crack": (crack, lines),
        "network": (network, survey.networks),
        "inspected": (seen, np.array([survey.inspected], object)),
        "road_segment": (road, np.array(streets, object)),
    }
    for layer, (columns, shapes) in tables.items():
        table = geopandas.GeoDataFrame(columns, geometry=place(shapes), crs=EPSG)
        table.to_file(path, layer=layer, engine="pyogrio")
    pyogrio.write_dataframe(pd.DataFrame({"run_id": [run_id]}), path, layer="run")


def main() -> None:
    """Write two drawn maps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    drawn = second_epoch(given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, survey in (("old", drawn.old), ("new", drawn.new)):
        write_map(given.out / f"{name}.gpkg", survey, drawn.streets, f"drawn {name}")


if __name__ == "__main__":
    main()

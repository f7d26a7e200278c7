"""Compare two drawn surveys: how often each meter is named right, how long it takes.

Run from the repository root:
    python -m benchmarks.compare [--seeds 0 1 2] [--mask perfect|spoiled]    # maps of a drawn city
    python -m benchmarks.compare --lines [--street-m 3000]     # lines as a survey would see them
    python -m benchmarks.compare --large                       # 1e5 cracks: seconds, peak memory

Meters of true line are looked up in the result, those of networks in its areas. Right means: the
kind that the drawing has there. Lines that are not true count as wrong where they are a change.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import shapely
from scipy.spatial import cKDTree

from benchmarks.compare_city import draw_epochs, map_epochs
from benchmarks.compare_draw import Drawn, second_epoch
from geo.compare.changes import KINDS, Comparison, compare
from geo.compare.options import CompareOptions
from geo.cracks.pixel_set import ramps

STEP_M = 0.02
NEAR_M = 0.1
LARGE = {"street_m": 1000.0, "streets": 170}
QUIET = ("unchanged", "unsure", "in_network", "not_inspected")
"""Kinds that report no change."""


@dataclass(frozen=True)
class Score:
    """Figures of one drawing, or of several.

    Attributes:
        meters: of (true kind, reported kind).
        growth_m, true_growth_m: meters by which cracks grew, as reported and as drawn.
        in_network_m: of the drawn ones, those that are in a network in either map: an area has no
            single lines, so nothing is reported there.
        shift_error_m: left after registration, root mean square.
    """

    meters: dict[tuple[str, str], float]
    growth_m: float
    true_growth_m: float
    in_network_m: float
    shift_error_m: float

    @property
    def right(self) -> float:
        """Share of meters, false lines included, with the right kind."""
        right = sum(m for (kind, name), m in self.meters.items() if _is_right(kind, name))
        return right / sum(self.meters.values())

    @property
    def quiet(self) -> float:
        """Share of unchanged meters of which no change is reported."""
        same = {name: m for (kind, name), m in self.meters.items() if kind == "unchanged"}
        return sum(m for name, m in same.items() if name in QUIET) / sum(same.values())

    @property
    def growth_bias(self) -> float:
        """(reported - true) / true meters of growth."""
        return self.growth_m / self.true_growth_m - 1

    @property
    def growth_bias_of_lines(self) -> float:
        """The same outside networks."""
        return self.growth_m / (self.true_growth_m - self.in_network_m) - 1

    @classmethod
    def pooled(cls, scores: Sequence[Score]) -> Score:
        """Return the score of several drawings together."""
        meters: Counter[tuple[str, str]] = Counter()
        for one in scores:
            meters.update(one.meters)
        return cls(
            meters=dict(meters),
            growth_m=sum(one.growth_m for one in scores),
            true_growth_m=sum(one.true_growth_m for one in scores),
            in_network_m=sum(one.in_network_m for one in scores),
            shift_error_m=float(np.sqrt(np.mean([one.shift_error_m**2 for one in scores]))),
        )

    def __str__(self) -> str:
        return (
            f"right {self.right:.1%}, quiet {self.quiet:.1%}, growth bias {self.growth_bias:+.1%} "
            f"of {self.true_growth_m:.1f} m ({self.growth_bias_of_lines:+.1%} without the "
            f"{self.in_network_m:.1f} m in networks), "
            f"shift error {self.shift_error_m * 1000:.0f} mm"
        )


def score(drawn: Drawn, result: Comparison) -> Score:
    """Compare a result with the truth."""
    lines = result.lines
    places, owners = _sampled(np.concatenate(list(lines.lines.shapes())))
    tree = cKDTree(places)
    meters: Counter[tuple[str, str]] = Counter()
    shapes = np.array([shapely.LineString(one.line) for one in drawn.truth], object)
    points, owner = _sampled(shapes)
    kinds = np.array([one.kind for one in drawn.truth], object)[owner]
    both = shapely.intersection(drawn.new.inspected, _true_ground(drawn, result))
    shapely.prepare(both)
    seen = shapely.contains_xy(both, *points.T)
    kinds[~seen] = "not_inspected"
    distance, found = tree.query(points, distance_upper_bound=NEAR_M)
    there = np.isfinite(distance)
    reported = np.full(len(points), "", object)
    reported[there] = lines.kind[owners[found[there]]]
    is_network = (kinds == "network") & seen
    fates = np.array([one.fate for one in drawn.truth], object)[owner]
    kinds[is_network] = "network " + fates[is_network]
    in_area, area = _areas_at(result, points[is_network])
    inside = np.flatnonzero(is_network)[in_area]
    reported[inside] = "network " + result.areas.kind[area]
    for kind, name in zip(kinds[reported != ""], reported[reported != ""], strict=True):
        meters[kind, name] += STEP_M
    away, _ = cKDTree(points).query(places, distance_upper_bound=NEAR_M)
    for name in lines.kind[owners[~np.isfinite(away)]]:
        meters["false", name] += STEP_M
    grown = kinds == "grown"
    true_growth = STEP_M * grown.sum()
    growth = lines.growth_m[lines.kind == "grown"].sum()
    in_area, _ = _areas_at(result, points[grown])
    lost = grown.nonzero()[0][in_area]
    lost = lost[(reported[lost] == "") | (reported[lost] == "in_network")]
    shift = _shift_error(drawn, result)
    return Score(dict(meters), growth, true_growth, STEP_M * len(lost), shift)


def _is_right(kind: str, reported: str) -> bool:
    return kind == reported or (kind == "false" and reported in QUIET)


def _areas_at(result: Comparison, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which points (N, 2) lie in a compared network, and in which."""
    found = shapely.STRtree(result.areas.shape).query(
        shapely.points(points), predicate="dwithin", distance=NEAR_M
    )
    _, first = np.unique(found[0], return_index=True)
    return found[0][first], found[1][first]


def _true_ground(drawn: Drawn, result: Comparison) -> shapely.Geometry:
    return result.registration.warped_one(drawn.old.inspected)


def _shift_error(drawn: Drawn, result: Comparison) -> float:
    """Where the old cracks come to lie, against where the error of the drawing took them from."""
    moved = np.vstack([one.line for one in drawn.truth if one.kind != "new"])
    assert drawn.error is not None
    placed = drawn.error(moved)
    back = placed + result.registration.shift_at(placed)
    return float(np.sqrt(((back - moved) ** 2).sum(axis=1).mean()))


def _sampled(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points along lines and the line of each."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    count = np.maximum(1, np.rint(shapely.length(parts) / STEP_M)).astype(int)
    part, within = ramps(count)
    where = (within + 0.5) / count[part]
    points = shapely.line_interpolate_point(parts[part], where, normalized=True)
    return shapely.get_coordinates(points), owner[part]


def table(meters: dict[tuple[str, str], float]) -> str:
    """Meters by true kind (rows) and reported kind (columns)."""
    rows = sorted({true for true, _ in meters})
    names = [*KINDS, *(f"network {kind}" for kind in KINDS)]
    columns = [name for name in names if any(found == name for _, found in meters)]
    wide = [name.replace("network ", "net ") for name in columns]
    text = [" " * 18 + "".join(f"{name:>15}" for name in wide)]
    for true in rows:
        text.append(f"{true:18}" + "".join(f"{meters.get((true, c), 0):15.1f}" for c in columns))
    return "\n".join(text)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--mask", choices=["perfect", "spoiled"], default="perfect")
    parser.add_argument("--lines", action="store_true", help="no city, masks and maps")
    parser.add_argument("--street-m", type=float, default=3000.0, help="with --lines")
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args()
    if given.large:
        _measure(second_epoch(given.seeds[0], **LARGE))
        return
    scores = []
    for seed in given.seeds:
        if given.lines:
            drawn = second_epoch(seed, street_m=given.street_m)
        else:
            with TemporaryDirectory() as folder:
                drawn = map_epochs(draw_epochs(seed), Path(folder), given.mask)
        scores.append(score(drawn, _measure(drawn)))
        print(f"seed {seed}: {scores[-1]}", flush=True)
    together = Score.pooled(scores)
    print(f"together: {together}\n{table(together.meters)}")


def _measure(drawn: Drawn) -> Comparison:
    """Compare, and print what it costs."""
    cpu, before_mb = time.process_time(), _peak_mb()
    result = compare(drawn.old, drawn.new, CompareOptions())
    print(
        f"{len(drawn.old.cracks)} and {len(drawn.new.cracks)} cracks, {drawn.old.length_m:.0f} and "
        f"{drawn.new.length_m:.0f} m: {time.process_time() - cpu:.1f} s CPU, peak "
        f"{_peak_mb():.0f} MB ({before_mb:.0f} MB before)"
    )
    return result


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

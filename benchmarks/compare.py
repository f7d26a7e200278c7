"""Compare two drawn surveys: how often each meter is named right, how long it takes.

Run from the repository root:
    python -m benchmarks.compare [--seeds 0 1 2] [--street-m 300] [--streets 1]
    python -m benchmarks.compare --large        # 1e5 cracks: seconds and peak memory

Meters of true line are looked up in the result. Right means: the kind that the drawing has there.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import shapely
from scipy.spatial import cKDTree

from benchmarks.compare_draw import Drawn, second_epoch
from geo.compare.changes import KINDS, Comparison, compare
from geo.compare.options import CompareOptions

STEP_M = 0.02
NEAR_M = 0.1
LARGE = {"street_m": 1000.0, "streets": 170}
QUIET = ("unchanged", "unsure", "in_network", "not_inspected")
"""Kinds that report no change."""


@dataclass(frozen=True)
class Score:
    """Figures of one drawing.

    Attributes:
        meters: of (true kind, reported kind).
        right: share of meters, false lines included, with the right kind.
        quiet: share of unchanged meters of which no change is reported.
        growth_bias: (reported - true) / true meters of growth.
        shift_error_m: left after registration, root mean square.
    """

    meters: dict[tuple[str, str], float]
    right: float
    quiet: float
    growth_bias: float
    shift_error_m: float

    def __str__(self) -> str:
        return (
            f"right {self.right:.1%}, quiet {self.quiet:.1%}, growth bias {self.growth_bias:+.1%}, "
            f"shift error {self.shift_error_m * 1000:.0f} mm"
        )


def score(drawn: Drawn, result: Comparison) -> Score:
    """Compare a result with the truth."""
    lines = result.lines
    places, owners = _sampled(lines.shape)
    tree = cKDTree(places)
    meters: Counter[tuple[str, str]] = Counter()
    truth = [(one.kind, one.line) for one in drawn.truth]
    truth += [("false", line) for line in drawn.false_lines]
    shapes = np.array([shapely.LineString(line) for _, line in truth], object)
    points, owner = _sampled(shapes)
    kinds = np.array([kind for kind, _ in truth], object)[owner]
    both = shapely.intersection(drawn.new.inspected, _true_ground(drawn, result))
    shapely.prepare(both)
    seen = shapely.contains_xy(both, *points.T)
    kinds[~seen] = "not_inspected"
    distance, found = tree.query(points, distance_upper_bound=NEAR_M)
    there = np.isfinite(distance)
    for kind, reported in zip(kinds[there], lines.kind[owners[found[there]]], strict=True):
        meters[kind, reported] += STEP_M
    unchanged = {key: m for key, m in meters.items() if key[0] == "unchanged"}
    total = sum(meters.values())
    right = sum(m for (kind, reported), m in meters.items() if kind == reported)
    grown = kinds == "grown"
    true_growth = STEP_M * grown.sum()
    growth = lines.growth_m[lines.kind == "grown"].sum()
    return Score(
        meters=dict(meters),
        right=right / total,
        quiet=sum(m for key, m in unchanged.items() if key[1] in QUIET) / sum(unchanged.values()),
        growth_bias=growth / true_growth - 1,
        shift_error_m=_shift_error(drawn, result),
    )


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
    part = np.repeat(np.arange(len(parts)), count)
    within = np.arange(len(part)) - np.repeat(np.cumsum(count) - count, count)
    where = (within + 0.5) / count[part]
    points = shapely.line_interpolate_point(parts[part], where, normalized=True)
    return shapely.get_coordinates(points), owner[part]


def table(meters: dict[tuple[str, str], float]) -> str:
    """Meters by true kind (rows) and reported kind (columns)."""
    rows = sorted({true for true, _ in meters})
    columns = [kind for kind in KINDS if any(found == kind for _, found in meters)]
    text = [" " * 14 + "".join(f"{kind:>14}" for kind in columns)]
    for true in rows:
        cells = "".join(f"{meters.get((true, kind), 0):14.1f}" for kind in columns)
        text.append(f"{true:14}{cells}")
    return "\n".join(text)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--street-m", type=float, default=300.0)
    parser.add_argument("--streets", type=int, default=1)
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args()
    size = LARGE if given.large else {"street_m": given.street_m, "streets": given.streets}
    for seed in given.seeds[: 1 if given.large else None]:
        drawn = second_epoch(seed, **size)
        cpu, wall = time.process_time(), time.monotonic()
        before_mb = _peak_mb()
        result = compare(drawn.old, drawn.new, CompareOptions())
        cost = f"{time.process_time() - cpu:.1f} s CPU, {time.monotonic() - wall:.1f} s, "
        cost += f"peak {_peak_mb():.0f} MB ({before_mb:.0f} MB before)"
        count = f"{len(drawn.old.cracks)} and {len(drawn.new.cracks)} cracks"
        print(f"seed {seed}: {count}, {drawn.old.length_m:.0f} and {drawn.new.length_m:.0f} m")
        print(f"  {cost}")
        if not given.large:
            found = score(drawn, result)
            print(f"  {found}\n{table(found.meters)}")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

"""Draw one city as two surveys see it, and map both: true masks, then the usual way to a map.

Cracks stay, grow, widen, are sealed in part or as a whole, and appear; networks grow, appear and
go. The old survey lies 15 cm and .1 degree off, was taken in other light over other stains, and
each survey misses the end of a street. As maps for `wpcrack compare`:

    python -m benchmarks.compare_city --seed 0 --out drawn [--mask spoiled]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import shapely

import geo
from benchmarks.compare_draw import FATES, Drawn, Stretch, cut
from benchmarks.mask_errors import with_errors
from geo.compare.maps import read_map
from geo.options import AssembleOptions, MapRules, RoadOptions
from jobs.demo.draw import city_grid
from wpcrack.synthetic import City, CityConfig, TrueCrack, draw_city
from wpcrack.synthetic.furniture import furnish
from wpcrack.synthetic.surface import draw_style

Float64 = npt.NDArray[np.float64]

NETWORK_FATES = {"unchanged": 0.4, "grown": 0.3, "new": 0.15, "gone": 0.15}
YOUNG_SHARE = 0.55
"""Share of the lines of a network that grew which were there before: the inner ones."""
MORE_M, MOST = (0.2, 1.5), 0.6
"""What a crack grew by, and its largest share of it."""
LEFT = (0.3, 0.7)
"""Share of a crack that is left when it is sealed in part."""
WIDE_MM, WIDER = 12.0, (1.8, 5.0)
"""Mean width of a crack before it widens: one that can be measured at 5 mm; factor and mm."""
HANGS_PX = 1.5
"""A side branch begins so near to its parent."""
SHIFT_M, TURN_DEG = 0.15, 0.1
UNSEEN = {"old": (0.92, 1.0), "new": (0.0, 0.06)}
"""Shares of the main street without imagery."""
PROBABILITY = 0.8
DATES = {"old": date(2024, 5, 6), "new": date(2026, 5, 4)}


@dataclass(frozen=True, eq=False)
class Epoch:
    """What one survey shows: gray (H, W) with 0 = no imagery, its mask (H, W)."""

    name: str
    city: City
    gray: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Epochs:
    """Two surveys of a city; the truth lies where the new one lies, in pixels."""

    seed: int
    old: Epoch
    new: Epoch
    truth: list[Stretch]
    error: Displacement


class Displacement:
    """Where the old survey has what truly lies at a pixel, or at a place of the world."""

    def __init__(self, rng: np.random.Generator, city: City) -> None:
        self._grid, self._center = city_grid(city), np.array(city.shape[::-1]) / 2
        angle = rng.uniform(0, 2 * np.pi)
        self._shift = SHIFT_M / city.gsd_m * np.array([np.cos(angle), np.sin(angle)])
        self._turn = np.radians(TURN_DEG) * rng.choice([-1, 1])

    def pixels(self, points: Float64) -> Float64:
        """Move pixels (N, 2)."""
        lever = points - self._center
        turned = np.column_stack((-lever[:, 1], lever[:, 0]))
        return np.asarray(points + self._shift + self._turn * turned)

    def __call__(self, xy: Float64) -> Float64:
        """Move places (N, 2)."""
        return self._grid.to_world(self.pixels(self._grid.to_pixel(xy)))


def draw_epochs(seed: int) -> Epochs:
    """Draw a city and what happens to it; another seed draws another one."""
    rng = np.random.default_rng([seed, 19])
    city = draw_city(CityConfig(), int(rng.integers(2**31)))
    moved = Displacement(rng, city)
    old, new, truth = two_epochs(rng, city)
    old = [replace(one, points_px=moved.pixels(one.points_px)) for one in old]
    before, after = _epoch(rng, "old", city, old), _epoch(rng, "new", city, new)
    return Epochs(seed, before, after, truth, moved)


def map_epochs(drawn: Epochs, folder: Path, mask: str = "perfect") -> Drawn:
    """Write old.gpkg and new.gpkg into a folder, and read them as a comparison does.

    Args:
        drawn: the two epochs.
        folder: that exists.
        mask: perfect, or spoiled by the errors of a detector.
    """
    for number, epoch in enumerate((drawn.old, drawn.new)):
        shown = epoch.mask
        if mask == "spoiled":
            city, seed = epoch.city, 1000 + 2 * drawn.seed + number
            shown = with_errors(shown, epoch.gray > 0, city.cracks, city.gsd_m, seed)
        _map(replace(epoch, mask=shown), folder / f"{epoch.name}.gpkg")
    city, grid = drawn.new.city, city_grid(drawn.new.city)
    return Drawn(
        old=read_map(folder / "old.gpkg").survey,
        new=read_map(folder / "new.gpkg").survey,
        truth=[replace(one, line=grid.to_world(one.line)) for one in drawn.truth],
        streets=[shapely.LineString(grid.to_world(s.centerline_px)) for s in city.streets],
        error=drawn.error,
    )


def two_epochs(
    rng: np.random.Generator, city: City
) -> tuple[list[TrueCrack], list[TrueCrack], list[Stretch]]:
    """Return the lines of the old and of the new survey, and the truth in pixels."""
    old: list[TrueCrack] = []
    new: list[TrueCrack] = []
    truth: list[Stretch] = []
    number = np.array([crack.crack_id for crack in city.cracks])
    for crack_id in np.unique(number):
        lines = [crack for crack in city.cracks if crack.crack_id == crack_id]
        is_network = lines[0].kind == "alligator"
        fates = NETWORK_FATES if is_network else FATES
        fate = str(rng.choice(list(fates), p=list(fates.values())))
        if is_network:
            before, after = _network(lines, fate)
            truth += [Stretch("network", line.points_px, fate) for line in lines]
        else:
            before, after, found = _crack(rng, lines, fate, city.gsd_m)
            truth += found
        old += before
        new += after
    return old, new, truth


def _network(lines: list[TrueCrack], fate: str) -> tuple[list[TrueCrack], list[TrueCrack]]:
    if fate in ("new", "gone"):
        return ([], lines) if fate == "new" else (lines, [])
    if fate == "unchanged":
        return lines, lines
    middles = np.array([line.points_px.mean(axis=0) for line in lines])
    away = np.hypot(*(middles - middles.mean(axis=0)).T)
    inner = away <= np.quantile(away, YOUNG_SHARE)
    return [line for line, is_old in zip(lines, inner, strict=True) if is_old], lines


def _crack(
    rng: np.random.Generator, lines: list[TrueCrack], fate: str, gsd_m: float
) -> tuple[list[TrueCrack], list[TrueCrack], list[Stretch]]:
    if fate in ("grown", "shrunk"):
        return _longer_or_shorter(rng, lines, fate, gsd_m)
    truth = [Stretch(fate, line.points_px, fate) for line in lines]
    if fate == "widened":
        mean = np.average(np.concatenate([line.width_px for line in lines])) * 1000 * gsd_m
        scale = max(1.0, WIDE_MM / mean)
        lines = [replace(line, width_px=line.width_px * scale) for line in lines]
        factor, more = WIDER[0], WIDER[1] / (1000 * gsd_m)
        return lines, [replace(one, width_px=one.width_px * factor + more) for one in lines], truth
    return ([] if fate == "new" else lines), ([] if fate == "gone" else lines), truth


def _longer_or_shorter(
    rng: np.random.Generator, lines: list[TrueCrack], fate: str, gsd_m: float
) -> tuple[list[TrueCrack], list[TrueCrack], list[Stretch]]:
    """Cut the longest line; side branches on what is cut off are cracks that appeared or went."""
    lengths = [float(np.hypot(*np.diff(line.points_px, axis=0).T).sum()) for line in lines]
    main = int(np.argmax(lengths))
    total = lengths[main]
    more = min(rng.uniform(*MORE_M) / gsd_m, MOST * total)
    first = more * rng.choice([0.0, 1.0, 0.5], p=[0.4, 0.4, 0.2])
    low, high = first, total - (more - first)
    if fate == "shrunk":
        low, high = 0.0, total * rng.uniform(*LEFT)
    ends = ((0.0, low), (high, total))
    cut_off = [cut(lines[main].points_px, *end) for end in ends if end[1] > end[0]]
    side = [line for k, line in enumerate(lines) if k != main]
    gone: list[TrueCrack] = []
    while hanging := [s for s in side if _hangs(s, cut_off + [one.points_px for one in gone])]:
        gone += hanging
        side = [line for line in side if not any(line is one for one in hanging)]
    smaller = [_cut_crack(lines[main], low, high), *side]
    truth = [Stretch("unchanged", line.points_px, fate) for line in smaller]
    truth += [Stretch(fate, points, fate) for points in cut_off]
    apart = "new" if fate == "grown" else "gone"
    truth += [Stretch(apart, line.points_px, fate) for line in gone]
    return (smaller, lines, truth) if fate == "grown" else (lines, smaller, truth)


def _hangs(line: TrueCrack, removed: Sequence[Float64]) -> bool:
    """Return whether a side branch begins on something that is not there."""
    points = np.vstack(removed)
    return bool(np.hypot(*(points - line.points_px[0]).T).min() <= HANGS_PX)


def _cut_crack(crack: TrueCrack, low: float, high: float) -> TrueCrack:
    arc = np.append(0.0, np.cumsum(np.hypot(*np.diff(crack.points_px, axis=0).T)))
    inner = arc[(arc > low) & (arc < high)]
    place = np.concatenate(([low], inner, [high]))
    return replace(
        crack,
        points_px=cut(crack.points_px, low, high),
        width_px=np.interp(place, arc, crack.width_px),
        depth=np.interp(place, arc, crack.depth),
    )


def _epoch(rng: np.random.Generator, name: str, city: City, cracks: Sequence[TrueCrack]) -> Epoch:
    """Paint the city with these cracks, in a light and with stains of its own."""
    streets = []
    for street in city.drawn:
        own = {crack.crack_id for crack in street.cracks}
        style = draw_style(rng, street.style.material)
        furniture = furnish(rng, street.axis, style, street.config.furniture)
        lines = tuple(crack for crack in cracks if crack.crack_id in own)
        streets.append(replace(street, style=style, furniture=furniture, cracks=lines))
    shown = replace(city, drawn=tuple(streets))
    gray, mask = np.zeros(city.shape, np.uint8), np.zeros(city.shape, bool)
    size = city.config.tile_px
    for tile in shown.tiles():
        here = np.s_[tile.row_off : tile.row_off + size, tile.col_off : tile.col_off + size]
        gray[here] = np.rint(tile.image.mean(axis=2, dtype=np.float32))
        mask[here] = tile.mask
    low, high = (round(share * city.shape[1]) for share in UNSEEN[name])
    gray[:size, low:high] = 0
    return Epoch(name, shown, gray, mask & (gray > 0))


def _map(epoch: Epoch, package: Path) -> Path:
    """Make the map of an epoch, with widths from its imagery and segments of 10 m."""
    grid = city_grid(epoch.city)
    roads = package.with_name("roads.gpkg")
    streets = epoch.city.streets
    lines = [shapely.LineString(grid.to_world(s.centerline_px)) for s in streets]
    columns = {"name": [s.name for s in streets], "width": [s.width_m for s in streets]}
    geopandas.GeoDataFrame(columns, geometry=lines, crs=grid.crs).to_file(roads)
    probability = np.where(epoch.mask, PROBABILITY, 0.0).astype(np.float32)
    geo.make_map(
        *(probability, grid.transform, grid.crs, package),
        valid=epoch.gray > 0,
        image=epoch.gray,
        options=map_options(epoch.name, roads),
    )
    return package


def map_options(name: str, roads: Path) -> AssembleOptions:
    """Return how the map of an epoch is made."""
    return AssembleOptions.of(
        MapRules(survey_date=DATES[name]),
        roads=RoadOptions(path=roads, width="width", name="name", section_m=10.0),
        model="drawn",
        run_id=f"drawn {name}",
    )


def main() -> None:
    """Write two drawn maps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mask", choices=["perfect", "spoiled"], default="perfect")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    map_epochs(draw_epochs(given.seed), given.out, given.mask)


if __name__ == "__main__":
    main()

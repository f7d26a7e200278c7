"""The grid of a job, and where tiles lie on it: the CRS, pixel size and corners that most have."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import geopandas
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely.geometry import Point, Polygon

from geo.errors import InputError
from geo.grid import Grid, Window
from geo.imagery.headers import (
    ListedTile,
    Tile,
    TileProblem,
    crs_name,
    horizontal,
    same_crs,
)
from geo.imagery.scale import MOST_ERROR, is_metric, length_error
from geo.imagery.warp import transformer

PIXEL_SIZE_TOLERANCE = 1e-6
"""Relative difference up to which two pixel sizes are one."""

ALIGNMENT_PX = 0.05
"""Distance of a tile's corners from the common pixel corners that is still called aligned."""

SIGNIFICANT_DIGITS = 3
"""Pixel sizes are compared, and chosen where no tile gives one, with this many digits."""

MOST_RESAMPLING = 3.0
"""Imagery is brought to pixels that are larger or smaller by this factor at most: beyond it larger
ones average thin cracks away, and smaller ones show no more, at ten times the work."""

EDGE_POINTS = 8
"""An edge is followed through this many points into another CRS."""

INDEX_SLACK = 0.02
"""A tile may reach beyond its footprint in an index by this share of its side, and 2 pixels."""

SNAP_PX = ALIGNMENT_PX
"""Bounds this close to a pixel corner lie on it."""

UNDEFINED = "lies where the map's coordinate system is not defined; give another crs="

UTM_LATITUDE = 84.0
"""Beyond it there are no zones, but one system around each pole."""

POLAR = (32761, 32661)
"""EPSG codes of UPS, south and north."""

T = TypeVar("T")


@dataclass(frozen=True)
class Placement:
    """A tile and the window of the grid that it covers, or that an index says it covers."""

    tile: Tile | ListedTile
    window: Window

    @property
    def reach(self) -> Window:
        """The window beyond which nothing of the tile is seen."""
        if isinstance(self.tile, Tile):
            return self.window
        rows = round(INDEX_SLACK * self.window.height) + 2
        cols = round(INDEX_SLACK * self.window.width) + 2
        return self.window.pad(rows, cols)

    def allows(self, window: Window) -> bool:
        """Return whether the tile may really have a window: what else it shows is never seen."""
        if self.reach.intersection(window) == window:
            return True
        in_fact = replace(self, window=window).reach
        is_part = isinstance(self.tile, ListedTile) and self.tile.valid_only
        return is_part and in_fact.intersection(self.window) == self.window


def common_grid(tiles: Sequence[Tile], crs: CRS | None, gsd_m: float | None) -> Grid:
    """Choose the grid on which most pixels lie already; its origin and shape are of no meaning.

    Counted are pixels, not files, so that the choice does not depend on how an area is cut into
    files. Without a metric CRS in most of the imagery it is the UTM zone of the tiles' middle.

    Args:
        tiles: at least one.
        crs: the job's, if the user chose one.
        gsd_m: pixel size in meters, if it was chosen; pixels are then square and north is up,
            unless most of the imagery has this size anyway.
    """
    chosen = crs or _crs_of_most(tiles)
    own = [tile for tile in tiles if same_crs(tile.crs, chosen)]
    if own:
        reference = _reference(own)
        wanted = reference.gsd_m if gsd_m is None else gsd_m
        if math.isclose(wanted, reference.gsd_m, rel_tol=PIXEL_SIZE_TOLERANCE):
            return reference.grid
    else:
        wanted = gsd_m or _gsd_of_most(tiles, chosen)
    if not math.isfinite(wanted):
        raise InputError(
            f"{crs_name(chosen)} is not defined where most tiles lie; give another crs="
        )
    side = wanted / float(chosen.linear_units_factor[1])
    return Grid(Affine(side, 0, 0, 0, -side, 0), chosen, (1, 1))


def job_crs(crs: str | CRS) -> CRS:
    """Read the CRS that a user asks for.

    Raises:
        InputError: it is none, or lengths cannot be measured in it.
    """
    try:
        parsed = horizontal(CRS.from_user_input(crs))
    except ValueError as error:
        raise InputError(f"crs={crs} is not a coordinate system; give e.g. EPSG:25832") from error
    if not parsed.is_projected:
        raise InputError(f"crs={crs} is not projected; give a system in meters, e.g. EPSG:25832")
    if not is_metric(parsed):
        raise InputError(f"crs={crs} is Web Mercator, which distorts lengths; give e.g. a UTM zone")
    return parsed


def require_true_lengths(crs: CRS, tiles: Sequence[Tile]) -> None:
    """Refuse a system that a user asks for, but whose lengths are false where most tiles lie.

    Raises:
        InputError: they are off by more than `MOST_ERROR`.
    """
    error = float(np.median(_errors(crs, tiles)))
    if math.isfinite(error) and abs(error) > MOST_ERROR:
        raise InputError(
            f"crs={crs_name(crs)} shows lengths {false_by(error)} where the tiles lie; leave crs= "
            f"out for {crs_name(_utm(tiles))}, or give another system"
        )


def require_near_pixels(grid: Grid, tiles: Sequence[Tile]) -> None:
    """Refuse a grid whose pixels have quite another size than those of most of the imagery.

    Raises:
        InputError: they differ by more than `MOST_RESAMPLING`.
    """
    own = _gsd_of_most(tiles, grid.crs)
    if math.isfinite(own) and (factor := resampling(own, grid.gsd_m)) > MOST_RESAMPLING:
        raise InputError(
            f"the pixels of the map would have {1000 * grid.gsd_m:.3g} mm, and most of the imagery "
            f"has {1000 * own:.3g} mm: that is {factor:g} x, and imagery is resampled by at "
            f"most {MOST_RESAMPLING:g} x; leave gsd_mm out, or set one that is nearer"
        )


def resampling(one: float, other: float) -> float:
    """Return the factor between two pixel sizes, at least 1, with the digits of `round_gsd`.

    >>> resampling(0.005, 0.02), resampling(0.01, 0.01 / 3)
    (4.0, 3.0)
    """
    return round_gsd(max(one, other) / min(one, other))


def false_by(error: float) -> str:
    """Say how lengths are off.

    >>> false_by(0.553), false_by(-0.02)
    ('55.3 % too long', '2.0 % too short')
    """
    return f"{abs(error):.1%} too {'long' if error > 0 else 'short'}".replace("%", " %")


def _errors(crs: CRS, tiles: Sequence[Tile]) -> NDArray[np.float64]:
    places = [tile.center for tile in tiles]
    if not all(same_crs(tile.crs, crs) for tile in tiles):
        places = [
            transformer(tile.crs, crs).transform(*place)
            for tile, place in zip(tiles, places, strict=True)
        ]
    return length_error(crs, np.array(places, float))


def only_true(placed: Sequence[Placement], grid: Grid) -> tuple[list[Placement], list[TileProblem]]:
    """Part tiles into those that may be measured on a grid, and those too far from its middle."""
    middles = np.array(
        [
            (p.window.col_off + p.window.width / 2, p.window.row_off + p.window.height / 2)
            for p in placed
        ]
    )
    errors = length_error(grid.crs, grid.to_world(middles)) if len(placed) else np.zeros(0)
    kept = [p for p, error in zip(placed, errors, strict=True) if abs(error) <= MOST_ERROR]
    return kept, [
        _too_far(p.tile, grid, float(error))
        for p, error in zip(placed, errors, strict=True)
        if abs(error) > MOST_ERROR
    ]


def _too_far(tile: Tile | ListedTile, grid: Grid, error: float) -> TileProblem:
    outline = tile.footprint if isinstance(tile, ListedTile) else tile.grid.footprint()
    if not math.isfinite(error):
        return TileProblem(tile.path, UNDEFINED, outline, tile.crs)
    reason = (
        f"lies where lengths in {crs_name(grid.crs)} are {false_by(error)}, far from the other "
        "tiles; map it by itself, or correct its position"
    )
    return TileProblem(tile.path, reason, outline, tile.crs)


def place(tile: Tile | ListedTile, grid: Grid) -> Placement | TileProblem:
    """Find a tile's window on the grid of a job; windows may have negative offsets."""
    if isinstance(tile, ListedTile):
        bounds = _bounds(tile.footprint, tile, grid)
    elif offset := aligned_offset(tile, grid):
        return Placement(tile, Window(*offset, *tile.shape))
    else:
        bounds = _bounds(tile.grid.footprint(), tile, grid)
    if bounds is None:
        outline = tile.footprint if isinstance(tile, ListedTile) else tile.grid.footprint()
        return TileProblem(tile.path, UNDEFINED, outline, tile.crs)
    return Placement(tile, bounds)


def hull(placed: Iterable[Placement]) -> Window:
    """Return the smallest window that holds all."""
    edges = [
        (p.window.row_off, p.window.col_off, p.window.row_end, p.window.col_end) for p in placed
    ]
    table = np.array(edges)
    top, left = (int(value) for value in table[:, :2].min(axis=0))
    bottom, right = (int(value) for value in table[:, 2:].max(axis=0))
    return Window(top, left, bottom - top, right - left)


def painting_key(tile: Tile, grid: Grid) -> tuple[float, bytes]:
    """Return a key that sorts the tile to be seen last: smaller pixels, then the later path."""
    return -round_gsd(true_gsd_m(tile, grid.crs)), os.fsencode(tile.path)


def aligned_offset(tile: Tile, grid: Grid) -> tuple[int, int] | None:
    """Return row and column of a tile on a grid that it shares; None if its pixels are others."""
    if not same_crs(tile.crs, grid.crs):
        return None
    own, common = np.array(_pixel(tile.transform)), np.array(_pixel(grid.transform))
    if np.abs(own - common).max() > PIXEL_SIZE_TOLERANCE * np.abs(common).max():
        return None
    row, col = _corner(tile, grid)
    off = max(abs(col - round(col)), abs(row - round(row)))
    return None if off > ALIGNMENT_PX else (round(row), round(col))


def true_gsd_m(tile: Tile, crs: CRS) -> float:
    """Return the side in meters of the square of a pixel's area on the ground.

    Infinite for a tile where the CRS has no values.

    Args:
        tile: a tile in any CRS.
        crs: a metric CRS near the tile.
    """
    if tile.is_true:
        return tile.gsd_m
    rows, cols = tile.shape
    middle = np.array([[cols / 2, rows / 2]]) + np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    x, y = transformer(tile.crs, crs).transform(*tile.grid.to_world(middle).T)
    if not np.isfinite((*x, *y)).all():
        return math.inf
    area = abs((x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0]))
    return math.sqrt(area) * float(crs.linear_units_factor[1])


def round_gsd(gsd_m: float) -> float:
    """Round a pixel size to few digits, so that equal sizes are equal in spite of other systems."""
    return float(f"{gsd_m:.{SIGNIFICANT_DIGITS}g}")


def _crs_of_most(tiles: Sequence[Tile]) -> CRS:
    most = _most(tiles, lambda tile: crs_name(tile.crs))
    own = [tile for tile in tiles if crs_name(tile.crs) == most]
    return own[0].crs if _most(own, lambda tile: tile.is_true) else _utm(tiles)


def _utm(tiles: Iterable[Tile]) -> CRS:
    """Return the UTM zone (WGS 84) of the middle of all tiles."""
    degrees = CRS.from_epsg(4326)
    centers = [
        transformer(tile.crs, degrees).transform(*tile.center) for tile in tiles
    ]  # longitude, latitude
    turned = np.radians([longitude for longitude, _ in centers])
    # A mean of directions: tiles on both sides of 180 degrees are not at 0.
    longitude = math.degrees(math.atan2(np.sin(turned).mean(), np.cos(turned).mean()))
    latitude = float(np.mean([latitude for _, latitude in centers]))
    if not math.isfinite(longitude + latitude):
        raise InputError("the tiles lie where their coordinate system is not defined; give crs=")
    if abs(latitude) > UTM_LATITUDE:
        return CRS.from_epsg(POLAR[latitude > 0])
    estimated = geopandas.GeoSeries([Point(longitude, latitude)], crs=4326).estimate_utm_crs()
    return CRS.from_epsg(estimated.to_epsg())


def _reference(tiles: Sequence[Tile]) -> Tile:
    """Return the first tile with the pixels, and of those with the corners, that most have."""
    common = _most(tiles, _kind)
    alike = [tile for tile in tiles if _kind(tile) == common]
    frame = alike[0].grid
    phase = _most(alike, lambda tile: _phase(tile, frame))
    return next(tile for tile in alike if _phase(tile, frame) == phase)


def _gsd_of_most(tiles: Sequence[Tile], crs: CRS) -> float:
    return _most(tiles, lambda tile: round_gsd(true_gsd_m(tile, crs)))


def _most(tiles: Sequence[Tile], kind: Callable[[Tile], T]) -> T:
    """Return the kind that has the most pixels; of equals the one seen first."""
    pixels: dict[T, int] = {}
    for tile in tiles:
        of = kind(tile)
        assert isinstance(of, Hashable)
        pixels[of] = pixels.get(of, 0) + tile.shape[0] * tile.shape[1]
    return max(pixels, key=lambda of: pixels[of])


def _kind(tile: Tile) -> tuple[str, ...]:
    return tuple(f"{value:.6g}" for value in _pixel(tile.transform))


def _phase(tile: Tile, frame: Grid) -> tuple[int, int]:
    """Return the offset of a tile's pixel corners from a grid's, in tolerances, within a pixel."""
    steps = round(1 / ALIGNMENT_PX)
    row, col = _corner(tile, frame)
    return round(row * steps) % steps, round(col * steps) % steps


def _corner(tile: Tile, grid: Grid) -> tuple[float, float]:
    """Return the row and column of the tile's origin on a grid."""
    col, row = grid.to_pixel(np.array([[tile.transform.c, tile.transform.f]]))[0]
    return float(row), float(col)


def _pixel(transform: Affine) -> tuple[float, float, float, float]:
    a, b, _, d, e, _ = transform[:6]
    return a, b, d, e


def _bounds(outline: Polygon, tile: Tile | ListedTile, grid: Grid) -> Window | None:
    """Return the window around an outline of a tile; None where it has no place on the grid."""
    points = _along(np.asarray(outline.exterior.coords)[:, :2])
    if not same_crs(tile.crs, grid.crs):
        points = np.column_stack(transformer(tile.crs, grid.crs).transform(*points.T))
    if not np.isfinite(points).all():
        return None
    pixels = grid.to_pixel(points)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    left, top = (math.floor(value + SNAP_PX) for value in low)
    right, bottom = (math.ceil(value - SNAP_PX) for value in high)
    return Window(top, left, max(bottom - top, 1), max(right - left, 1))


def _along(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points along a ring: its corners and some between them."""
    steps = np.linspace(0, 1, EDGE_POINTS, endpoint=False)[:, None, None]
    return np.asarray((corners[:-1] * (1 - steps) + corners[1:] * steps).reshape(-1, 2))

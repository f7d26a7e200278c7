"""Cracks, networks and pieces -> rows of the layers crack, network and outline."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geo.arrays import FloatArray, IntArray, Shapes
from geo.cracks.branches import UM, round_half_up
from geo.cracks.collect import UNKNOWN
from geo.cracks.single_rings import SingleRings, a_few_at_once, wkb_of_rings
from geo.grid import Grid
from geo.imagery.headers import crs_name
from geo.layers.classes import D6433_CLASSES, d6433, ltpp, network_severities
from geo.layers.schema import CRACK, NETWORK, OUTLINE
from geo.layers.segments import Assignments
from geo.layers.whole_map import CrackMap, crack_lines, tortuosities
from geo.options import SAME_SIZE, AssembleOptions

Place = Callable[[FloatArray], FloatArray]

ID_DIGITS = 6
"""Decimals of the coordinates that go into an id."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST_SHIFT = np.uint64(31)
"""Constants of SplitMix64."""

ROWS_AT_ONCE = 20_000

AREA_CHANGE = 0.02
"""Largest change of an outline's area by simplification, as a share."""

_SHARES = (1.0, 0.75)
"""Parts of the tolerance that are tried. Half a pixel moves no vertex of a staircase."""


@dataclass(frozen=True, eq=False)
class MapIds:
    """Ids of K cracks and M networks, (K,) and (M,) text."""

    cracks: Shapes
    networks: Shapes

    @classmethod
    def of(cls, found: CrackMap) -> MapIds:
        """Return stable ids: hashes of CRS, pixel size and of the place of the first branch.

        The place is that of the topmost, then leftmost pixel of its piece, and of its own middle.
        No block, tile or mosaic origin is in it, so the same crack keeps its id in another run.
        """
        pieces, first = found.branches.pieces, found.figures.first
        piece, lines = found.branches.piece[first], found.branches.lines
        middle = lines.at(2 * first, lines.lengths[first] // 2) / (UM * found.grid.unit_m)
        corner = pixel_centers(found.grid, pieces.top[piece], pieces.left[piece])
        ids = np.array(place_ids(found.grid, np.column_stack((corner, middle))), object)
        return cls(ids[: found.n_cracks], ids[found.n_cracks :])


def crack_rows(
    found: CrackMap, ids: MapIds, options: AssembleOptions, on_roads: Assignments | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the layer crack: those that are kept.

    Args:
        found: the map.
        ids: of its cracks.
        options: see `AssembleOptions`.
        on_roads: types and segments; None without roads.
    """
    count, figures, widths = found.n_cracks, found.figures, found.widths
    lines = found.lines
    wide = widths.crack_measurable[:count]
    width = widths.crack_mm[:count]
    rules = options.severity

    def claim(values_mm: FloatArray) -> FloatArray:
        fine = values_mm >= rules.measurable_px * figures.gsd_mm
        fine &= figures.gsd_mm <= rules.max_gsd_mm * (1 + SAME_SIZE)
        return np.where(fine, values_mm, np.nan)[:count]

    columns: dict[str, NDArray[Any]] = {
        "crack_id": ids.cracks,
        "length_m": found.length_m,
        "gap_m": found.chains.gap_m,
        "width_mean_mm": claim(widths.crack_mm),
        "width_p95_mm": claim(found.p95_mm),
        "width_max_mm": claim(widths.most_mm),
        "area_m2": found.area_m2[:count],
        "orientation_deg": found.chains.orientation_deg(lines),
        "tortuosity": tortuosities(found),
        "branches": figures.branches[:count],
        "pieces": figures.pieces[:count],
        "type": np.full(count, "unknown", object) if on_roads is None else on_roads.types,
        "severity_d6433": d6433(width, wide, rules),
        "severity_ltpp": ltpp(width, wide, rules),
        **{f"{name}_m": found.meters_by_class(name)[:count] for name in D6433_CLASSES},
        **_common(found, slice(0, count)),
        "segment_id": np.full(count, None) if on_roads is None else on_roads.cracks,
    }
    kept = np.flatnonzero(found.kept)
    for start in range(0, len(kept), ROWS_AT_ONCE):
        chosen = kept[start : start + ROWS_AT_ONCE]
        rows = {name: values[chosen] for name, values in columns.items()}
        shapes = shapely.to_wkb(crack_lines(found, chosen))
        yield CRACK.batch(rows | _of_run(options, len(chosen)) | {"geom": shapes})


def network_rows(
    found: CrackMap, ids: MapIds, options: AssembleOptions, on_roads: Assignments | None = None
) -> pa.RecordBatch:
    """Return the rows of the layer network; arguments as for `crack_rows`."""
    networks, part = found.networks, slice(found.n_cracks, None)
    count = len(networks)
    wide = found.widths.crack_measurable[part]
    width = found.widths.crack_mm[part]
    kinds = np.array(networks.kinds(options.network), object)
    by_width = d6433(width, wide, options.severity)
    density = networks.density_m_per_m2
    unit = found.grid.unit_m
    columns: dict[str, Any] = {
        "network_id": ids.networks,
        "area_m2": networks.area_m2,
        "crack_length_m": networks.crack_length_m,
        "density_m_per_m2": density,
        "cell_m": networks.cell_m,
        "width_mean_mm": np.where(wide, width, np.nan),
        "severity_d6433": network_severities(kinds, density, by_width, options.network),
        "kind": kinds,
        **_common(found, part),
        "segment_id": np.full(count, None) if on_roads is None else on_roads.networks,
        **_of_run(options, count),
        "geom": shapely.to_wkb(shapely.transform(networks.outlines, lambda xy: xy / unit)),
    }
    return NETWORK.batch(columns)


def outline_rows(
    tables: Iterable[pa.Table], found: CrackMap, ids: MapIds, options: AssembleOptions
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the layer outline: pieces of what is kept.

    Args:
        tables: of all pieces, in the order in which their branches were collected.
        found: the map.
        ids: of its cracks and networks.
        options: how outlines are simplified.
    """
    grid, home = found.grid, found.owner_of_pieces()
    count = found.n_cracks
    kept = np.append(found.kept, np.ones(len(found.networks), bool))
    empty = np.array([None], object)
    crack_ids = np.concatenate((ids.cracks, np.repeat(empty, len(found.networks))))
    network_ids = np.concatenate((np.repeat(empty, count), ids.networks))
    before = 0
    for table in tables:
        owner = home[before : before + len(table)]
        before += len(table)
        chosen = np.flatnonzero(owner >= 0)
        chosen = chosen[kept[owner[chosen]]]
        if not len(chosen):
            continue
        pieces, owner = table.take(pa.array(chosen)), owner[chosen]
        n_pixels = pieces["n_pixels"].to_numpy()
        corner = pixel_centers(grid, pieces["top"].to_numpy(), pieces["left"].to_numpy())
        geometry = pieces["geometry"].combine_chunks()
        columns: dict[str, Any] = {
            "outline_id": place_ids(grid, corner),
            "crack_id": crack_ids[owner],
            "network_id": network_ids[owner],
            "area_m2": n_pixels * grid.pixel_area_m2,
            "confidence": pieces["probability_sum"].to_numpy() / (255.0 * n_pixels),
            "geom": world_outlines(geometry, grid, options.simplify_px),
        }
        yield OUTLINE.batch(columns)


def pixel_centers(grid: Grid, row: IntArray, col: IntArray) -> FloatArray:
    """Return (N, 2) x, y of the centers of pixels in the world."""
    return grid.to_world(np.column_stack((col + 0.5, row + 0.5)))


def place_ids(grid: Grid, places: FloatArray) -> list[str]:
    """Return hashes of CRS, pixel size and places (N, K) in the world, as 16 hexadecimal digits.

    A million texts through SHA-256 would take half of the time of a map; whole numbers mixed at
    once, as SplitMix64 does it, take none.
    """
    width, height = grid.pixel_m
    system = f"{crs_name(grid.crs)}|{width:.9g}|{height:.9g}"
    start = int.from_bytes(hashlib.sha256(system.encode()).digest()[:8], "big")
    state = np.full(len(places), start, np.uint64)
    for column in round_half_up(places.T * 10.0**ID_DIGITS).astype(np.uint64):
        state = _mix(state + _GOLDEN ^ _mix(column))
    text = state.astype(">u8").tobytes().hex()
    return [text[at : at + 16] for at in range(0, len(text), 16)]


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix (N,) by the finalizer of SplitMix64 (Steele and others, 2014): one-to-one."""
    for shift, factor in _MIX:
        values = (values ^ (values >> shift)) * factor
    return values ^ (values >> _LAST_SHIFT)


def _common(found: CrackMap, part: slice) -> dict[str, NDArray[Any]]:
    """Return columns that cracks and networks share."""
    figures = found.figures
    touches = figures.touches_nodata[part]
    known = (touches == 1).astype(object)
    known[touches == UNKNOWN] = None
    return {
        "confidence": figures.confidence[part],
        "gsd_mm": figures.gsd_mm[part],
        "touches_nodata": known,
    }


def _of_run(options: AssembleOptions, count: int) -> dict[str, Any]:
    return {
        "verdict": [None] * count,
        "survey_date": [options.survey_date] * count,
        "model": [options.model] * count,
        "run_id": [options.run_id] * count,
    }


def world_outlines(outlines: pa.BinaryArray, grid: Grid, tolerance_px: float) -> Shapes:
    """Simplify pixel outlines, keeping their topology, and place them in the world.

    Args:
        outlines: (N,) MultiPolygons in pixels, as WKB.
        grid: of the pixels.
        tolerance_px: how far an outline may move, pixels; 0 keeps it.

    Returns:
        (N,) WKB.
    """
    if tolerance_px <= 0:
        placed = shapely.transform(_shapes(outlines), grid.to_world)
        return np.asarray(shapely.to_wkb(placed), object)
    some = a_few_at_once(outlines)
    return np.concatenate([simplify(x, tolerance_px, grid.to_world) for x in some])


def _shapes(outlines: pa.BinaryArray) -> Shapes:
    return np.asarray(shapely.from_wkb(outlines.to_numpy(zero_copy_only=False)))


def simplify(outlines: pa.BinaryArray, tolerance: float, place: Place | None = None) -> Shapes:
    """Simplify MultiPolygons on pixel borders; each keeps its polygons, holes, area and validity.

    Nearly all have one ring. GEOS takes twice the time for a polygon, as it looks each time whether
    it is valid; a ring that does not touch itself is, also where rounding moves it.

    Args:
        outlines: (N,) as WKB.
        tolerance: how far an outline may move.
        place: where to put points (N, 2) then; None leaves them.

    Returns:
        (N,) WKB.
    """
    rings = SingleRings.of(outlines)
    lean, is_apart = _simplified_rings(rings, tolerance)
    points = shapely.get_coordinates(lean[is_apart])
    counts = shapely.get_num_coordinates(lean[is_apart])
    done = rings.chosen.copy()
    done[done] = is_apart
    found = np.empty(len(outlines), object)
    found[done] = wkb_of_rings(points if place is None else place(points), counts)
    if not done.all():
        others = _shapes(outlines.filter(pa.array(~done)))
        found[~done] = shapely.to_wkb(_simplified_any(others, tolerance, place))
    return found


def _simplified_rings(rings: SingleRings, tolerance: float) -> tuple[Shapes, NDArray[np.bool_]]:
    """Simplify rings as `_simplify` does polygons; tells which never touched themselves."""
    exact = shapely.linearrings(rings.points, indices=rings.owner)
    lean, area = exact.copy(), _ring_areas(rings.points, rings.owner, len(exact))
    is_apart, left = np.ones(len(exact), bool), np.arange(len(exact))
    for share in _SHARES:
        tried = shapely.simplify(exact[left], share * tolerance, preserve_topology=False)
        is_gone = shapely.get_type_id(tried) == shapely.GeometryType.LINESTRING
        is_apart[left] &= is_gone | shapely.is_simple(tried)
        points, owner = shapely.get_coordinates(tried, return_index=True)
        change = np.abs(_ring_areas(points, owner, len(tried)) - area[left])
        good = change <= AREA_CHANGE * area[left]
        lean[left[good]] = tried[good]
        left = left[~good]
    return lean, is_apart


def _ring_areas(points: FloatArray, owner: IntArray, count: int) -> FloatArray:
    """Return (R,) areas in rings, whose numbers (V,) of points (V, 2) ascend; exact on pixels."""
    x, y = points.T
    twice = np.where(owner[1:] == owner[:-1], (x[1:] + x[:-1]) * np.diff(y), 0)
    return np.asarray(np.abs(np.bincount(owner[1:], twice, count)) / 2)


def _simplified_any(geometry: Shapes, tolerance: float, place: Place | None) -> Shapes:
    """Simplify MultiPolygons of any number of rings.

    The plain algorithm of Douglas and Peucker takes a tenth of the time of the one that preserves
    topology, and preserves it most of the time; the other does what is left. Validity is checked
    where the outlines lie in the end: rounding can push a vertex that touches a line across it.
    What neither can do stays exact (its rings meet in common vertices only).
    """

    def transform(shapes: Shapes) -> Shapes:
        return shapes if place is None else np.asarray(shapely.transform(shapes, place))

    lean = _simplify(geometry, tolerance, preserve_topology=False)
    found = transform(lean)
    torn = ~shapely.is_valid(found) | (_counts(lean) != _counts(geometry)).any(axis=0)
    if torn.any():
        again = transform(_simplify(geometry[torn], tolerance, preserve_topology=True))
        broken = ~shapely.is_valid(again)
        again[broken] = transform(geometry[torn][broken])
        found[torn] = again
    return found


def _simplify(geometry: Shapes, tolerance: float, *, preserve_topology: bool) -> Shapes:
    """Simplify MultiPolygons, each by as much as keeps its area.

    A tolerance of one pixel may add or take a third of a crack that is two pixels wide. Where the
    area changes by more than AREA_CHANGE, smaller tolerances are tried, and none at last.
    """
    lean, area = geometry.copy(), shapely.area(geometry)
    left = np.arange(len(geometry))
    for share in _SHARES:
        tried = shapely.simplify(
            geometry[left], share * tolerance, preserve_topology=preserve_topology
        )
        good = np.abs(shapely.area(tried) - area[left]) <= AREA_CHANGE * area[left]
        lean[left[good]] = tried[good]
        left = left[~good]
    single = np.flatnonzero(shapely.get_type_id(lean) == shapely.GeometryType.POLYGON)
    lean[single] = shapely.multipolygons(lean[single], indices=np.arange(len(single)))
    return lean


def _counts(geometry: Shapes) -> NDArray[np.int64]:
    """Count the polygons and holes (2, N) of each."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    holes = np.bincount(owner, shapely.get_num_interior_rings(parts), minlength=len(geometry))
    return np.stack((np.bincount(owner, minlength=len(geometry)), holes.astype(np.int64)))

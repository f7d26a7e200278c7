"""Tables of whole cracks -> rows of the layers crack and centerline."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from geo.grid import Grid
from geo.imagery.headers import crs_name
from geo.layers.classes import d6433, ltpp, reliable
from geo.layers.schema import CENTERLINE, CRACK, Layer
from geo.layers.segments import RoadSurvey
from geo.options import AssembleOptions

Shapes = NDArray[np.object_]

ID_DIGITS = 6
"""Decimals of the coordinates that go into a crack_id."""

MM = 1000.0

CENTERLINE_NEEDS = ("top", "left", "branches", "n_pixels", "length_m")
"""Columns of the cracks that `large_enough` and `centerline_rows` look at."""

AREA_CHANGE = 0.02
"""Largest change of a crack's area by simplification, as a share."""

_SHARES = (1.0, 0.75)
"""Parts of the tolerance that are tried. Half a pixel moves no vertex of a staircase."""


def crack_rows(
    cracks: pa.Table, grid: Grid, options: AssembleOptions, roads: RoadSurvey | None = None
) -> pa.RecordBatch:
    """Return the rows of the layer crack.

    Args:
        cracks: whole, measured cracks (`geo.cracks.parts.SCHEMA`).
        grid: of the mosaic.
        options: see `AssembleOptions`.
        roads: to which the cracks are added, and which names their type and segment.
    """
    count = len(cracks)
    gsd_mm = MM * np.nan_to_num(cracks["gsd_m"].to_numpy(), nan=grid.gsd_m)
    values = {name: cracks[name].to_numpy() for name in ("n_pixels", "probability_sum", "length_m")}
    area = values["n_pixels"] * grid.pixel_area_m2
    width = MM * area / values["length_m"]
    severity = d6433(width, gsd_mm, options.severity)
    on_roads = None if roads is None else roads.add(cracks, width, severity)
    survey = date.fromisoformat(options.survey_date) if options.survey_date else None
    geometry = shapely.from_wkb(cracks["geometry"].to_numpy())
    columns: dict[str, Any] = {
        "crack_id": crack_ids(grid, cracks["top"].to_numpy(), cracks["left"].to_numpy()),
        "area_m2": area,
        "length_m": values["length_m"],
        "width_mean_mm": width,
        "width_p95_mm": MM * cracks["width_p95_m"].to_numpy(),
        "width_max_mm": MM * cracks["width_max_m"].to_numpy(),
        "orientation_deg": _number_or_null(cracks["orientation_deg"]),
        "tortuosity": _number_or_null(cracks["tortuosity"]),
        "branches": pc.list_value_length(cracks["branches"]),
        "loops": cracks["loops"].to_numpy().astype(np.int64),
        "type": ["unknown"] * count if on_roads is None else on_roads.types,
        "severity_d6433": severity,
        "severity_ltpp": ltpp(width, gsd_mm, options.severity),
        "confidence": values["probability_sum"] / (255.0 * values["n_pixels"]),
        "gsd_mm": gsd_mm,
        "width_reliable": reliable(width, gsd_mm, options.severity),
        "touches_nodata": cracks["touches_nodata"],
        "segment_id": [None] * count if on_roads is None else on_roads.segment_ids,
        "survey_date": [survey] * count,
        "model": [options.model] * count,
        "run_id": [options.run_id] * count,
        "geom": shapely.to_wkb(world_outlines(geometry, grid, options.simplify_px)),
    }
    return _batch(CRACK, columns)


def centerline_rows(cracks: pa.Table, grid: Grid) -> pa.RecordBatch:
    """Return the rows of the layer centerline, the branches of each crack in turn."""
    ids = crack_ids(grid, cracks["top"].to_numpy(), cracks["left"].to_numpy())
    counts = pc.list_value_length(cracks["branches"]).to_numpy()
    branches = cracks["branches"].combine_chunks().flatten()
    owner = np.repeat(np.arange(len(ids)), counts)
    numbers = pa.array(np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner])
    owners = pa.array(ids, pa.string()).take(pa.array(owner))
    lines = shapely.from_wkb(branches.field("line").to_numpy(zero_copy_only=False))
    columns: dict[str, Any] = {
        "centerline_id": _join_names(owners, "-", numbers),
        "crack_id": owners,
        "length_m": branches.field("length_m"),
        "width_mean_mm": MM * branches.field("width_mean_m").to_numpy(),
        "width_max_mm": MM * branches.field("width_max_m").to_numpy(),
        "from_node": _join_names(owners, "-n", branches.field("from_node")),
        "to_node": _join_names(owners, "-n", branches.field("to_node")),
        "geom": shapely.to_wkb(shapely.transform(lines, grid.to_world)),
    }
    return _batch(CENTERLINE, columns)


def large_enough(cracks: pa.Table, grid: Grid, options: AssembleOptions) -> NDArray[np.bool_]:
    """Return (N,) bool: the cracks that reach the smallest area and length."""
    area = cracks["n_pixels"].to_numpy() * grid.pixel_area_m2
    length = cracks["length_m"].to_numpy()
    keep: NDArray[np.bool_] = (area >= options.min_area_m2) & (length >= options.min_length_m)
    return keep


def crack_ids(grid: Grid, top: NDArray[np.int64], left: NDArray[np.int64]) -> list[str]:
    """Return stable ids: hashes of CRS, pixel size and place of the topmost, leftmost pixel.

    No block, tile or mosaic origin is in it, so the same crack keeps its id in another run.
    """
    width, height = grid.pixel_m
    system = f"{crs_name(grid.crs)}|{width:.9g}|{height:.9g}"
    places = grid.to_world(np.column_stack((left + 0.5, top + 0.5)))
    texts = (f"{system}|{x:.{ID_DIGITS}f}|{y:.{ID_DIGITS}f}" for x, y in places)
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]


def world_outlines(geometry: Shapes, grid: Grid, tolerance_px: float) -> Shapes:
    """Simplify pixel outlines, keeping their topology, and place them in the world.

    Validity is checked in world coordinates, where rounding can push a vertex that touches a line
    across it; such an outline stays exact (its rings meet in common vertices only).

    Args:
        geometry: (N,) MultiPolygons in pixels.
        grid: of the pixels.
        tolerance_px: how far an outline may move, pixels; 0 keeps it.
    """
    if tolerance_px <= 0 or not len(geometry):
        return np.asarray(shapely.transform(geometry, grid.to_world))
    placed = shapely.transform(simplify(geometry, tolerance_px), grid.to_world)
    broken = ~shapely.is_valid(placed)
    placed[broken] = shapely.transform(geometry[broken], grid.to_world)
    return np.asarray(placed)


def simplify(geometry: Shapes, tolerance: float) -> Shapes:
    """Simplify MultiPolygons; each keeps its polygons, holes and area, and stays valid.

    A tolerance of one pixel may add or take a third of a crack that is two pixels wide. Where the
    area changes by more than AREA_CHANGE, smaller tolerances are tried, and none at last.
    """
    lean = geometry.copy()
    left = np.arange(len(geometry))
    for share in _SHARES:
        tried = _simplify_shapes(geometry[left], share * tolerance)
        area = shapely.area(geometry[left])
        good = np.abs(shapely.area(tried) - area) <= AREA_CHANGE * area
        lean[left[good]] = tried[good]
        left = left[~good]
    return lean


def _simplify_shapes(geometry: Shapes, tolerance: float) -> Shapes:
    """Simplify MultiPolygons; each keeps its polygons and holes, and stays valid.

    The plain algorithm of Douglas and Peucker takes a tenth of the time of the one that preserves
    topology, and preserves it most of the time; the other does what is left.
    """
    lean: Shapes = shapely.simplify(geometry, tolerance, preserve_topology=False)
    torn = ~shapely.is_valid(lean) | (_counts(lean) != _counts(geometry)).any(axis=0)
    lean[torn] = shapely.simplify(geometry[torn], tolerance, preserve_topology=True)
    single = np.flatnonzero(shapely.get_type_id(lean) == shapely.GeometryType.POLYGON)
    lean[single] = shapely.multipolygons(lean[single], indices=np.arange(len(single)))
    return lean


def _counts(geometry: Shapes) -> NDArray[np.int64]:
    """Count the polygons and holes (2, N) of each."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    holes = np.bincount(owner, shapely.get_num_interior_rings(parts), minlength=len(geometry))
    return np.stack((np.bincount(owner, minlength=len(geometry)), holes.astype(np.int64)))


def _join_names(owners: pa.Array, sign: str, numbers: pa.Array) -> pa.Array:
    """Join owner, sign and number to one text."""
    return pc.binary_join_element_wise(owners, numbers.cast(pa.string()), sign)


def _number_or_null(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(column.to_numpy(), pa.float64(), from_pandas=True)  # nan becomes null


def _batch(layer: Layer, columns: dict[str, Any]) -> pa.RecordBatch:
    schema = layer.arrow()
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)

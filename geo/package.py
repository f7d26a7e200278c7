"""Parts -> one GeoPackage: joined, filtered, simplified, checked, published atomically."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from rasterio.warp import transform as warp
from shapely.geometry import MultiPolygon, Polygon

from geo.geopackage import LayerData, publish
from geo.grid import Grid
from geo.parts import InspectedRow, Part, read_part, write_part
from geo.polygonize import Piece
from geo.schema import CRACK, INSPECTED
from geo.seams import join
from geo.tiles import TileProblem, crs_name

__all__ = ["AssembleOptions", "AssembleReport", "InspectedRow", "assemble", "write_part"]

ID_DIGITS = 6
"""Decimals of the coordinates that go into a crack_id."""


@dataclass(frozen=True)
class AssembleOptions:
    """How parts become cracks.

    Attributes:
        min_area_m2: smaller cracks are dropped, after joining.
        simplify_px: tolerance of the topology-preserving simplification in pixels; 0 keeps the
            pixel outline. The area is measured before.
        model: name of the model, for the attribute.
        run_id: fingerprint of the run, for the attribute.
    """

    min_area_m2: float = 0.0
    simplify_px: float = 1.0
    model: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class AssembleReport:
    """What a GeoPackage holds."""

    path: Path
    n_cracks: int
    area_m2: float
    n_dropped: int
    n_inspected: int


@dataclass(frozen=True, eq=False)
class _Cracks:
    """Columns of finished cracks in pixel coordinates."""

    geometry: NDArray[np.object_]
    n_pixels: NDArray[np.int64]
    probability_sum: NDArray[np.int64]
    top: NDArray[np.int64]
    left: NDArray[np.int64]

    def where(self, keep: NDArray[np.bool_]) -> _Cracks:
        return _Cracks(
            self.geometry[keep],
            self.n_pixels[keep],
            self.probability_sum[keep],
            self.top[keep],
            self.left[keep],
        )


class _Tally:
    """Sums kept while the cracks stream by."""

    def __init__(self) -> None:
        self.kept = 0
        self.dropped = 0
        self.pixels = 0
        self.rows: list[InspectedRow] = []


def assemble(
    parts: Iterable[Path],
    out: Path,
    grid: Grid,
    options: AssembleOptions | None = None,
    *,
    problems: Sequence[TileProblem] = (),
) -> AssembleReport:
    """Write the layers crack and inspected from the parts of all blocks.

    Pieces that touch a seam are held until all parts are read and joined then; the others stream
    through. An existing ``out`` stays until the new file is complete and checked.

    Args:
        parts: files of `write_part`, one per block, in any order.
        out: the GeoPackage.
        grid: of the mosaic.
        options: see `AssembleOptions`.
        problems: tiles left out, to be reported in the layer inspected.

    Raises:
        InputError: a part cannot be read.
        OutputError: ``out`` cannot be written.
    """
    chosen = options or AssembleOptions()
    tally = _Tally()
    cracks = _crack_batches(_finished(sorted(parts), grid, chosen, tally), grid, chosen)
    publish(
        out,
        grid.crs,
        [
            LayerData(CRACK, cracks, lambda: tally.kept),
            LayerData(
                INSPECTED,
                _inspected_batches(tally, problems, grid),
                lambda: len(tally.rows) + len(problems),
            ),
        ],
        metadata={"model": chosen.model, "run_id": chosen.run_id},
    )
    return AssembleReport(
        path=out,
        n_cracks=tally.kept,
        area_m2=tally.pixels * grid.pixel_area_m2,
        n_dropped=tally.dropped,
        n_inspected=len(tally.rows),
    )


def crack_ids(grid: Grid, top: NDArray[np.int64], left: NDArray[np.int64]) -> list[str]:
    """Stable ids: hash of CRS, pixel size and the world place of the topmost, leftmost pixel.

    No block, tile or mosaic origin is in it, so the same crack keeps its id in another run.
    """
    width, height = grid.pixel_m
    system = f"{crs_name(grid.crs)}|{width:.9g}|{height:.9g}"
    places = grid.to_world(np.column_stack((left + 0.5, top + 0.5)))
    texts = (f"{system}|{x:.{ID_DIGITS}f}|{y:.{ID_DIGITS}f}" for x, y in places)
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]


def _finished(
    parts: Sequence[Path], grid: Grid, options: AssembleOptions, tally: _Tally
) -> Iterator[_Cracks]:
    """Whole cracks part by part, then those joined across seams, each batch filtered by area."""
    waiting: list[Piece] = []
    for path in parts:
        part = read_part(path)
        tally.rows.append(part.inspected)
        cut = part.touches_seam
        waiting += [part.piece(int(index)) for index in np.flatnonzero(cut)]
        yield _large_enough(_columns(part).where(~cut), grid, options, tally)
    yield _large_enough(_as_columns(join(waiting)), grid, options, tally)


def _large_enough(cracks: _Cracks, grid: Grid, options: AssembleOptions, tally: _Tally) -> _Cracks:
    keep = cracks.n_pixels * grid.pixel_area_m2 >= options.min_area_m2
    tally.kept += int(keep.sum())
    tally.dropped += int((~keep).sum())
    tally.pixels += int(cracks.n_pixels[keep].sum())
    return cracks.where(keep)


def _columns(part: Part) -> _Cracks:
    return _Cracks(part.geometry, part.n_pixels, part.probability_sum, part.top, part.left)


def _as_columns(pieces: Sequence[Piece]) -> _Cracks:
    return _Cracks(
        np.array([piece.geometry for piece in pieces], dtype=object),
        np.array([piece.n_pixels for piece in pieces], dtype=np.int64),
        np.array([piece.probability_sum for piece in pieces], dtype=np.int64),
        np.array([piece.top for piece in pieces], dtype=np.int64),
        np.array([piece.left for piece in pieces], dtype=np.int64),
    )


def _crack_batches(
    finished: Iterable[_Cracks], grid: Grid, options: AssembleOptions
) -> Iterator[pa.RecordBatch]:
    schema = CRACK.arrow()
    for cracks in finished:
        outlines = world_outlines(cracks.geometry, grid, options.simplify_px)
        count = len(outlines)
        columns: dict[str, Any] = {
            "crack_id": crack_ids(grid, cracks.top, cracks.left),
            "area_m2": cracks.n_pixels * grid.pixel_area_m2,
            "confidence": cracks.probability_sum / (255.0 * cracks.n_pixels),
            "gsd_mm": np.full(count, 1000.0 * grid.gsd_m),
            "model": [options.model] * count,
            "run_id": [options.run_id] * count,
            "geom": shapely.to_wkb(outlines),
        }
        yield pa.record_batch([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def world_outlines(
    geometry: NDArray[np.object_], grid: Grid, tolerance_px: float
) -> NDArray[np.object_]:
    """Simplify pixel outlines, keeping their topology, and place them in the world.

    Validity is checked in world coordinates, where rounding can push a vertex that touches a line
    across it; such an outline stays exact (its rings meet in common vertices only).
    """
    exact: NDArray[np.object_] = shapely.transform(geometry, grid.to_world)
    if tolerance_px <= 0 or not len(geometry):
        return exact
    lean = shapely.simplify(geometry, tolerance_px, preserve_topology=True)
    placed = shapely.transform(lean, grid.to_world)
    kind = shapely.get_type_id(placed) == shapely.GeometryType.MULTIPOLYGON
    return np.where(shapely.is_valid(placed) & kind, placed, exact)


def _inspected_batches(
    tally: _Tally, problems: Sequence[TileProblem], grid: Grid
) -> Iterator[pa.RecordBatch]:
    """Rows of the blocks by id, then of the tiles left out."""
    schema = INSPECTED.arrow()
    rows = [_block_row(row, grid) for row in sorted(tally.rows, key=lambda row: row.block_id)]
    rows += [_tile_row(problem, grid) for problem in problems]
    yield pa.RecordBatch.from_pylist(rows, schema=schema)


def _block_row(row: InspectedRow, grid: Grid) -> dict[str, Any]:
    return {
        "block_id": row.block_id,
        "status": row.status,
        "reason": row.reason or None,
        "tiles_failed": ";".join(row.tiles_failed) or None,
        "valid_pct": row.valid_pct,
        "gsd_mm": row.gsd_mm,
        "survey_date": date.fromisoformat(row.survey_date) if row.survey_date else None,
        "seconds": row.seconds,
        "geom": shapely.to_wkb(MultiPolygon([grid.footprint(row.window)])),
    }


def _tile_row(problem: TileProblem, grid: Grid) -> dict[str, Any]:
    place = _footprint(problem, grid)
    return {
        "status": "failed",
        "reason": problem.reason,
        "tiles_failed": problem.path,
        "geom": None if place is None else shapely.to_wkb(MultiPolygon([place])),
    }


def _footprint(problem: TileProblem, grid: Grid) -> Polygon | None:
    """The footprint of a tile left out, in the mosaic's CRS."""
    if problem.footprint is None or problem.crs is None:
        return None
    x, y = np.array(problem.footprint.exterior.coords).T
    warped = np.column_stack(warp(problem.crs, grid.crs, x, y))
    return Polygon(warped) if np.isfinite(warped).all() else None

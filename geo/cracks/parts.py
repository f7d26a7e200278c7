"""One GeoParquet file per block: its pieces and what was inspected.

Geometries are in mosaic pixel corner coordinates (no CRS): whole numbers, so that pieces of
neighboring blocks fit together exactly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from geo.cracks.measure import MeasuredBranch
from geo.cracks.pieces import Piece
from geo.errors import InputError
from geo.files import whole_file
from geo.grid import Grid, Window
from geo.imagery.coverage import cell_px, encode
from geo.imagery.headers import TileProblem
from geo.imagery.mosaic import Block

Status = Literal["inspected", "partial", "nodata", "failed"]

BRANCH = pa.struct(
    [
        pa.field("line", pa.binary()),
        pa.field("length_m", pa.float64()),
        pa.field("width_mean_m", pa.float64()),
        pa.field("width_max_m", pa.float64()),
        pa.field("from_node", pa.int64()),
        pa.field("to_node", pa.int64()),
    ]
)

MEASURES = ("length_m", "width_p95_m", "width_max_m", "orientation_deg", "tortuosity", "loops")
"""Columns named like the attributes of `Measures`; null for a piece at a seam."""

SCHEMA = pa.schema(
    [
        pa.field("geometry", pa.binary()),
        pa.field("n_pixels", pa.int64()),
        pa.field("probability_sum", pa.int64()),
        pa.field("top", pa.int64()),
        pa.field("left", pa.int64()),
        pa.field("touches_nodata", pa.bool_()),
        pa.field("gsd_m", pa.float64()),
        pa.field("seam_pixels", pa.list_(pa.int64())),
        *(pa.field(name, pa.float64()) for name in MEASURES),
        pa.field("branches", pa.list_(BRANCH)),
    ]
)

UNMEASURED = tuple(name for name in SCHEMA.names if name not in (*MEASURES, "branches"))
"""Columns of a piece at a seam."""

_INSPECTED_KEY = b"wpcrack:inspected"

_GEO_KEY = b"geo"

_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {"encoding": "WKB", "geometry_types": ["MultiPolygon"], "crs": None},
    },
}


@dataclass(frozen=True)
class InspectedRow:
    """What was looked at in one block.

    Attributes:
        block_id: of the block.
        window: of the block on the mosaic's grid.
        status: inspected; partial (a tile failed, the rest was looked at); nodata (no imagery);
            failed (nothing could be read).
        reason: why not wholly inspected; "" if it was.
        tiles_failed: paths of the tiles that failed.
        valid_pct: share of the block's pixels with imagery, percent.
        gsd_mm: pixel size.
        survey_date: ISO date, or None if not configured.
        seconds: time spent.
        coverage: which of it had imagery, see `geo.imagery.coverage.encode`.
    """

    block_id: str
    window: Window
    status: Status
    reason: str
    tiles_failed: tuple[str, ...]
    valid_pct: float
    gsd_mm: float
    survey_date: str | None
    seconds: float
    coverage: str = ""

    @classmethod
    def of(
        cls,
        block: Block,
        valid: NDArray[np.bool_],
        failures: Sequence[TileProblem],
        grid: Grid,
        *,
        seconds: float,
        survey_date: str | None = None,
    ) -> InspectedRow:
        """Describe a block that was read.

        Args:
            block: the block.
            valid: (H, W) bool of the block without halo.
            failures: tiles that failed on reading it.
            grid: the mosaic's grid.
            seconds: time spent on the block.
            survey_date: ISO date of the survey, if known.
        """
        if failures:
            status: Status = "partial" if valid.any() else "failed"
        else:
            status = "inspected" if valid.any() else "nodata"
        reasons = (f"{os.path.basename(p.path)} {p.reason}" for p in failures)
        return cls(
            block_id=block.block_id,
            window=block.window,
            status=status,
            reason="no imagery here" if status == "nodata" else "; ".join(reasons),
            tiles_failed=tuple(problem.path for problem in failures),
            valid_pct=100.0 * float(valid.mean()),
            gsd_mm=1000.0 * grid.gsd_m,
            survey_date=survey_date,
            seconds=seconds,
            coverage=encode(valid, block.window, cell_px(grid)),
        )

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> InspectedRow:
        """Return the inverse of `dataclasses.asdict`, also of what JSON makes of that."""
        window, failed = Window(**row["window"]), tuple(row["tiles_failed"])
        return cls(**{**row, "window": window, "tiles_failed": failed})

    @property
    def valid_px(self) -> int:
        """Number of the block's pixels with imagery."""
        return round(self.valid_pct / 100 * self.window.area_px)


@dataclass(frozen=True, eq=False)
class Part:
    """A part read back: the table of its pieces (`geo.cracks.parts.SCHEMA`) and its row."""

    pieces: pa.Table
    inspected: InspectedRow

    @property
    def n_pixels(self) -> NDArray[np.int64]:
        """(N,) number of pixels of each piece."""
        counts: NDArray[np.int64] = self.pieces["n_pixels"].to_numpy()
        return counts


def write_part(path: Path, pieces: Sequence[Piece], inspected: InspectedRow) -> None:
    """Write a block's pieces and its row; the file appears complete or not at all."""
    metadata = {
        _GEO_KEY: json.dumps(_GEO).encode(),
        _INSPECTED_KEY: json.dumps(asdict(inspected)).encode(),
    }
    table = to_table(pieces).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_part(path: Path, columns: Sequence[str] | None = None) -> Part:
    """Read a part back.

    Args:
        path: of `write_part`.
        columns: of its pieces that are wanted; None: all.

    Raises:
        InputError: the file is missing, damaged or no part.
    """
    try:
        wanted = pa.schema([SCHEMA.field(name) for name in columns or SCHEMA.names])
        table = pq.read_table(path, columns=wanted.names, partitioning=None, use_threads=False)
        row = json.loads(table.schema.metadata[_INSPECTED_KEY])
        pieces = table.select(wanted.names).cast(wanted)
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a readable part ({error}); compute it again") from error
    return Part(pieces, InspectedRow.of_row(row))


def to_table(pieces: Sequence[Piece]) -> pa.Table:
    """Make a table (`SCHEMA`) of pieces; geometries as WKB in mosaic pixel coordinates."""
    columns: dict[str, Any] = {
        "geometry": shapely.to_wkb(np.array([p.geometry for p in pieces], dtype=object)),
        "n_pixels": [p.n_pixels for p in pieces],
        "probability_sum": [p.probability_sum for p in pieces],
        "top": [p.top for p in pieces],
        "left": [p.left for p in pieces],
        "touches_nodata": [p.touches_nodata for p in pieces],
        "gsd_m": [p.gsd_m for p in pieces],
        "seam_pixels": [p.seam_pixels.ravel() for p in pieces],
        "branches": _branches(pieces),
    }
    for name in MEASURES:
        columns[name] = [None if p.measures is None else getattr(p.measures, name) for p in pieces]
    return pa.table(columns, schema=SCHEMA)


def _branches(pieces: Sequence[Piece]) -> pa.Array:
    """Return one list of branches per piece, null where it is not measured."""
    known = [p.measures is not None for p in pieces]
    groups = [p.measures.branches if p.measures else () for p in pieces]
    flat: list[MeasuredBranch] = [branch for group in groups for branch in group]
    vertices = np.concatenate([branch.line for branch in flat] or [np.empty((0, 2))])
    counts = np.array([len(branch.line) for branch in flat], dtype=np.int64)
    lines = shapely.linestrings(vertices, indices=np.repeat(np.arange(len(flat)), counts))
    children = [pa.array(shapely.to_wkb(lines), pa.binary())]
    for field in list(BRANCH)[1:]:
        children.append(pa.array([getattr(branch, field.name) for branch in flat], field.type))
    values = pa.StructArray.from_arrays(children, fields=list(BRANCH))
    offsets = np.concatenate(([0], np.cumsum([len(group) for group in groups]))).astype(np.int32)
    unknown = pa.array([not k for k in known], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=unknown)


def to_pieces(table: pa.Table) -> list[Piece]:
    """Make unmeasured pieces of a table, to be joined."""
    geometry = shapely.from_wkb(table["geometry"].to_numpy())
    columns = ("n_pixels", "probability_sum", "top", "left", "touches_nodata", "gsd_m")
    seams = (np.array(s, np.int64).reshape(-1, 2) for s in table["seam_pixels"].to_pylist())
    rows = zip(geometry, seams, *(table[name].to_pylist() for name in columns), strict=True)
    return [
        Piece(outline, n, total, top, left, seam, beside, gsd_m=gsd)
        for outline, seam, n, total, top, left, beside, gsd in rows
    ]

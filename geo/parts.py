"""One GeoParquet file per block: its pieces and what was inspected, written atomically.

Geometries are in mosaic pixel corner coordinates (no CRS): whole numbers, so that pieces of
neighboring blocks fit together exactly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geo.coverage import cell_px, encode
from geo.errors import InputError
from geo.grid import Grid, Window
from geo.mosaic import Block, TileProblem
from geo.piece_table import SCHEMA, to_table
from geo.polygonize import Piece

Status = Literal["inspected", "partial", "nodata", "failed"]

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
        coverage: which of it had imagery, see `geo.coverage.encode`.
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


def write_part(path: Path, pieces: Sequence[Piece], inspected: InspectedRow) -> None:
    """Write a block's pieces and its row; the file appears complete or not at all."""
    metadata = {
        _GEO_KEY: json.dumps(_GEO).encode(),
        _INSPECTED_KEY: json.dumps(asdict(inspected)).encode(),
    }
    table = to_table(pieces).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, temporary, compression="zstd")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class Part:
    """A part read back: the table of its pieces (`geo.piece_table.SCHEMA`) and its row."""

    pieces: pa.Table
    inspected: InspectedRow

    @property
    def n_pixels(self) -> NDArray[np.int64]:
        """(N,) number of pixels of each piece."""
        counts: NDArray[np.int64] = self.pieces["n_pixels"].to_numpy()
        return counts


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
    window, failed = Window(**row.pop("window")), tuple(row.pop("tiles_failed"))
    return Part(pieces, InspectedRow(window=window, tiles_failed=failed, **row))

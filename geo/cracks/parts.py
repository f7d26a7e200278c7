"""One GeoParquet file per block: its pieces and what was inspected.

Geometries are in mosaic pixel corner coordinates (no CRS): whole numbers, so that pieces of
neighboring blocks fit together exactly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import shapely.geometry
from affine import Affine
from numpy.typing import NDArray
from pydantic import TypeAdapter
from rasterio.features import shapes

from geo.cracks.part_check import check_pieces
from geo.cracks.piece_table import SCHEMA, to_table
from geo.cracks.pieces import Piece
from geo.errors import InputError, first_line
from geo.files import whole_file
from geo.grid import Grid, Window
from geo.imagery.coverage import cell_px, encode, is_coverage
from geo.imagery.headers import TileProblem
from geo.imagery.mosaic import Block

Status = Literal["inspected", "partial", "nodata", "failed"]

LARGEST_BLOCK_PX = 2**16
"""No block has a longer side; a damaged number could ask for any memory."""

PERCENT = 100.0001
"""Of a share in percent, with what rounding adds."""

FOOTPRINT_PX = 1.0
"""Tolerance of the outline of imagery."""

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
        seconds: time spent.
        coverage: which of it had imagery, see `geo.imagery.coverage.encode`.
        footprint: the same as WKB in mosaic pixel coordinates, hexadecimal; "" for the whole
            block or nothing.
        thumbnail: of it in the picture of a large map, see `geo.imagery.thumbnails`; else "".
    """

    block_id: str
    window: Window
    status: Status
    reason: str
    tiles_failed: tuple[str, ...]
    valid_pct: float
    gsd_mm: float
    seconds: float
    coverage: str = ""
    footprint: str = ""
    thumbnail: str = ""

    @classmethod
    def of(
        cls,
        block: Block,
        valid: NDArray[np.bool_],
        failures: Sequence[TileProblem],
        grid: Grid,
        *,
        seconds: float,
    ) -> InspectedRow:
        """Describe a block that was read.

        Args:
            block: the block.
            valid: (H, W) bool of the block without halo.
            failures: tiles that failed on reading it.
            grid: the mosaic's grid.
            seconds: time spent on the block.
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
            seconds=seconds,
            coverage=encode(valid, block.window, cell_px(grid)),
            footprint=_footprint(valid, block.window),
        )

    @classmethod
    def of_failure(
        cls,
        block: Block,
        reason: str,
        grid: Grid,
        *,
        seconds: float = 0.0,
    ) -> InspectedRow:
        """Describe a block of which nothing could be looked at; arguments as for `of`."""
        return cls(
            block_id=block.block_id,
            window=block.window,
            status="failed",
            reason=reason,
            tiles_failed=(),
            valid_pct=0.0,
            gsd_mm=1000.0 * grid.gsd_m,
            seconds=seconds,
        )

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> InspectedRow:
        """Return the inverse of `dataclasses.asdict`, also of what JSON makes of that.

        Raises:
            ValueError: it is something else, or says what no block can be.
        """
        read = _row_reader().validate_python(row)
        sides = (read.window.height, read.window.width)
        numbers = (read.valid_pct, read.gsd_mm, read.seconds)
        if not 0 < min(sides) <= max(sides) <= LARGEST_BLOCK_PX or not all(map(isfinite, numbers)):
            raise ValueError(f"no block of {sides[0]} x {sides[1]} pixels has such figures")
        if not 0 <= read.valid_pct <= PERCENT or read.gsd_mm <= 0:
            raise ValueError("no block has such figures")
        if read.coverage and not is_coverage(read.coverage, read.window):
            raise ValueError("its coverage is damaged")
        try:
            if read.footprint:
                read.imagery()
        except shapely.errors.ShapelyError as error:
            raise ValueError(f"its footprint is damaged ({error})") from error
        return read

    def failures(self) -> dict[str, str]:
        """Return the reason of each tile that failed by its path; of the block by its name.

        Of a tile that failed the reason begins with the tile's name, which parts the reasons.
        """
        if not self.tiles_failed:
            return {f"block {self.block_id}": self.reason} if self.status == "failed" else {}
        found, rest = {}, self.reason
        for path, following in pairwise(self.tiles_failed):
            name = f"{os.path.basename(following)} "
            found[path], _, rest = rest.partition(f"; {name}")
            rest = name + rest
        return found | {self.tiles_failed[-1]: rest}

    def brief(self) -> InspectedRow:
        """Return the row without what is large and lies in the part."""
        return replace(self, coverage="", footprint="", thumbnail="")

    def imagery(self) -> shapely.MultiPolygon | None:
        """Return where it had imagery, in mosaic pixel coordinates; None if nowhere."""
        if self.footprint:
            return shapely.from_wkb(bytes.fromhex(self.footprint))
        return shapely.MultiPolygon([self.window.polygon()]) if self.valid_pct else None

    @property
    def valid_px(self) -> int:
        """Number of the block's pixels with imagery."""
        return round(self.valid_pct / 100 * self.window.area_px)


@dataclass(frozen=True, eq=False)
class Part:
    """A part read back: the table of its pieces (`piece_table.SCHEMA`) and its row."""

    pieces: pa.Table
    inspected: InspectedRow

    @property
    def n_pixels(self) -> NDArray[np.int64]:
        """(N,) number of pixels of each piece."""
        counts: NDArray[np.int64] = self.pieces["n_pixels"].to_numpy()
        return counts


class DamagedPart(InputError):
    """A part that is not what its block wrote; its file is `path`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is not a readable part ({reason}); compute it again")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[DamagedPart], tuple[Path, str]]:
        """Travel between processes."""
        return DamagedPart, (self.path, self.reason)


_DAMAGE = (
    OSError,
    pa.ArrowException,
    KeyError,
    TypeError,
    ValueError,
    RecursionError,
    AttributeError,
    shapely.errors.ShapelyError,
)
"""What reading a damaged part may raise."""


@cache
def _row_reader() -> TypeAdapter[InspectedRow]:
    return TypeAdapter(InspectedRow)


def _footprint(valid: NDArray[np.bool_], window: Window) -> str:
    """Return the outline of imagery (H, W), right to a pixel; "" for all or nothing."""
    if valid.all() or not valid.any():
        return ""
    place = Affine.translation(window.col_off, window.row_off)
    found = shapes(valid.astype(np.uint8), valid, connectivity=4, transform=place)
    areas = [shapely.geometry.shape(area) for area, _ in found]
    lean = shapely.simplify(shapely.union_all(areas), FOOTPRINT_PX)
    parts = [part for part in shapely.get_parts(lean) if part.area > 0]
    return str(shapely.to_wkb(shapely.MultiPolygon(parts), hex=True))


def write_part(path: Path, pieces: Sequence[Piece], inspected: InspectedRow) -> None:
    """Write a block's pieces and its row; the file appears complete or not at all.

    Args:
        path: of the file; its folder exists.
        pieces: of the block.
        inspected: its row.
    """
    write_table(path, to_table(pieces), inspected)


def write_table(path: Path, pieces: pa.Table, inspected: InspectedRow) -> None:
    """Write pieces that are a table (`SCHEMA`) already, as `write_part` does."""
    metadata = {
        _GEO_KEY: json.dumps(_GEO).encode(),
        _INSPECTED_KEY: json.dumps(asdict(inspected)).encode(),
    }
    described = pieces.replace_schema_metadata(metadata)
    with whole_file(path) as temporary:
        # Without dictionaries and least and most values small parts are smaller and read sooner.
        pq.write_table(
            described, temporary, compression="zstd", use_dictionary=False, write_statistics=False
        )


def read_part(path: Path, columns: Sequence[str] | None = None) -> Part:
    """Read a part back.

    Args:
        path: of `write_part`.
        columns: of its pieces that are wanted; None: all.

    Raises:
        DamagedPart: the file is missing, damaged or no part.
    """
    try:
        wanted = pa.schema([SCHEMA.field(name) for name in columns or SCHEMA.names])
        with pq.ParquetFile(path) as file:  # `read_table` takes twice the time
            table = file.read(wanted.names, use_threads=False)
        row = json.loads(table.schema.metadata[_INSPECTED_KEY])
        pieces = table.select(wanted.names).cast(wanted)
        inspected = InspectedRow.of_row(row)
        check_pieces(pieces, inspected.window)
    except _DAMAGE as error:
        raise DamagedPart(path, first_line(error)) from error
    return Part(pieces, inspected)


def read_row(path: Path) -> InspectedRow:
    """Read the row of a part alone.

    Raises:
        DamagedPart: the file is missing, damaged or no part.
    """
    try:
        return InspectedRow.of_row(json.loads(pq.read_schema(path).metadata[_INSPECTED_KEY]))
    except _DAMAGE as error:
        raise DamagedPart(path, first_line(error)) from error

"""Blocks gathered into regions, so that large maps are joined in many processes.

A region is a rectangle of blocks. Its pieces are joined by one process; cracks that touch a side
with other regions beyond stay in pieces, which are all that is left to be joined for the whole map.
What a region's cracks depend on reaches a few meters (the halo) beyond it, so each region keeps
apart what lies near its sides (the rim), for its neighbors.

All files of a region lie in one folder. Their names hold a hash of what they were made of, so that
those of an earlier try are used again, and of other blocks or rules never.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from geo.arrays import BoolArray, IntArray
from geo.cracks.parts import InspectedRow, read_part, write_table
from geo.cracks.piece_table import SCHEMA
from geo.cracks.seams import SeamJoin
from geo.errors import InputError, first_line
from geo.files import whole_file, write_text
from geo.grid import Grid, Window

BOX = ("west", "north", "east", "south")
"""Columns that say within which pixel corners a piece lies."""

MEASURED = (
    *("n_pixels", "probability_sum", "top", "left", "touches_nodata", "gsd_m", "branches"),
    *BOX,
)
"""What is kept of pieces to which others are linked."""

WHOLE = ("geometry", *MEASURED)
"""What is kept of a region's own pieces."""

_FULL = pa.schema([*SCHEMA, *(pa.field(name, pa.int64()) for name in BOX)])

ROWS_AT_ONCE = 20_000
"""Pieces that are written together."""

JOINED_AT_ONCE = 1_000
"""The same of those joined across regions, of which each region reads those near it."""


@dataclass(frozen=True)
class Region:
    """A rectangle of blocks.

    Attributes:
        name: unique in the map.
        window: of the mosaic.
        parts: files of its blocks, see `geo.cracks.parts`.
    """

    name: str
    window: Window
    parts: tuple[Path, ...]


def cut_into_regions(
    blocks: Iterable[tuple[Window, Path]], grid: Grid, side_px: int
) -> list[Region]:
    """Gather blocks into regions on a lattice from the mosaic's origin, row by row.

    Args:
        blocks: windows and parts of the blocks.
        grid: of the mosaic.
        side_px: of a region; a whole number of blocks, so that none lies in two.
    """
    found: dict[tuple[int, int], list[tuple[Window, Path]]] = defaultdict(list)
    for window, part in blocks:
        found[window.row_off // side_px, window.col_off // side_px].append((window, part))
    regions = []
    for (row, col), members in sorted(found.items()):
        cell = Window(row * side_px, col * side_px, side_px, side_px).intersection(grid.window)
        assert cell is not None, "blocks lie in the mosaic"
        if any(window.intersection(cell) != window for window, _ in members):
            raise ValueError(f"regions of {side_px} pixels cut blocks")
        parts = tuple(part for _, part in sorted(members))
        regions.append(Region(f"r{row:05d}_c{col:05d}", cell, parts))
    return regions


def side_of(regions: Sequence[Region]) -> int:
    """Return the side of a region that no border of the mosaic cuts."""
    return max(max(region.window.height, region.window.width) for region in regions)


def shifted_windows(regions: Sequence[Region], grid: Grid) -> list[Region]:
    """Return the windows of the lattice that is shifted by half a region, where there are regions.

    They lie over sides and corners of regions, and have no parts.
    """
    side = side_of(regions)
    found = {}
    for region in regions:
        here = region.window
        corners = np.array([[here.row_off, here.col_off], [here.row_end - 1, here.col_end - 1]])
        for row, col in product(*_shifted_cells(corners, side).T.tolist()):
            low = row * side - side // 2, col * side - side // 2
            window = Window(*low, side, side).intersection(grid.window)
            assert window is not None, "it meets a region"
            found[row, col] = Region(f"s{row:05d}_c{col:05d}", window, ())
    return [found[place] for place in sorted(found)]


def cross_shifted(sides: IntArray, side_px: int) -> BoolArray:
    """Return (N,) boxes (`boxes`) that no window of `shifted_windows` holds."""
    first, last = sides[:, :2], sides[:, 2:] - 1
    return np.asarray((_shifted_cells(first, side_px) != _shifted_cells(last, side_px)).any(axis=1))


def _shifted_cells(places: IntArray, side_px: int) -> IntArray:
    return (places + side_px // 2) // side_px


@dataclass(frozen=True)
class RegionFiles:
    """Names of the files of one region in one step."""

    folder: Path
    name: str
    key: str

    def path(self, kind: str) -> Path:
        """Return the file of a kind, like `whole.parquet`."""
        return self.folder / f"{self.name}.{self.key}.{kind}"

    def table(
        self, kind: str, columns: Sequence[str] | None = None, near: Window | None = None
    ) -> pa.Table:
        """Read a table.

        Args:
            kind: which.
            columns: that are wanted; None: all.
            near: of pieces that may touch this window alone; None: of all.

        Raises:
            InputError: it cannot be read.
        """
        path = self.path(f"{kind}.parquet")
        try:
            return pq.read_table(
                path,
                columns=columns and list(columns),
                partitioning=None,
                use_threads=False,
                filters=near and _beside(near),
            )
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{path} cannot be read ({first_line(error)}); remove {self.folder}, then give the "
                "same command again"
            ) from error


def merge(region: Region, files: RegionFiles, grid: Grid, halo_px: int) -> None:
    """Join the pieces of a region's blocks.

    Writes `whole` (pieces that lie in the region), `rim` (those of them near its sides), `cut` (a
    part of pieces that go on beyond it), and at last `rows.json` (what its blocks say).

    Raises:
        InputError: a part cannot be read.
        OSError: a file cannot be written.
    """
    rows: list[InspectedRow] = []
    inner = region.window.pad(-halo_px)
    whole_path, rim_path = (files.path(f"{kind}.parquet") for kind in ("whole", "rim"))
    with ExitStack() as stack:
        seams = stack.enter_context(SeamJoin(region.parts, grid, whole_path, region.window))
        whole, rim = (
            stack.enter_context(TableWriter(path, columns))
            for path, columns in ((whole_path, WHOLE), (rim_path, MEASURED))
        )
        for table in _whole_pieces(region.parts, seams, rows):
            boxed = with_boxes(table)
            whole.add(boxed)
            rim.add(boxed.filter(pa.array(~lie_in(boxed, inner))))
        area = replace(rows[0].brief(), window=region.window)
        write_table(files.path("cut.parquet"), seams.open_pieces(), area)
    write_text(files.path("rows.json"), json.dumps([asdict(row) for row in rows]))


def _whole_pieces(
    parts: Sequence[Path], seams: SeamJoin, rows: list[InspectedRow]
) -> Iterator[pa.Table]:
    for number, path in enumerate(parts):
        part = read_part(path)
        whole = part.pieces["seam_pixels"].combine_chunks().value_lengths().to_numpy() == 0
        rows.append(part.inspected)
        seams.add(number, part.pieces, np.flatnonzero(~whole))
        yield part.pieces.filter(pa.array(whole))
    yield from seams.tables()


def read_rows(files: RegionFiles) -> list[InspectedRow]:
    """Read what the blocks of a region say, as `merge` wrote it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        rows = json.loads(files.path("rows.json").read_text("utf-8"))
        return [InspectedRow.of_row(row) for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{files.path('rows.json')} cannot be read ({first_line(error)}); remove it, then give "
            "the same command again"
        ) from error


def join(merged: Sequence[RegionFiles], grid: Grid, out: RegionFiles) -> None:
    """Join the pieces that `merge` left, across regions: `joined`.

    They lie there in the order of regions, in small groups, so that each region reads its own.

    Raises:
        InputError: a file cannot be read.
        OSError: a file cannot be written.
    """
    parts = [files.path("cut.parquet") for files in merged]
    path = out.path("joined.parquet")
    with SeamJoin(parts, grid, path) as seams, TableWriter(path, WHOLE, JOINED_AT_ONCE) as every:
        for number, part in enumerate(parts):
            pieces = read_part(part, ("n_pixels", "seam_pixels")).pieces
            seams.add(number, pieces, np.arange(len(pieces)))
        for table in seams.tables():
            every.add(with_boxes(table))


class TableWriter:
    """Writes pieces with their boxes to a file that appears complete or not at all."""

    def __init__(
        self, path: Path, columns: Sequence[str], rows_at_once: int = ROWS_AT_ONCE
    ) -> None:
        """Name the file; nothing is written yet."""
        self._path, self._columns, self._rows_at_once = path, list(columns), rows_at_once
        self._held: list[pa.Table] = []
        self._stack = ExitStack()

    def __enter__(self) -> TableWriter:
        temporary = self._stack.enter_context(whole_file(self._path))
        schema = pa.schema([_FULL.field(name) for name in self._columns])
        self._held.append(schema.empty_table())
        self._writer = self._stack.enter_context(
            pq.ParquetWriter(temporary, schema, compression="zstd")
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._flush()
        self._stack.__exit__(kind, *rest)  # type: ignore[arg-type]

    def add(self, pieces: pa.Table) -> None:
        """Add a table that has at least the columns."""
        if not len(pieces):
            return
        self._held.append(pieces.select(self._columns).cast(self._held[0].schema))
        if sum(map(len, self._held)) >= self._rows_at_once:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.concat_tables(self._held), self._rows_at_once)
        del self._held[1:]


def with_boxes(pieces: pa.Table) -> pa.Table:
    """Return pieces with the columns BOX, taken from their outlines."""
    sides = shapely.bounds(shapely.from_wkb(pieces["geometry"].to_numpy()))
    for name, side in zip(BOX, sides.reshape(-1, 4).T, strict=True):
        pieces = pieces.append_column(name, pa.array(side.astype(np.int64)))
    return pieces


def boxes(pieces: pa.Table) -> IntArray:
    """Return the columns BOX, (N, 4)."""
    return np.column_stack([pieces[name].to_numpy() for name in BOX]).reshape(-1, 4)


def lie_in(pieces: pa.Table, window: Window) -> BoolArray:
    """Return (N,) which pieces lie wholly in a window; none in one of negative size."""
    west, north, east, south = boxes(pieces).T
    inside = (west >= window.col_off) & (east <= window.col_end)
    return np.asarray(inside & (north >= window.row_off) & (south <= window.row_end))


def _beside(window: Window) -> pc.Expression:
    """Tell by BOX which pieces may touch a window; groups of rows with none are not even read."""
    west, north, east, south = map(pc.field, BOX)
    beside = (west <= window.col_end) & (east >= window.col_off)
    return beside & (north <= window.row_end) & (south >= window.row_off)

"""Pieces of different blocks -> whole cracks.

Pieces belong together if a pixel of one and a pixel of the other are neighbors (side or corner).
That is decided on pixel indices, never on geometries: cracks that only come close stay apart, and
what was one 8-connected component before the cut is one again after it.

Not all pieces are held at once: which belong together is decided on their seam pixels alone. Their
outlines are then read again, for a few neighboring parts at a time, and the joined cracks go to a
file beside the map, since each layer is written in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geo.arrays import IntArray
from geo.cracks.branch_sums import branch_sums
from geo.cracks.components import measure_components
from geo.cracks.light import Patchwork
from geo.cracks.outlines import outlines
from geo.cracks.parts import read_part
from geo.cracks.piece_table import SCHEMA, UNMEASURED, to_pieces, to_table
from geo.cracks.pieces import Piece
from geo.cracks.pixel_set import Owner, PixelSet, graph_components, pixels_of_each
from geo.files import folder_of_parts
from geo.grid import Grid, Window

AT_ONCE_PX = 1_000_000
"""Pixels of joined cracks that are traced and measured at once: 130 MB."""

_NEIGHBORS = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Half of the eight neighbors (row, col): the other half is seen from the other pixel."""


class SeamJoin:
    """The cracks that cross seams: pieces are added part by part, then joined.

    A context: the file of joined cracks goes with it, and `remove_leftovers` removes that of a
    process that was killed.

    Args:
        parts: files of `geo.cracks.parts.write_part`.
        grid: of the mosaic.
        out: the map; the file lies in its folder.
        region: what the parts cover; cracks that may go on beyond it stay in pieces. None: all.
    """

    def __init__(
        self, parts: Sequence[Path], grid: Grid, out: Path, region: Window | None = None
    ) -> None:
        self._parts, self._grid, self._out = parts, grid, out
        self._region = region or grid.window
        self._pieces: list[IntArray] = []
        """(N, 4) of each part: its number, row in it, pixels, seam pixels."""
        self._seams: list[IntArray] = []
        self._open = np.empty((0, 4), np.int64)
        self._file: Path | None = None
        self._stack = ExitStack()
        self.is_done = False

    def __enter__(self) -> SeamJoin:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, number: int, pieces: pa.Table, rows: IntArray) -> None:
        """Note pieces that touch a seam.

        Args:
            number: of the part.
            pieces: all of its pieces.
            rows: which of them touch a seam.
        """
        cut = pieces.select(["n_pixels", "seam_pixels"]).take(rows)
        seams = cut["seam_pixels"].combine_chunks()
        self._seams.append(seams.flatten().to_numpy().reshape(-1, 2))
        counts = seams.value_lengths().to_numpy() // 2
        numbers = np.full(len(rows), number)
        self._pieces.append(np.column_stack((numbers, rows, cut["n_pixels"].to_numpy(), counts)))

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield joined cracks (`piece_table.SCHEMA`) in small tables; join the first time.

        Args:
            columns: that are wanted; None: all.

        Raises:
            InputError: a part cannot be read any more.
            OSError: the file of joined cracks cannot be written.
        """
        if not self.is_done:
            yield from self._join()
            self.is_done = True
        elif self._file is not None:
            with pq.ParquetFile(self._file) as stored:
                for group in range(stored.num_row_groups):
                    yield stored.read_row_group(group, columns, use_threads=False)

    def _join(self) -> Iterator[pa.Table]:
        """Join the cracks, keep them in a file and yield them."""
        pieces = np.concatenate(self._pieces or [np.empty((0, 4), np.int64)])
        if not len(pieces):
            return
        crack = crack_of_each(np.concatenate(self._seams), pieces[:, 3])
        goes_on = self._goes_on(np.repeat(crack, pieces[:, 3]))[crack]
        self._open, pieces, crack = pieces[goes_on], pieces[~goes_on], crack[~goes_on]
        self._seams.clear()
        if not len(pieces):
            return
        folder = self._stack.enter_context(folder_of_parts(self._out))
        self._file = Path(folder) / "joined.parquet"
        with pq.ParquetWriter(self._file, SCHEMA, compression="zstd") as writer:
            for batch in _batches(pieces, crack):
                table = to_table(unite(self._read(pieces[batch], crack[batch]), self._grid))
                writer.write_table(table)
                yield table

    def open_pieces(self) -> pa.Table:
        """Return the pieces of cracks that may go on beyond the region, as they are in the parts.

        Raises:
            InputError: a part cannot be read any more.
        """
        assert self.is_done, "what goes on is known when pieces are joined"
        found = [SCHEMA.empty_table()]
        for number in np.unique(self._open[:, 0]):
            rows = self._open[self._open[:, 0] == number, 1]
            found.append(read_part(self._parts[number]).pieces.take(pa.array(rows)))
        return pa.concat_tables(found)

    def _goes_on(self, crack: Owner) -> NDArray[np.bool_]:
        """Tell of each crack whether it touches a side of the region with mosaic beyond it.

        Args:
            crack: (P,) of each seam pixel.
        """
        rows, cols = np.concatenate(self._seams).T
        here, all_ = self._region, self._grid.window
        outside = (rows == here.row_off) & (here.row_off > 0)
        outside |= (rows == here.row_end - 1) & (here.row_end < all_.row_end)
        outside |= (cols == here.col_off) & (here.col_off > 0)
        outside |= (cols == here.col_end - 1) & (here.col_end < all_.col_end)
        open_ = np.zeros(int(crack.max()) + 1, bool)
        open_[crack[outside]] = True
        return open_

    def _read(self, pieces: IntArray, crack: Owner) -> list[list[Piece]]:
        """Return the pieces of each crack; both arrays ascend by crack."""
        groups: dict[int, list[Piece]] = {int(number): [] for number in crack}
        for number in np.unique(pieces[:, 0]):
            here = np.flatnonzero(pieces[:, 0] == number)
            part = read_part(self._parts[number], UNMEASURED).pieces
            for place, piece in zip(here, to_pieces(part.take(pieces[here, 1])), strict=True):
                groups[int(crack[place])].append(piece)
        return list(groups.values())


def _batches(pieces: IntArray, crack: Owner) -> Iterator[IntArray]:
    """Yield indices of pieces, crack by crack, in batches of about AT_ONCE_PX pixels or one crack.

    Cracks are numbered by their first piece, so those of a batch begin in neighboring parts.
    """
    n_pixels = np.bincount(crack, pieces[:, 2])
    batch = np.cumsum(n_pixels).astype(np.int64) // AT_ONCE_PX
    order = np.argsort(crack, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(batch[crack[order]])) + 1)


def crack_of_each(pixels: IntArray, counts: IntArray) -> Owner:
    """Find which pieces belong together.

    Args:
        pixels: (P, 2) row, col of the seam pixels of all pieces, piece by piece.
        counts: (N,) how many of them each piece has.

    Returns:
        (N,) number of each piece's crack; cracks are numbered by their first piece.
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    if not len(pixels):
        return np.arange(len(counts), dtype=np.int32)
    stride = int(pixels[:, 1].max()) + 3  # room for a neighbor beyond either end of a row
    keys = pixels[:, 0] * stride + pixels[:, 1] + 1
    order = np.argsort(keys)
    keys, owner = keys[order], owner[order]
    pairs = np.concatenate([_matches(keys, owner, r * stride + c) for r, c in _NEIGHBORS])
    return graph_components(pairs[:, 0], pairs[:, 1], len(counts))


def _matches(keys: NDArray[np.int64], owner: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Return (N, 2) owners of the sorted pixel keys that lie ``step`` apart, where they differ."""
    at = np.searchsorted(keys, keys + step)
    at[at == len(keys)] = 0
    hit = (keys[at] == keys + step) & (owner[at] != owner)
    return np.column_stack((owner[hit], owner[at[hit]]))


def unite(groups: Sequence[Sequence[Piece]], grid: Grid) -> list[Piece]:
    """Trace and measure whole cracks anew from the pixels of their pieces.

    Args:
        groups: the pieces of each crack; needs some 130 bytes per pixel of them all.
        grid: of the mosaic.
    """
    outlines_of = [piece.geometry for group in groups for piece in group]
    found = pixels_of_each(np.array(outlines_of, dtype=object))
    pixels = PixelSet.of_places(found.rows, found.cols)
    traced = outlines(pixels)
    geometry = traced.polygons()
    assert len(geometry) == len(groups), "a group is one component"
    measured = measure_components(pixels, traced, np.ones(len(groups), bool), grid)
    branches = [measured[number] for number in range(len(groups))]
    strips = [piece.strip for group in groups for piece in group if piece.strip is not None]
    places = np.column_stack(pixels.places())
    owner = pixels.components.astype(np.int64)
    light = Patchwork(strips) if strips else None
    sums = branch_sums(places, owner, branches, light, grid)
    cracks = []
    for group in groups:
        top, left = min((piece.top, piece.left) for piece in group)
        first = pixels.keys_of(np.array(top), np.array(left))
        number = int(pixels.components[np.searchsorted(pixels.keys, first)])
        known = [piece.touches_nodata for piece in group if piece.touches_nodata is not None]
        crack = Piece(
            geometry=geometry[number],
            n_pixels=sum(piece.n_pixels for piece in group),
            probability_sum=sum(piece.probability_sum for piece in group),
            top=top,
            left=left,
            seam_pixels=np.empty((0, 2), np.int64),
            touches_nodata=any(known) if known else None,
            branches=branches[number],
            sums=sums[number],
            gsd_m=max((p.gsd_m for p in group if p.gsd_m is not None), default=None),
        )
        cracks.append(crack)
    return cracks

"""Pieces of many parts -> whole cracks, without holding all of them at once.

Which pieces belong together is decided on their seam pixels alone. Outlines are then read again,
for a few neighboring parts at a time, and the joined cracks go to a file beside the map, since
each layer is written in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geo.grid import Grid
from geo.leftovers import folder_of_parts
from geo.parts import read_part
from geo.piece_table import SCHEMA, UNMEASURED, to_pieces, to_table
from geo.pixel_set import IntArray, Owner
from geo.polygonize import Piece
from geo.seams import crack_of_each, united

AT_ONCE_PX = 1_000_000
"""Pixels of joined cracks that are traced and measured at once: 130 MB."""


class Joining:
    """The cracks that cross seams: pieces are added part by part, then joined.

    A context: the file of joined cracks goes with it, and `remove_leftovers` removes that of a
    process that was killed.

    Args:
        parts: files of `geo.parts.write_part`.
        grid: of the mosaic.
        out: the map; the file lies in its folder.
    """

    def __init__(self, parts: Sequence[Path], grid: Grid, out: Path) -> None:
        self._parts, self._grid, self._out = parts, grid, out
        self._pieces: list[IntArray] = []
        """(N, 4) of each part: its number, row in it, pixels, seam pixels."""
        self._seams: list[IntArray] = []
        self._file: Path | None = None
        self._stack = ExitStack()
        self.is_done = False

    def __enter__(self) -> Joining:
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
        """Joined cracks (`geo.piece_table.SCHEMA`) in tables of some MB; joins the first time.

        Args:
            columns: that are wanted; None: all.

        Raises:
            InputError: a part cannot be read any more.
            OSError: the file of joined cracks cannot be written.
        """
        if not self.is_done:
            yield from self._joined()
            self.is_done = True
        elif self._file is not None:
            with pq.ParquetFile(self._file) as stored:
                for group in range(stored.num_row_groups):
                    yield stored.read_row_group(group, columns, use_threads=False)

    def _joined(self) -> Iterator[pa.Table]:
        """Join, keep and yield."""
        pieces = np.concatenate(self._pieces or [np.empty((0, 4), np.int64)])
        if not len(pieces):
            return
        crack = crack_of_each(np.concatenate(self._seams), pieces[:, 3])
        self._seams.clear()
        folder = self._stack.enter_context(folder_of_parts(self._out))
        self._file = Path(folder) / "joined.parquet"
        with pq.ParquetWriter(self._file, SCHEMA, compression="zstd") as writer:
            for batch in _batches(pieces, crack):
                table = to_table(united(self._read(pieces[batch], crack[batch]), self._grid))
                writer.write_table(table)
                yield table

    def _read(self, pieces: IntArray, crack: Owner) -> list[list[Piece]]:
        """The pieces of each crack; both arrays ascend by crack."""
        groups: dict[int, list[Piece]] = {int(number): [] for number in crack}
        for number in np.unique(pieces[:, 0]):
            here = np.flatnonzero(pieces[:, 0] == number)
            part = read_part(self._parts[number], UNMEASURED).pieces
            for place, piece in zip(here, to_pieces(part.take(pieces[here, 1])), strict=True):
                groups[int(crack[place])].append(piece)
        return list(groups.values())


def _batches(pieces: IntArray, crack: Owner) -> Iterator[IntArray]:
    """Indices of pieces, crack by crack, in batches of about AT_ONCE_PX pixels or one crack.

    Cracks are numbered by their first piece, so those of a batch begin in neighboring parts.
    """
    n_pixels = np.bincount(crack, pieces[:, 2])
    batch = np.cumsum(n_pixels).astype(np.int64) // AT_ONCE_PX
    order = np.argsort(crack, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(batch[crack[order]])) + 1)

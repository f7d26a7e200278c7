"""How much of the ground was seen, in cells of about a decimeter on the mosaic's lattice.

Cells count their valid pixels, so blocks add up to the same map however the area was cut.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from geo.errors import InputError
from geo.grid import Grid, Window

CELL_M = 0.1
"""Side of a coverage cell: small against a lane (3.5 m) and a survey cell (1 m)."""

FULL = "full"
_CHUNK = 256
CELL_BYTES = 4


def cell_px(grid: Grid) -> int:
    """Return the side of a coverage cell in pixels."""
    return max(1, round(CELL_M / grid.gsd_m))


def encode(valid: NDArray[np.bool_], window: Window, side: int) -> str:
    """Return the valid pixels per cell of a block as a short text; "" for none at all.

    Args:
        valid: (H, W) bool of the block.
        window: the block.
        side: of a cell, pixels.
    """
    if valid.all():
        return FULL
    if not valid.any():
        return ""
    counts = count(valid, window, side).astype("<u4")
    return base64.b64encode(zlib.compress(counts.tobytes())).decode("ascii")


def count(valid: NDArray[np.bool_], window: Window, side: int) -> NDArray[np.int64]:
    """Count the valid pixels of a block in each cell of the lattice that it touches."""
    rows = _starts(window.row_off, window.height, side)
    cols = _starts(window.col_off, window.width, side)
    by_col = np.add.reduceat(valid.view(np.uint8), cols, axis=1, dtype=np.uint32)
    return np.add.reduceat(by_col, rows, axis=0).astype(np.int64)


def _starts(first: int, length: int, side: int) -> NDArray[np.int64]:
    """Return the indices in a block where cells of the lattice begin."""
    later = np.arange((first // side + 1) * side, first + length, side) - first
    return np.concatenate(([0], later)).astype(np.int64)


def is_coverage(text: str, window: Window) -> bool:
    """Return whether a text may be what `encode` makes of some pixels of a block.

    How many cells a block has depends on the map's pixels, which a part does not know.
    """
    most = CELL_BYTES * window.area_px
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(text), most + 1)
    except (ValueError, zlib.error):
        return text == FULL
    return 0 < len(unpacked) <= most and len(unpacked) % CELL_BYTES == 0


class CoverageMap:
    """Share of each cell of the mosaic that was seen; stores only what was."""

    def __init__(self, grid: Grid, blocks: Iterable[tuple[Window, str]]) -> None:
        """Add up the encoded cells of blocks."""
        self.side = cell_px(grid)
        self._chunks: dict[tuple[int, int], NDArray[np.int64]] = {}
        for window, text in blocks:
            if text:
                self._add(window, self._decode(window, text))

    def share(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the share of the cells (rows, cols) that was seen, 0-1."""
        share = np.zeros(len(rows))
        chunk_rows, chunk_cols = rows // _CHUNK, cols // _CHUNK
        for key in set(zip(chunk_rows.tolist(), chunk_cols.tolist(), strict=True)):
            chunk = self._chunks.get(key)
            if chunk is not None:
                here = (chunk_rows == key[0]) & (chunk_cols == key[1])
                share[here] = chunk[rows[here] % _CHUNK, cols[here] % _CHUNK]
        return share / self.side**2

    def _decode(self, window: Window, text: str) -> NDArray[np.int64]:
        if text == FULL:
            return count(np.ones((window.height, window.width), bool), window, self.side)
        shape = (
            len(_starts(window.row_off, window.height, self.side)),
            len(_starts(window.col_off, window.width, self.side)),
        )
        raw = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4")
        if len(raw) != shape[0] * shape[1]:
            raise InputError(f"the coverage of the block at {window} is damaged; compute it again")
        return raw.astype(np.int64).reshape(shape)

    def _add(self, window: Window, counts: NDArray[np.int64]) -> None:
        top, left = window.row_off // self.side, window.col_off // self.side
        whole = Window(top, left, *counts.shape)
        for row in range(top // _CHUNK, (whole.row_end - 1) // _CHUNK + 1):
            for col in range(left // _CHUNK, (whole.col_end - 1) // _CHUNK + 1):
                place = Window(row * _CHUNK, col * _CHUNK, _CHUNK, _CHUNK)
                part = place.intersection(whole)
                assert part is not None, "the chunk was chosen to meet the cells"
                chunk = self._chunks.setdefault((row, col), np.zeros((_CHUNK, _CHUNK), np.int64))
                chunk[part.slices_in(place)] += counts[part.slices_in(whole)]

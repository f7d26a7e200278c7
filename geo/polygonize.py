"""Crack pixels of one block -> pieces: exact polygons with additive sums.

A piece is an 8-connected component of the block's mask. Its polygon follows the pixel borders
(area in pixels = number of pixels) in whole mosaic pixel corner coordinates; pixels that touch
only diagonally become parts of one MultiPolygon, which keeps every geometry valid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

from geo.collector import paused_collector
from geo.grid import Grid, Window
from geo.measure import measure_components
from geo.measures import Measures
from geo.outlines import outlines
from geo.pixel_set import IntArray, Owner, PixelSet, firsts


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """A crack, or the part of one that lies in a block.

    Attributes:
        geometry: canonical polygon in mosaic pixel corner coordinates (x = col, y = row).
        n_pixels: number of pixels.
        probability_sum: sum of the 8-bit probabilities of these pixels.
        top, left: row and column of the topmost, then leftmost pixel.
        seam_pixels: (N, 2) row, col of the pixels on block sides with mosaic beyond them; empty if
            the piece is a whole crack.
        touches_nodata: whether a pixel beside it has no imagery; None if that was not asked.
        measures: of a whole crack; None for a piece, which is measured when it is joined.
        gsd_m: of the coarsest imagery under it; None: the grid's.
    """

    geometry: MultiPolygon
    n_pixels: int
    probability_sum: int
    top: int
    left: int
    seam_pixels: NDArray[np.int64]
    touches_nodata: bool | None = None
    measures: Measures | None = None
    gsd_m: float | None = None

    @property
    def touches_seam(self) -> bool:
        """Whether the crack may go on in another block."""
        return len(self.seam_pixels) > 0


@paused_collector()
def pieces(
    mask: NDArray[np.bool_],
    probability: NDArray[np.uint8],
    window: Window,
    grid: Grid,
    valid: NDArray[np.bool_] | None = None,
) -> list[Piece]:
    """Cut a block's mask into its 8-connected pieces, by topmost, then leftmost pixel.

    Args:
        mask: (H, W) bool, the crack pixels of the block.
        probability: (H, W) uint8, 255 = certain.
        window: the block, inside the grid; its shape is that of the arrays.
        grid: the mosaic's grid, whose own borders are no seams.
        valid: (H + 2, W + 2) bool, where there is imagery, in the block and one pixel around it;
            None leaves touches_nodata open.
    """
    if mask.shape != (window.height, window.width) or probability.shape != mask.shape:
        raise ValueError(f"{mask.shape}, {probability.shape} do not fit {window}")
    pixels = PixelSet.of_mask(mask, window.row_off, window.col_off)
    if not len(pixels):
        return []
    owner, (rows, cols) = pixels.components, pixels.places()
    n_pixels = np.bincount(owner)
    weights = probability[rows - window.row_off, cols - window.col_off]
    sums = np.bincount(owner, weights).astype(np.int64)  # exact below 2**53
    first = firsts(owner, len(n_pixels))
    traced = outlines(pixels)
    seams = _seam_pixels(rows, cols, owner, window, grid)
    whole = np.ones(len(n_pixels), bool)
    whole[list(seams)] = False
    measures = measure_components(pixels, traced, whole, grid)
    ragged = [None] * len(first) if valid is None else _ragged(valid, rows, cols, owner, window)
    none = np.empty((0, 2), np.int64)
    columns = (n_pixels, sums, rows[first], cols[first])
    return [
        Piece(geometry, count, total, top, left, seams.get(number, none), beside, found)
        for number, (geometry, beside, found, count, total, top, left) in enumerate(
            zip(
                traced.polygons(),
                ragged,
                map(measures.get, range(len(first))),
                *(column.tolist() for column in columns),
                strict=True,
            )
        )
    ]


def _ragged(
    valid: NDArray[np.bool_], rows: IntArray, cols: IntArray, owner: Owner, window: Window
) -> list[bool | None]:
    """For each component, whether a pixel of it has one of its eight neighbors without imagery."""
    ragged = np.zeros(int(owner.max()) + 1, bool)
    if not valid.all():
        top, left = rows - window.row_off, cols - window.col_off
        for row, col in np.ndindex(3, 3):
            ragged[owner[~valid[top + row, left + col]]] = True
    found: list[bool | None] = ragged.tolist()
    return found


def _seam_pixels(
    rows: IntArray, cols: IntArray, owner: Owner, window: Window, grid: Grid
) -> dict[int, IntArray]:
    """Mosaic pixels (N, 2) row, col of each component on the sides with mosaic beyond them."""
    side = np.zeros(len(rows), bool)
    side |= (rows == window.row_off) & (window.row_off > 0)
    side |= (rows == window.row_end - 1) & (window.row_end < grid.shape[0])
    side |= (cols == window.col_off) & (window.col_off > 0)
    side |= (cols == window.col_end - 1) & (window.col_end < grid.shape[1])
    here = np.flatnonzero(side)
    here = here[np.argsort(owner[here], kind="stable")]
    numbers, starts = np.unique(owner[here], return_index=True)
    pixels = np.column_stack((rows[here], cols[here]))
    ends = np.append(starts[1:], len(here))
    runs = zip(numbers.tolist(), starts, ends, strict=len(here) > 0)
    return {number: pixels[start:end] for number, start, end in runs}

"""Crack pixels of one block -> pieces: exact polygons with additive sums.

A piece is an 8-connected component of the block's mask. Its polygon follows the pixel borders
(area in pixels = number of pixels) in whole mosaic pixel corner coordinates; pixels that touch
only diagonally become parts of one MultiPolygon, which keeps every geometry valid.
"""

from __future__ import annotations

import base64
import gc
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

from geo.cracks.components import measure_components
from geo.cracks.measure import Measures
from geo.cracks.outlines import outlines
from geo.cracks.pixel_set import IntArray, Owner, PixelSet, firsts, pixels_of
from geo.errors import InputError
from geo.grid import Grid, Window


@contextmanager
def paused_collector() -> Iterator[None]:
    """Keep the collector from running, if it was on.

    Again and again it looks for cycles among the hundred thousands of records that a block's
    cracks are made of, and finds none: half of the time of 120 000 cracks. Threads that are in
    here together turn it on again early at worst, which costs time and nothing else.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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


def block_pieces(
    probability: NDArray[np.uint8], level: int, window: Window, grid: Grid, ground: Ground
) -> list[Piece]:
    """Cut the cracks of a block into pieces that know the imagery under them.

    Args:
        probability: (H, W), 255 = certain; 0 where nothing counts.
        level: smallest probability that is crack.
        window: the block.
        grid: of the mosaic.
        ground: of the block.
    """
    found = pieces(probability >= level, probability, window, grid, ground.ring)
    return ground.resolve(found, window)


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
        raise ValueError(
            f"mask {mask.shape} and probability {probability.shape} do not fit {window}"
        )
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
    beside_nodata = (
        [None] * len(first) if valid is None else _touch_nodata(valid, rows, cols, owner, window)
    )
    none = np.empty((0, 2), np.int64)
    columns = (n_pixels, sums, rows[first], cols[first])
    return [
        Piece(geometry, count, total, top, left, seams.get(number, none), beside, found)
        for number, (geometry, beside, found, count, total, top, left) in enumerate(
            zip(
                traced.polygons(),
                beside_nodata,
                map(measures.get, range(len(first))),
                *(column.tolist() for column in columns),
                strict=True,
            )
        )
    ]


def _touch_nodata(
    valid: NDArray[np.bool_], rows: IntArray, cols: IntArray, owner: Owner, window: Window
) -> list[bool | None]:
    """Return for each component whether one of its pixels has a neighbor without imagery."""
    touches = np.zeros(int(owner.max()) + 1, bool)
    if not valid.all():
        top, left = rows - window.row_off, cols - window.col_off
        for row, col in np.ndindex(3, 3):
            touches[owner[~valid[top + row, left + col]]] = True
    found: list[bool | None] = touches.tolist()
    return found


def _seam_pixels(
    rows: IntArray, cols: IntArray, owner: Owner, window: Window, grid: Grid
) -> dict[int, IntArray]:
    """Return mosaic pixels (N, 2) row, col of each component on sides with mosaic beyond."""
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


@dataclass(frozen=True, eq=False)
class Ground:
    """The imagery of a block.

    Attributes:
        ring: (H + 2, W + 2) bool, where there is imagery, in the block and one pixel around it.
        gsd_m: (H, W) float64, size of the imagery's own pixels, at least the grid's; None: the
            grid's everywhere.
    """

    ring: NDArray[np.bool_]
    gsd_m: NDArray[np.float64] | None = None

    def text(self) -> str:
        """Write the record as ASCII text of a few hundred bytes, more where imagery is ragged."""
        shape, bits = np.array(self.ring.shape), np.packbits(self.ring)
        sizes = np.empty((0, 0)) if self.gsd_m is None else self.gsd_m
        stream = io.BytesIO()
        np.savez_compressed(stream, shape=shape, ring=bits, gsd_m=sizes)
        return base64.b64encode(stream.getvalue()).decode("ascii")

    @classmethod
    def of_text(cls, text: str) -> Ground:
        """Read what `text` wrote.

        Raises:
            InputError: the text is none of ours.
        """
        try:
            with np.load(io.BytesIO(base64.b64decode(text))) as arrays:
                rows, cols = arrays["shape"].tolist()
                bits = np.unpackbits(arrays["ring"], count=rows * cols)
                sizes = arrays["gsd_m"]
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"the record of a block's imagery is damaged ({error})") from error
        return cls(bits.reshape(rows, cols).astype(bool), sizes if sizes.size else None)

    def resolve(self, found: Sequence[Piece], window: Window) -> list[Piece]:
        """Give each piece the size of the coarsest imagery under it.

        Args:
            found: of the block.
            window: the block.
        """
        if self.gsd_m is None:
            return list(found)
        corner = np.array([window.row_off, window.col_off])
        places = ((pixels_of(piece.geometry) - corner).T for piece in found)
        largest = (float(self.gsd_m[rows, cols].max()) for rows, cols in places)
        return [replace(piece, gsd_m=gsd) for piece, gsd in zip(found, largest, strict=True)]

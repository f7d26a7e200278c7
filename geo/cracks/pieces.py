"""Crack pixels of one block -> pieces: exact polygons with centerlines and additive sums.

A piece is an 8-connected component of the block's mask. Its polygon follows the pixel borders
(area in pixels = number of pixels) in whole mosaic pixel corner coordinates; pixels that touch
only diagonally become parts of one MultiPolygon, which keeps every geometry valid.
"""

from __future__ import annotations

import gc
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

from geo.arrays import IntArray
from geo.cracks.branch_sums import WIDTH_OPTIONS, branch_sums
from geo.cracks.components import Branches, measure_components
from geo.cracks.light import NOT_SEEN, Picture, widen
from geo.cracks.outlines import outlines
from geo.cracks.pixel_set import Owner, PixelSet, firsts, pixels_of
from geo.errors import InputError
from geo.files import whole_file
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
    """An 8-connected component of the mask, or the part of one that lies in a block.

    Attributes:
        geometry: canonical polygon in mosaic pixel corner coordinates (x = col, y = row).
        n_pixels: number of pixels.
        probability_sum: sum of the 8-bit probabilities of these pixels.
        top, left: row and column of the topmost, then leftmost pixel.
        seam_pixels: (N, 2) row, col of the pixels on block sides with mosaic beyond them; empty if
            the component is whole.
        touches_nodata: whether a pixel beside it has no imagery; None if that was not asked.
        branches: centerlines of a whole component; None for a part, which is measured when it is
            joined.
        sums: (B, 6) of its branches, see `geo.cracks.branch_sums`.
        strip: imagery along a part; None for a whole component, and without imagery.
        gsd_m: of the coarsest imagery under it; None: the grid's.
    """

    geometry: MultiPolygon
    n_pixels: int
    probability_sum: int
    top: int
    left: int
    seam_pixels: NDArray[np.int64]
    touches_nodata: bool | None = None
    branches: Branches | None = None
    sums: NDArray[np.float64] | None = None
    strip: Picture | None = None
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
    found = pieces(probability >= level, probability, window, grid, ground.ring, ground.light)
    return ground.resolve(found, window)


@paused_collector()
def pieces(
    mask: NDArray[np.bool_],
    probability: NDArray[np.uint8],
    window: Window,
    grid: Grid,
    valid: NDArray[np.bool_] | None = None,
    light: Picture | None = None,
) -> list[Piece]:
    """Cut a block's mask into its 8-connected pieces, by topmost, then leftmost pixel.

    Args:
        mask: (H, W) bool, the crack pixels of the block.
        probability: (H, W) uint8, 255 = certain.
        window: the block, inside the grid; its shape is that of the arrays.
        grid: the mosaic's grid, whose own borders are no seams.
        valid: (H + 2, W + 2) bool, where there is imagery, in the block and one pixel around it;
            None leaves touches_nodata open.
        light: imagery in the block and `WidthOptions.reach_px` around it; None leaves widths open.
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
    totals = np.bincount(owner, weights).astype(np.int64)  # exact below 2**53
    first = firsts(owner, len(n_pixels))
    traced = outlines(pixels)
    seams = _seam_pixels(rows, cols, owner, window, grid)
    whole = np.ones(len(n_pixels), bool)
    whole[list(seams)] = False
    measured = measure_components(pixels, traced, whole, grid)
    branches = [measured.get(number) for number in range(len(first))]
    places = np.column_stack((rows, cols))
    sums = branch_sums(places, owner.astype(np.int64), branches, light, grid)
    strips = {} if light is None else _strips(places, owner, light, np.flatnonzero(~whole))
    beside_nodata = (
        [None] * len(first) if valid is None else _touch_nodata(valid, rows, cols, owner, window)
    )
    none = np.empty((0, 2), np.int64)
    columns = (column.tolist() for column in (n_pixels, totals, rows[first], cols[first]))
    rows_of_pieces = zip(traced.polygons(), beside_nodata, *columns, strict=True)
    return [
        Piece(
            *(geometry, count, total, top, left),
            seam_pixels=seams.get(number, none),
            touches_nodata=beside,
            branches=branches[number],
            sums=sums[number],
            strip=strips.get(number),
        )
        for number, (geometry, beside, count, total, top, left) in enumerate(rows_of_pieces)
    ]


def _strips(places: IntArray, owner: Owner, light: Picture, parts: IntArray) -> dict[int, Picture]:
    """Return the imagery along the components that are cut by a seam."""
    reach = WIDTH_OPTIONS.reach_px
    return {number: light.near(places[owner == number], reach) for number in parts.tolist()}


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
        light: gray values in the block and `WidthOptions.reach_px` around it; None: unknown.
    """

    ring: NDArray[np.bool_]
    gsd_m: NDArray[np.float64] | None = None
    light: Picture | None = None

    @classmethod
    def none(cls, window: Window) -> Ground:
        """Return that of a block of which nothing was seen."""
        return cls(np.zeros((window.height + 2, window.width + 2), bool))

    def write(self, path: Path, probability: NDArray[np.uint8], window: Window) -> None:
        """Write what another threshold needs; light only where a crack might be.

        Args:
            path: of the file, which appears complete or not at all.
            probability: (H, W) of the block; below 1 there is no crack, whatever the threshold.
            window: of the block.
        """
        light = self.light or Picture.none(window)
        maybe = np.zeros(light.gray.shape, np.uint8)
        if seen := window.intersection(light.window):
            maybe[seen.slices_in(light.window)] = probability[seen.slices_in(window)] > 0
        near = widen(maybe, WIDTH_OPTIONS.reach_px)
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                shape=np.array(self.ring.shape),
                ring=np.packbits(self.ring),
                gsd_m=np.empty((0, 0)) if self.gsd_m is None else self.gsd_m,
                gray=np.where(near, light.gray, NOT_SEEN),
                window=np.array(astuple(light.window)),
            )

    @classmethod
    def read(cls, path: Path) -> Ground:
        """Read what `write` wrote.

        Raises:
            InputError: the file is missing, damaged or none of ours.
        """
        try:
            with np.load(path) as arrays:
                rows, cols = arrays["shape"].tolist()
                bits = np.unpackbits(arrays["ring"], count=rows * cols)
                sizes, gray = arrays["gsd_m"], arrays["gray"]
                window = Window(*arrays["window"].tolist())
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}, of a block's imagery, cannot be read ({error})") from error
        ring = bits.reshape(rows, cols).astype(bool)
        return cls(ring, sizes if sizes.size else None, Picture(gray, window))

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

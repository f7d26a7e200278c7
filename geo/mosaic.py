"""Many rasters as one: a common pixel grid, its blocks, and windows read across files."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from geo.errors import InputError
from geo.grid import Grid, Window, moved_origin
from geo.reading import gdal_settings, open_raster, read_readable
from geo.tiles import Scan, Tile, TileProblem, crs_name, scan

__all__ = ["Block", "Mosaic", "Raster", "Scan", "Tile", "TileProblem", "scan"]

PIXEL_SIZE_TOLERANCE = 1e-6
"""Relative difference up to which two pixel sizes are one."""

ALIGNMENT_PX = 0.05
"""Distance of a tile's corners from the common pixel corners that is still called aligned."""

ORIGIN_DIGITS = 6
"""Decimals of the mosaic's origin, so that it does not depend on how the area is cut into files."""


@dataclass(frozen=True)
class Block:
    """The unit of delivery and restart: the core of the work, without halo."""

    block_id: str
    window: Window


@dataclass(frozen=True, eq=False)
class Raster:
    """Pixels of a window: image (H, W, 3) uint8, valid (H, W) bool, and tiles that failed."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    failures: tuple[TileProblem, ...]


@dataclass(frozen=True)
class Mosaic:
    """A set of aligned rasters read as one; picklable, it holds no open file.

    Attributes:
        grid: origin at the top-left corner of all tiles.
        tiles: in painting order: where tiles overlap, the later one is seen.
        windows: the place of each tile on the grid.
        problems: files that are left out, with the reason.
    """

    grid: Grid
    tiles: tuple[Tile, ...]
    windows: tuple[Window, ...]
    problems: tuple[TileProblem, ...]

    @classmethod
    def build(cls, tiles: Scan | Sequence[Tile], crs: str | CRS | None = None) -> Mosaic:
        """Place tiles on one grid: CRS and pixel of most of them, or of those in ``crs``.

        Args:
            tiles: a scan (its problems are kept) or tiles alone.
            crs: the projected CRS of the job; tiles in another one become problems.

        Raises:
            InputError: no tile is left, or ``crs`` is not a projected CRS.
        """
        found = tiles if isinstance(tiles, Scan) else Scan(tuple(tiles), ())
        wanted = None if crs is None else _projected(crs)
        reference = _reference(found.tiles, wanted)
        problems, fitting = list(found.problems), []
        for tile in sorted(found.tiles, key=_painting_order):
            reason = _misfit(tile, reference)
            if reason:
                problems.append(TileProblem(tile.path, reason, tile.grid.footprint(), tile.crs))
            else:
                fitting.append((tile, *_offset(tile, reference)))
        top, left = min(row for _, row, _ in fitting), min(col for _, _, col in fitting)
        windows = tuple(Window(row - top, col - left, *tile.shape) for tile, row, col in fitting)
        shape = max(w.row_end for w in windows), max(w.col_end for w in windows)
        origin = _rounded_origin(moved_origin(reference.transform, top, left))
        grid = Grid(origin, reference.crs, shape)
        return cls(grid, tuple(tile for tile, _, _ in fitting), windows, tuple(problems))

    def blocks(self, block_px: int) -> tuple[Block, ...]:
        """Cut the mosaic into blocks on a lattice from its origin, row by row.

        Blocks that touch no tile are left out; those at the edges are clipped to the mosaic.
        """
        if block_px < 1:
            raise InputError(f"block_px is {block_px}; give at least 1 pixel")
        cells = {
            (row, col)
            for window in self.windows
            for row in range(window.row_off // block_px, -(-window.row_end // block_px))
            for col in range(window.col_off // block_px, -(-window.col_end // block_px))
        }
        blocks = []
        for row, col in sorted(cells):
            cell = Window(row * block_px, col * block_px, block_px, block_px)
            clipped = cell.intersection(self.grid.window)
            assert clipped is not None, "a cell that touches a tile touches the mosaic"
            blocks.append(Block(f"r{row:06d}_c{col:06d}", clipped))
        return tuple(blocks)

    def read(self, window: Window) -> Raster:
        """Read a window across all the files that it touches.

        The window may reach beyond the mosaic (invalid there). Where tiles overlap, the smaller
        pixel wins, then the last path in byte order; an invalid pixel hides nothing. A tile that
        cannot be read is named in ``failures``, the rest is delivered.
        """
        image = np.zeros((window.height, window.width, 3), np.uint8)
        valid = np.zeros((window.height, window.width), bool)
        failures = []
        with gdal_settings():
            for index in self.touching(window)[::-1]:
                tile, place = self.tiles[index], self.windows[index]
                part = place.intersection(window)
                assert part is not None, "touching() returns tiles that meet the window"
                here = part.slices_in(window)
                own = Window(
                    part.row_off - place.row_off, part.col_off - place.col_off, *_size(part)
                )
                try:
                    dataset = open_raster(tile.path, tile.driver)
                    seen, known, reason = read_readable(dataset, own)
                except (OSError, RasterioError) as error:
                    failures.append(_failure(tile, str(error)))
                    continue
                if reason:
                    failures.append(_failure(tile, reason))
                new = known & ~valid[here]
                np.copyto(image[here], seen, where=new[..., None])
                valid[here] |= new
                if valid.all():
                    break
        return Raster(image, valid, tuple(failures))

    def touching(self, window: Window) -> list[int]:
        """Indices of the tiles that share a pixel with the window, in painting order."""
        near = np.sort(self._tree.query(window.polygon()))
        return [int(i) for i in near if self.windows[i].intersection(window)]

    @cached_property
    def _tree(self) -> shapely.STRtree:
        places = np.array([(w.col_off, w.row_off, w.col_end, w.row_end) for w in self.windows])
        return shapely.STRtree(shapely.box(*places.T))


def _projected(crs: str | CRS) -> CRS:
    try:
        parsed = CRS.from_user_input(crs)
    except ValueError as error:
        raise InputError(f"crs={crs} is not a coordinate system; give e.g. EPSG:25832") from error
    if not parsed.is_projected:
        raise InputError(f"crs={crs} is not projected; give a system in meters, e.g. EPSG:25832")
    return parsed


def _reference(tiles: Sequence[Tile], crs: CRS | None) -> Tile:
    """The tile whose grid the mosaic takes: the most common CRS and pixel, then the first path."""
    candidates = [tile for tile in tiles if crs is None or tile.crs == crs]
    if not candidates:
        others = sorted({crs_name(tile.crs) for tile in tiles})
        asked = crs_name(crs) if crs else None
        raise InputError(
            f"no usable tile in crs={asked} (got {', '.join(others) or 'none'}); "
            "leave crs= out or warp the tiles with gdalwarp"
        )
    kinds = [(tile.crs.to_wkt(), *(f"{v:.6g}" for v in _pixel(tile))) for tile in candidates]
    common = Counter(kinds).most_common(1)[0][0]
    alike = [tile for tile, kind in zip(candidates, kinds, strict=True) if kind == common]
    phases = [_phase(tile, alike[0]) for tile in alike]
    return alike[phases.index(Counter(phases).most_common(1)[0][0])]


def _phase(tile: Tile, reference: Tile) -> tuple[int, int]:
    """Offset of a tile's pixel corners from the reference's, in tolerances, wrapped to a pixel."""
    steps = round(1 / ALIGNMENT_PX)
    row, col = _corner(tile, reference)
    return round(row * steps) % steps, round(col * steps) % steps


def _misfit(tile: Tile, reference: Tile) -> str | None:
    """Why a tile does not lie on the reference's grid, or None if it does."""
    if tile.crs != reference.crs:
        ours, theirs = crs_name(tile.crs), crs_name(reference.crs)
        return f"is in {ours}, the others in {theirs}; warp it: gdalwarp -t_srs {theirs}"
    own, common = np.array(_pixel(tile)), np.array(_pixel(reference))
    if np.abs(own - common).max() > PIXEL_SIZE_TOLERANCE * np.abs(common).max():
        got, expected = 1000 * tile.gsd_m, 1000 * reference.gsd_m
        remedy = f"gdalwarp -tr {abs(common[0]):g} {abs(common[3]):g} -tap"
        return f"has other pixels ({got:g} mm, the others {expected:g} mm); resample it: {remedy}"
    row, col = _corner(tile, reference)
    off = max(abs(col - round(col)), abs(row - round(row)))
    if off > ALIGNMENT_PX:
        return f"lies {off:.2f} pixels off the others' pixel grid; align it: gdalwarp -tap"
    return None


def _corner(tile: Tile, reference: Tile) -> tuple[float, float]:
    """Row and column of the tile's origin on the reference's grid."""
    origin = np.array([[tile.transform.c, tile.transform.f]])
    col, row = reference.grid.to_pixel(origin)[0]
    return float(row), float(col)


def _offset(tile: Tile, reference: Tile) -> tuple[int, int]:
    row, col = _corner(tile, reference)
    return round(row), round(col)


def _rounded_origin(transform: Affine) -> Affine:
    a, b, c, d, e, f = transform[:6]
    return Affine(a, b, round(c, ORIGIN_DIGITS), d, e, round(f, ORIGIN_DIGITS))


def _pixel(tile: Tile) -> tuple[float, float, float, float]:
    a, b, _, d, e, _ = tile.transform[:6]
    return a, b, d, e


def _painting_order(tile: Tile) -> tuple[float, bytes]:
    """Large pixels first, then byte order; sizes equal within the tolerance tie."""
    digits = -math.floor(math.log10(tile.gsd_m * PIXEL_SIZE_TOLERANCE * 10))
    return -round(tile.gsd_m, digits), os.fsencode(tile.path)


def _size(window: Window) -> tuple[int, int]:
    return window.height, window.width


def _failure(tile: Tile, reason: str) -> TileProblem:
    brief = reason.splitlines()[0].rstrip(".") if reason else "unknown error"
    return TileProblem(
        tile.path, f"failed on reading ({brief}); replace it", tile.grid.footprint(), tile.crs
    )

"""Many rasters as one: a common pixel grid, its blocks, and windows read across files."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from geo.errors import InputError, first_line
from geo.grid import Grid, Window
from geo.imagery.area import Area
from geo.imagery.find import Scan, inspect_all, scan, summary
from geo.imagery.headers import ListedTile, Tile, TileProblem
from geo.imagery.opening import gdal_settings, remedy_of
from geo.imagery.placing import (
    PIXEL_SIZE_TOLERANCE,
    Placement,
    common_grid,
    hull,
    job_crs,
    only_true,
    painting_key,
    place,
    require_near_pixels,
    require_true_lengths,
    true_gsd_m,
)
from geo.imagery.reading import Stretch, measure_stretch
from geo.imagery.tile_reader import TileReader
from geo.options import ReadOptions

ORIGIN_DIGITS = 6
"""Decimals of the mosaic's origin, so that it does not depend on how the area is cut into files."""

SAMPLED_HEADERS = 64
"""Headers of a tile index that are read to choose the grid of the job."""


def read_tiles(
    tiles: str | Path | Iterable[str | Path],
    crs: str | CRS | None = None,
    reading: ReadOptions | None = None,
) -> Mosaic:
    """Find rasters and place them on one grid; pixels are read by `Mosaic.read`.

    Args:
        tiles: a folder, glob, raster, URL, list or tile index: see `geo.imagery.find.find_tiles`.
        crs: a projected CRS; None: that of most pixels, or UTM.
        reading: how tiles are read.

    Raises:
        InputError: nothing can be used, an argument is of another kind, or ``crs`` is not a
            projected CRS.

    >>> import numpy as np, rasterio
    >>> from affine import Affine
    >>> import geo
    >>> place = {"crs": "EPSG:25832", "transform": Affine(0.005, 0, 5e5, 0, -0.005, 5.8e6)}
    >>> with rasterio.open("a.tif", "w", "GTiff", 200, 100, 3, dtype="uint8", **place) as tif:
    ...     tif.write(np.full((3, 100, 200), 120, np.uint8))
    >>> mosaic = geo.read_tiles("a.tif")
    >>> mosaic.grid.shape, mosaic.read(geo.Window(90, 0, 20, 10)).valid.mean().item()
    ((100, 200), 0.5)
    """
    given = [tiles] if isinstance(tiles, str | Path) else tiles
    given = list(given) if isinstance(given, Iterable) else [given]
    if wrong := [value for value in given if not isinstance(value, str | Path)]:
        raise InputError(f"tiles is {wrong[0]!r}; give paths, as text or Path")
    if not isinstance(reading, ReadOptions | None):
        raise InputError(f"reading is {reading!r}; give geo.options.ReadOptions(...)")
    return Mosaic.build(scan([str(value) for value in given], reading), crs, reading=reading)


@dataclass(frozen=True)
class Block:
    """The unit of delivery and restart: the core of the work, without halo."""

    block_id: str
    window: Window


@dataclass(frozen=True, eq=False)
class Raster:
    """Pixels of a window.

    Attributes:
        image: (H, W, 3) uint8.
        valid: (H, W) bool; False where there is no imagery.
        failures: tiles that failed, with the reason.
        gsd_m: the largest pixel that was seen, at least the grid's: what the image can resolve.
        sizes_m: (H, W) float64, the size of the imagery's own pixels where it is coarser than the
            grid's, else the grid's; None: it is coarser nowhere.
    """

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    failures: tuple[TileProblem, ...]
    gsd_m: float
    sizes_m: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Mosaic:
    """A set of rasters read as one; picklable, it holds no open file.

    Attributes:
        grid: origin at the top-left corner of all tiles.
        tiles: the usable tiles.
        windows: the place of each tile on the grid (that of a listed one as its index says).
        problems: files that are left out, with the reason.
        stretch: how 16-bit pixels become 8-bit ones; None if there are none.
        area: where pixels count; None: everywhere.
        reading: how patiently files are read.
        begun_ns: when the tiles were found; what is changed later is not read.
    """

    grid: Grid
    tiles: tuple[Tile | ListedTile, ...]
    windows: tuple[Window, ...]
    problems: tuple[TileProblem, ...]
    stretch: Stretch | None = None
    area: Area | None = None
    reading: ReadOptions = field(default_factory=ReadOptions)
    begun_ns: int = field(default_factory=time.time_ns, compare=False)

    @classmethod
    def build(
        cls,
        found: Scan | Sequence[Tile],
        crs: str | CRS | None = None,
        *,
        gsd_m: float | None = None,
        stretch: Stretch | None = None,
        reading: ReadOptions | None = None,
    ) -> Mosaic:
        """Place tiles on one grid, that of most of the imagery; others are resampled when read.

        Args:
            found: a scan (its problems are kept) or tiles alone.
            crs: the projected CRS of the job; None: that of most pixels, or UTM if lengths cannot
                be measured in it.
            gsd_m: the pixel size in meters; None: that of most pixels.
            stretch: of 16-bit imagery; None: its percentiles 1 to 99.
            reading: how patiently files are read.

        Raises:
            InputError: no tile is left, ``crs`` is not a projected CRS, or the pixels of the grid
                are of quite another size than those of most of the imagery.
        """
        found = found if isinstance(found, Scan) else Scan(tuple(found), ())
        patience = reading or ReadOptions()
        known = (*found.tiles, *_sample_headers(found, patience))
        chosen = None if crs is None else job_crs(crs)
        if chosen is not None:
            require_true_lengths(chosen, known)
        frame = common_grid(known, chosen, gsd_m)
        if chosen is not None or gsd_m is not None:
            require_near_pixels(frame, known)
        tiles: list[Tile | ListedTile] = [*found.tiles, *found.listed]
        places = [place(tile, frame) for tile in tiles]
        placed = [item for item in places if isinstance(item, Placement)]
        placed, too_far = only_true(placed, frame)
        problems = (*found.problems, *(p for p in places if isinstance(p, TileProblem)), *too_far)
        if not placed:
            raise InputError(f"no usable tile: {summary(problems)}")
        with gdal_settings(patience):
            deep = [(tile.path, tile.driver) for tile in known if tile.dtype == "uint16"]
            measured = stretch or measure_stretch(deep, patience)
        return cls._on(frame, placed, problems, measured, patience)

    @classmethod
    def _on(
        cls,
        frame: Grid,
        placed: Sequence[Placement],
        problems: tuple[TileProblem, ...],
        stretch: Stretch | None,
        reading: ReadOptions,
    ) -> Mosaic:
        """Move the origin of a frame to the corner of all tiles."""
        whole = hull(placed)
        grid = _round_origin(frame.subgrid(whole))
        windows = (item.window.shift(-whole.row_off, -whole.col_off) for item in placed)
        tiles = tuple(item.tile for item in placed)
        return cls(grid, tiles, tuple(windows), problems, stretch, None, reading)

    def within(self, area: Area) -> Mosaic:
        """Return the mosaic of which only the pixels inside an area count."""
        return replace(self, area=area)

    def blocks(self, block_px: int) -> tuple[Block, ...]:
        """Cut the mosaic into blocks on a lattice from its origin, row by row.

        Blocks that touch no tile, or lie outside the area, are left out; those at the edges are
        clipped to the mosaic.
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
            if self.area is None or self.area.touches(clipped):
                blocks.append(Block(f"r{row:06d}_c{col:06d}", clipped))
        return tuple(blocks)

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """Return which pixels of a window (H, W) lie inside the area; all if there is none."""
        if self.area is None:
            return np.ones((window.height, window.width), bool)
        return self.area.mask(window)

    def read(self, window: Window) -> Raster:
        """Read a window across all the files that it touches, also outside of the area.

        The window may reach beyond the mosaic (invalid there). Where tiles overlap, the smaller
        pixel wins, then the last path in byte order; an invalid pixel hides nothing. A tile that
        cannot be read is named in ``failures``, the rest is delivered.

        Raises:
            InputError: it is no `geo.Window` of whole pixels.
        """
        if not _is_whole(window):
            raise InputError(f"window is {window!r}; give a geo.Window of whole pixels")
        image = np.zeros((window.height, window.width, 3), np.uint8)
        valid = np.zeros((window.height, window.width), bool)
        failures, sizes_m = [], PixelSizes(self.grid, valid.shape)
        reader = TileReader(self.grid, self.stretch, self.reading, self.begun_ns)
        with gdal_settings(self.reading):
            tiles, unusable = self._tiles_in(window, reader)
            failures += unusable
            for tile, part in tiles:
                if valid[part.slices_in(window)].all():
                    continue
                seen = reader.read(tile, part)
                for pixels in seen:
                    here = pixels.window.slices_in(window)
                    new = pixels.valid & ~valid[here]
                    if new.all():  # the usual case, 40 x faster than a copy by mask
                        image[here] = pixels.image
                    else:
                        np.copyto(image[here], pixels.image, where=new[..., None])
                    valid[here] |= new
                    sizes_m.see(here, new, tile)
                if reason := next((pixels.failure for pixels in seen if pixels.failure), None):
                    failures.append(_failure(tile, reason))
        return Raster(image, valid, tuple(failures), sizes_m.largest, sizes_m.known)

    def _tiles_in(
        self, window: Window, reader: TileReader
    ) -> tuple[list[tuple[Tile, Window]], list[TileProblem]]:
        """Find the tiles in a window with their part of it, the one to be seen first."""
        tiles, unusable = [], []
        for index in self.touching(window):
            placed = self._place_of(index)
            found = reader.header(placed)
            part = placed.reach.intersection(window)
            assert part is not None, "touching() returns tiles that meet the window"
            if isinstance(found, Tile):
                tiles.append((found, part))
            else:
                unusable.append(found)
        tiles.sort(key=lambda item: painting_key(item[0], self.grid), reverse=True)
        return tiles, unusable

    def touching(self, window: Window) -> list[int]:
        """Return the indices of the tiles that share a pixel with the window."""
        near = np.sort(self._tree.query(window.polygon()))
        return [int(i) for i in near if self._place_of(i).reach.intersection(window)]

    def _place_of(self, index: int) -> Placement:
        return Placement(self.tiles[index], self.windows[index])

    @cached_property
    def _tree(self) -> shapely.STRtree:
        reaches = (self._place_of(index).reach for index in range(len(self.tiles)))
        edges = [(w.col_off, w.row_off, w.col_end, w.row_end) for w in reaches]
        return shapely.STRtree(shapely.box(*np.array(edges, float).reshape(-1, 4).T))  # 0 tiles too


def _sample_headers(found: Scan, reading: ReadOptions) -> list[Tile]:
    """Read headers of listed tiles, evenly spread; those that cannot be used show up when read."""
    if not found.listed:
        return []
    last = len(found.listed) - 1
    chosen = np.unique(np.linspace(0, last, SAMPLED_HEADERS).round().astype(int))
    headers = inspect_all([found.listed[index].path for index in chosen], reading)
    usable = [header for header in headers if isinstance(header, Tile)]
    if not usable and not found.tiles:
        problems = [header for header in headers if isinstance(header, TileProblem)]
        raise InputError(f"no usable tile: {summary(problems)}")
    return usable


def _round_origin(grid: Grid) -> Grid:
    digits = ORIGIN_DIGITS + max(0, round(math.log10(grid.unit_m)))  # a kilometer has more
    a, b, c, d, e, f = grid.transform[:6]
    return replace(grid, transform=Affine(a, b, round(c, digits), d, e, round(f, digits)))


class PixelSizes:
    """Pixel sizes of the imagery that was seen in a window."""

    def __init__(self, grid: Grid, shape: tuple[int, ...]) -> None:
        self.largest = grid.gsd_m
        self.known: NDArray[np.float64] | None = None
        self._grid = grid
        self._shape = shape

    def see(self, here: tuple[slice, slice], new: NDArray[np.bool_], tile: Tile) -> None:
        """Note the size of a tile's pixels for those that were newly seen."""
        size_m = true_gsd_m(tile, self._grid.crs)
        if size_m <= self._grid.gsd_m * (1 + PIXEL_SIZE_TOLERANCE) or not new.any():
            return
        self.largest = max(self.largest, size_m)
        if self.known is None:
            self.known = np.full(self._shape, self._grid.gsd_m)
        self.known[here][new] = size_m


def _is_whole(window: object) -> bool:
    """Return whether it is a window of whole pixels: rasterio has another kind of the same name."""
    if not isinstance(window, Window):
        return False
    numbers = (window.row_off, window.col_off, window.height, window.width)
    return all(isinstance(x, Integral) for x in numbers) and min(numbers[2:]) >= 0


def _failure(tile: Tile, reason: str) -> TileProblem:
    text = f"failed on reading ({first_line(reason)}); {remedy_of(tile.path)}"
    return TileProblem(tile.path, text, tile.grid.footprint(), tile.crs)

"""One tile read onto the grid of a job, with patience: what it cannot show is a failure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from rasterio.errors import RasterioError

from geo.errors import first_line
from geo.grid import Grid, Window
from geo.imagery.headers import ListedTile, Tile, TileProblem, inspect
from geo.imagery.opening import RETRY_DELAY_S, is_remote, stamp_of
from geo.imagery.placing import Placement, aligned_offset, place
from geo.imagery.reading import Stretch, forget, open_raster, read_readable
from geo.imagery.warp import Pixels, sample
from geo.imagery.web import NO_STAMP, WEB, look_at
from geo.options import ReadOptions

CHANGED = "was changed after the job had begun; give the same command again"

KNOWN_HEADERS = 4096
"""Headers of listed tiles that a process remembers."""


@dataclass(frozen=True)
class TileReader:
    """How the tiles of a job are read: onto which grid, with which stretch, how patiently."""

    grid: Grid
    stretch: Stretch | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    begun_ns: int = 0
    """When the tiles were found, ns since 1970; a copy on another node may have another time."""

    def header(self, placed: Placement) -> Tile | TileProblem:
        """Describe a tile; the header of a listed one is read now, checked and remembered.

        A file that was changed since it was found is a problem: its pixels would be those of two.
        """
        tile = placed.tile
        if self._is_changed(tile):
            outline = tile.grid.footprint() if isinstance(tile, Tile) else tile.footprint
            return TileProblem(tile.path, CHANGED, outline, tile.crs)
        if isinstance(tile, Tile):
            return tile
        found = _header(tile.path, tile.stamp, self.options)
        if isinstance(found, TileProblem):
            return replace(found, footprint=tile.footprint, crs=tile.crs)
        if is_remote(tile.path) and self._is_changed(found):
            return TileProblem(tile.path, CHANGED, tile.footprint, tile.crs)
        place_in_fact = place(found, self.grid)
        if isinstance(place_in_fact, TileProblem):
            return place_in_fact
        if not placed.allows(place_in_fact.window):
            reason = "is not where the tile index says; write the index again"
            return TileProblem(tile.path, reason, tile.footprint, tile.crs)
        if found.dtype == "uint16" and self.stretch is None:
            reason = "has 16 bits, unlike the tiles that were sampled; set stretch=[LOW,HIGH]"
            return TileProblem(tile.path, reason, tile.footprint, tile.crs)
        return found

    def _is_changed(self, tile: Tile | ListedTile) -> bool:
        is_asked = tile.path.startswith(WEB)
        if tile.stamp == NO_STAMP or (is_remote(tile.path) and not is_asked):
            return False
        try:
            stamp = look_at(tile.path, self.options).stamp if is_asked else stamp_of(tile.path)
        except (OSError, ValueError):
            return False  # it has vanished, which reading says
        sizes = (0, tile.stamp[0]) if is_asked else tile.stamp[:1]  # 0: a server did not tell
        return stamp[0] not in sizes or stamp[1] > max(tile.stamp[1], self.begun_ns)

    def read(self, tile: Tile, window: Window) -> list[Pixels]:
        """Read what a tile shows of a window of the grid; what it cannot show is a failure.

        A failed read is tried again with the file opened anew. A tile that failed for good once is
        tried once from then on.
        """
        known = (tile.path, tile.stamp) in _failed_before
        tries = 1 if known else self.options.retries + 1
        for attempt in range(tries):
            try:
                seen = list(self._pixels(tile, window))
            except (OSError, RasterioError) as error:
                image = np.zeros((window.height, window.width, 3), np.uint8)
                seen = [Pixels(window, image, image[..., 0] > 0, first_line(error))]
            if all(pixels.failure is None for pixels in seen):
                return seen
            forget(tile.path)  # a PNG or JPEG tells of a fault once
            if attempt < tries - 1:
                time.sleep(RETRY_DELAY_S * 2**attempt)
        _failed_before.add((tile.path, tile.stamp))
        return seen

    def _pixels(self, tile: Tile, window: Window) -> Iterator[Pixels]:
        raster = open_raster(tile.path, tile.driver, self.options)
        if raster.shape != tile.shape:
            raise OSError(f"its size changed from {tile.shape} to {raster.shape} pixels")
        offset = aligned_offset(tile, self.grid)
        if offset is None:
            yield from sample(raster, tile.grid, self.grid, window, self.stretch)
            return
        part = window.intersection(Window(*offset, *tile.shape))
        if part is None:
            return
        own = Window(part.row_off - offset[0], part.col_off - offset[1], part.height, part.width)
        yield Pixels(part, *read_readable(raster, own, stretch=self.stretch))


_failed_before: set[tuple[str, tuple[int, int]]] = set()
"""Tiles on which this process has spent all its tries."""


@lru_cache(maxsize=KNOWN_HEADERS)
def _header(path: str, stamp: tuple[int, int], options: ReadOptions) -> Tile | TileProblem:
    return inspect(path, options)

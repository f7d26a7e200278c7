"""Where pixels count: polygons of a user's vector file, or surroundings of roads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry import LineString, Polygon

from geo.errors import InputError
from geo.grid import Grid, Window
from geo.vectors import AREAS, bring_to, read_vectors

CELL_PX = 1024
"""Polygons are drawn in cells of this side at fixed places: a pixel is in or out whatever window
asks, even where an outline runs through its very center."""


@dataclass(frozen=True)
class Area:
    """The pixels whose centers lie inside every region; a region is any of its polygons.

    Attributes:
        regions: polygons in pixel corner coordinates of the grid.
    """

    regions: tuple[tuple[Polygon, ...], ...]

    @classmethod
    def read(
        cls,
        grid: Grid,
        polygons: Path | None = None,
        lines: Sequence[LineString] = (),
        *,
        buffer_m: float,
    ) -> Area | None:
        """Read the area of a job; None without a file and lines.

        Args:
            grid: the job's; what the file holds is transformed to its CRS.
            polygons: a vector file of areas.
            lines: roads, in the grid's CRS.
            buffer_m: how far from a road imagery counts, in meters.

        Raises:
            InputError: the file is unreadable, has no CRS or polygon, or it or the lines lie
                elsewhere.
        """
        regions = []
        if polygons is not None:
            regions.append(_region(_polygons(polygons, grid), grid, f"aoi={polygons}"))
        if lines:
            around = shapely.buffer(np.array(lines, object), buffer_m / grid.unit_m)
            regions.append(_region(around, grid, "the roads"))
        return cls(tuple(regions)) if regions else None

    def touches(self, window: Window) -> bool:
        """Return whether a window shares a point with each region."""
        box = window.polygon()
        return all(len(tree.query(box, "intersects")) for tree in self._trees)

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """Return (H, W) bool, True on pixels of the area."""
        mask = np.zeros((window.height, window.width), bool)
        for row in range(window.row_off // CELL_PX, -(-window.row_end // CELL_PX)):
            for col in range(window.col_off // CELL_PX, -(-window.col_end // CELL_PX)):
                cell = Window(row * CELL_PX, col * CELL_PX, CELL_PX, CELL_PX)
                part = cell.intersection(window)
                assert part is not None, "a cell in the window's range meets the window"
                mask[part.slices_in(window)] = self._cell(cell)[part.slices_in(cell)]
        return mask

    @property
    def digest(self) -> str:
        """A hash of the outlines."""
        digest = hashlib.sha256()
        for region in self.regions:
            digest.update(len(region).to_bytes(8, "little"))
            digest.update(b"".join(shapely.to_wkb(np.array(region, object))))
        return digest.hexdigest()

    def _cell(self, cell: Window) -> NDArray[np.bool_]:
        inside = np.ones((cell.height, cell.width), bool)
        box, around = cell.polygon(), cell.pad(1)
        for region, tree in zip(self.regions, self._trees, strict=True):
            near = np.sort(tree.query(box, "intersects"))
            if len(tree.query(box, "covered_by")):
                continue
            clipped = [
                shapely.clip_by_rect(
                    region[i], around.col_off, around.row_off, around.col_end, around.row_end
                )
                for i in near
            ]
            shapes = [(shape, 1) for shape in clipped if not shape.is_empty]
            if not shapes:
                return np.zeros_like(inside)
            here = Affine(1, 0, cell.col_off, 0, 1, cell.row_off)
            inside &= rasterize(shapes, inside.shape, transform=here, dtype="uint8") > 0
        return inside

    @cached_property
    def _trees(self) -> tuple[shapely.STRtree, ...]:
        return tuple(shapely.STRtree(region) for region in self.regions)


def _polygons(path: Path, grid: Grid) -> Iterator[Polygon]:
    found = bring_to(read_vectors(path, "aoi", AREAS), grid, 0.0, "aoi")
    parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(found.shapes)))
    yield from (part for part in parts if isinstance(part, Polygon) and not part.is_empty)


def _region(polygons: Iterable[Polygon], grid: Grid, key: str) -> tuple[Polygon, ...]:
    """Return the polygons that meet the mosaic, in pixel coordinates."""
    on_grid = shapely.transform(np.array(list(polygons), object), grid.to_pixel)
    frame = grid.window.polygon()
    met = on_grid[shapely.intersects(on_grid, frame) & ~shapely.touches(on_grid, frame)]
    if not len(met):
        raise InputError(f"nothing of {key} lies on the tiles; check its coordinate system")
    return tuple(met)

"""Where pixels count: polygons, or surroundings of lines, from a user's vector files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.features import rasterize
from shapely.geometry import Polygon

from geo.errors import InputError, first_line
from geo.grid import Grid, Window

CELL_PX = 1024
"""Polygons are drawn in cells of this side at fixed places: a pixel is in or out whatever window
asks, even where an outline runs through its very center."""

PARQUET_SUFFIXES = frozenset({".parquet", ".geoparquet"})


@dataclass(frozen=True)
class Area:
    """The pixels whose centers lie inside every region; a region is any of its polygons.

    Attributes:
        regions: polygons in pixel corner coordinates of the grid.
    """

    regions: tuple[tuple[Polygon, ...], ...]

    @classmethod
    def read(
        cls, grid: Grid, polygons: Path | None = None, lines: Path | None = None, *, buffer_m: float
    ) -> Area | None:
        """Read the area of a job; None if neither file is given.

        Args:
            grid: the job's; what the files hold is transformed to its CRS.
            polygons: a vector file of areas.
            lines: a vector file of roads.
            buffer_m: how far from a road imagery counts, in meters.

        Raises:
            InputError: a file is unreadable, has no CRS or nothing of its kind, or lies elsewhere.
        """
        regions = []
        if polygons is not None:
            regions.append(_region(_polygons(polygons, grid), grid, polygons))
        if lines is not None:
            regions.append(_region(_surroundings(lines, grid, buffer_m), grid, lines))
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
    frame = read_vectors(path, grid.crs, "aoi")
    areas = frame[frame.geom_type.isin(("Polygon", "MultiPolygon"))]
    if areas.empty:
        raise InputError(f"aoi={path} holds no polygon; draw the area as polygons")
    yield from _parts(areas.geometry.make_valid())


def _surroundings(path: Path, grid: Grid, buffer_m: float) -> Iterator[Polygon]:
    frame = read_vectors(path, grid.crs, "roads.path")
    lines = frame[frame.geom_type.isin(("LineString", "MultiLineString"))]
    if lines.empty:
        raise InputError(f"roads.path={path} holds no line; give the centerlines of the roads")
    yield from _parts(lines.geometry.buffer(buffer_m / grid.unit_m))


def _parts(shapes: geopandas.GeoSeries) -> Iterator[Polygon]:
    parts = shapely.get_parts(shapely.get_parts(shapes.to_numpy()))
    yield from (part for part in parts if isinstance(part, Polygon) and not part.is_empty)


def _region(polygons: Iterator[Polygon], grid: Grid, path: Path) -> tuple[Polygon, ...]:
    """Return the polygons that meet the mosaic, in pixel coordinates."""
    on_grid = shapely.transform(np.array(list(polygons), object), grid.to_pixel)
    met = on_grid[shapely.intersects(on_grid, grid.window.polygon())]
    if not len(met):
        raise InputError(f"nothing of {path} lies on the tiles; check its coordinate system")
    return tuple(met)


def read_vectors(path: Path, crs: CRS, key: str) -> geopandas.GeoDataFrame:
    """Read a vector file into a CRS; rows without a geometry are left out.

    Args:
        path: GeoPackage, GeoParquet, GeoJSON, Shapefile or another OGR format; of several layers
            the first with geometries.
        crs: to transform to.
        key: the setting that names the file, for messages.

    Raises:
        InputError: missing, unreadable, without a CRS or empty.
    """
    if not path.exists():
        raise InputError(f"{key}={path} does not exist; give a vector file")
    try:
        frame = read_table(path)
    except (OSError, ValueError, pa.ArrowException, DataSourceError, DataLayerError) as error:
        raise InputError(
            f"{key}={path} cannot be read ({first_line(error)}); write it again"
        ) from error
    if frame.crs is None:
        raise InputError(f"{key}={path} has no coordinate system; write it again with one")
    present = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    return present.to_crs(crs.to_wkt())


def read_table(path: Path, layer: str | None = None) -> geopandas.GeoDataFrame:
    """Read one layer of a vector file; without a name the first one with geometries.

    Raises:
        OSError, ValueError, ArrowException, DataSourceError, DataLayerError: it is unreadable.
    """
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return geopandas.read_parquet(path)
    return pyogrio.read_dataframe(path, layer=layer or layers(path)[0])


def layers(path: Path) -> list[str]:
    """Return the names of the layers with geometries.

    Raises:
        ValueError: there is none.
        DataSourceError: the file is unreadable.
    """
    names = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if not names:
        raise ValueError("it has no layer with geometries")
    return names

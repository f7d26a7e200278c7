"""How well a crack map agrees with the drawn truth: pixels, found length, length that is right.

Lines and polygons are in one plane of pixels (x right, y down); tolerances are in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine
from shapely.geometry.base import BaseGeometry
from skimage.morphology import skeletonize

from geo.arrays import BoolArray, FloatArray
from geo.paths import literal
from jobs.demo.draw import ORIGIN_M
from wpcrack.synthetic import City, Frame

BUFFER_SEGMENTS = 16
"""Of a quarter circle: the tolerance is right to .5 %."""

TOLERANCE_M = 0.02
"""A centerline counts as found, a skeleton as right, within this distance."""

SCORE_HALO_PX = 32
"""Around each tile, so that skeletons do not end at tile borders."""


@dataclass(frozen=True)
class Share:
    """A part of a whole; `value` is 1 where there is no whole (nothing to miss)."""

    part: float
    whole: float

    @property
    def value(self) -> float:
        """The part as a share of the whole, in [0, 1]."""
        return self.part / self.whole if self.whole > 0 else 1.0

    def __add__(self, other: Share) -> Share:
        return Share(self.part + other.part, self.whole + other.whole)


@dataclass(frozen=True)
class PixelCounts:
    """Crack pixels: predicted and true, only predicted, only true."""

    hit: int = 0
    false: int = 0
    missed: int = 0

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(
            self.hit + other.hit, self.false + other.false, self.missed + other.missed
        )

    @property
    def iou(self) -> float:
        """Intersection over union: hit / (hit + false + missed); 1 where both are empty."""
        return Share(self.hit, self.hit + self.false + self.missed).value

    @property
    def f1(self) -> float:
        """F1 score: 2 hit / (2 hit + false + missed); 1 where both are empty."""
        return Share(2 * self.hit, 2 * self.hit + self.false + self.missed).value


@dataclass(frozen=True)
class MapScore:
    """Agreement of the map with the truth."""

    pixel_iou: float
    f1: float
    recall_2cm: float
    """Share of the length of true centerlines within 2 cm of a predicted polygon; cracks of at
    least one pixel mean width."""
    precision_2cm: float
    """Share of the length of the predicted skeleton within 2 cm of a true crack of any width."""
    recall_2cm_thin: float
    """recall_2cm of the cracks thinner than one pixel on average."""
    true_m: float
    """Length of the true centerlines of at least one pixel mean width."""
    thin_m: float
    predicted_m: float
    """Length of the predicted skeleton."""
    cracks: int
    """Predicted cracks."""


def score_map(geopackage: Path, city: City) -> MapScore:
    """Compare the outlines of a GeoPackage with the city's truth."""
    world = geopandas.read_file(literal(geopackage), layer="outline").geometry.to_numpy()
    polygons = shapely.transform(world, lambda xy: _to_plane(xy, city.gsd_m))
    tolerance_px = TOLERANCE_M / city.gsd_m
    found = found_length([crack.points_px for crack in city.cracks], polygons, tolerance_px)
    wide = [float(np.mean(crack.width_px)) >= 1.0 for crack in city.cracks]
    recall = sum((s for s, w in zip(found, wide, strict=True) if w), Share(0, 0))
    thin = sum((s for s, w in zip(found, wide, strict=True) if not w), Share(0, 0))
    counts, right = _score_pixels(polygons, city, tolerance_px)
    return MapScore(
        pixel_iou=round(counts.iou, 4),
        f1=round(counts.f1, 4),
        recall_2cm=round(recall.value, 4),
        precision_2cm=round(right.value, 4),
        recall_2cm_thin=round(thin.value, 4),
        true_m=round(recall.whole * city.gsd_m, 2),
        thin_m=round(thin.whole * city.gsd_m, 2),
        predicted_m=round(right.whole * city.gsd_m, 2),
        cracks=int(pyogrio.read_info(literal(geopackage), layer="crack")["features"]),
    )


def _score_pixels(
    polygons: npt.NDArray[np.object_], city: City, tolerance_px: float
) -> tuple[PixelCounts, Share]:
    """Count pixels and right length, tile by tile."""
    tree = shapely.STRtree(polygons)
    counts, right = PixelCounts(), Share(0, 0)
    size = city.config.tile_px
    inner = slice(SCORE_HALO_PX, SCORE_HALO_PX + size)
    for row, col in city.places:
        tile = Frame(row * size, col * size, size, size)
        frame = tile.grow(SCORE_HALO_PX)
        area = shapely.box(
            frame.col_off,
            frame.row_off,
            frame.col_off + frame.width,
            frame.row_off + frame.height,
        )
        near = tree.geometries[tree.query(area, predicate="intersects")]
        predicted = burn(near, frame.row_off, frame.col_off, (frame.height, frame.width))
        true = city.mask(frame)
        core = (inner, inner)
        counts += pixel_counts(predicted[core], true[core], city.valid(tile))
        right += right_length(predicted, true, tolerance_px, core)
    return counts, right


def _to_plane(world: npt.NDArray[np.float64], gsd_m: float) -> npt.NDArray[np.float64]:
    """Turn easting, northing (N, 2) into plane pixels x, y.

    The origin is taken away first. `Grid.to_pixel` differs by 1e-7 of a pixel, which decides on
    which side of pixel centers some outlines run: .0004 of the pixel IoU.
    """
    east, north = ORIGIN_M
    return np.stack([(world[:, 0] - east) / gsd_m, (north - world[:, 1]) / gsd_m], axis=1)


def found_length(
    lines: Sequence[FloatArray], polygons: Sequence[BaseGeometry], tolerance_px: float
) -> list[Share]:
    """Measure the length of each line that lies within the tolerance of any polygon.

    Args:
        lines: True centerlines, each (N, 2) x, y.
        polygons: Predicted cracks.
        tolerance_px: Distance that still counts.

    Returns:
        Found length and whole length of each line.
    """
    tree = shapely.STRtree(shapely.buffer(list(polygons), tolerance_px, quad_segs=BUFFER_SEGMENTS))
    shares = []
    for points in lines:
        line = shapely.LineString(points)
        near = tree.geometries[tree.query(line, predicate="intersects")]
        found = shapely.intersection(line, shapely.union_all(near)).length if len(near) else 0.0
        shares.append(Share(found, line.length))
    return shares


def right_length(
    predicted: BoolArray, true: BoolArray, tolerance_px: float, core: tuple[slice, slice]
) -> Share:
    """Measure the length of the predicted skeleton that lies within the tolerance of a true pixel.

    Args:
        predicted: (H, W) predicted crack pixels of a window with its halo.
        true: (H, W) true crack pixels of the same window.
        tolerance_px: Distance from the center of a skeleton pixel to the edge of a true pixel
            that still counts.
        core: The part of the window that counts; the halo keeps the skeleton whole at its edge.

    Returns:
        Right length and whole length in pixels. Half of each link between neighboring skeleton
        pixels belongs to either of them (1 straight, sqrt(2) diagonal); a lone pixel counts 1.
    """
    length = _link_lengths(skeletonize(predicted))  # type: ignore[no-untyped-call]
    if true.any():
        away = cv2.distanceTransform((~true).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near = np.asarray(away) <= tolerance_px + 0.5  # to the center of a true pixel
    else:
        near = np.zeros_like(true)
    return Share(float(length[core][near[core]].sum()), float(length[core].sum()))


def pixel_counts(predicted: BoolArray, true: BoolArray, valid: BoolArray) -> PixelCounts:
    """Count over the valid pixels."""
    return PixelCounts(
        hit=int((predicted & true & valid).sum()),
        false=int((predicted & ~true & valid).sum()),
        missed=int((~predicted & true & valid).sum()),
    )


def burn(
    polygons: Iterable[BaseGeometry], row_off: int, col_off: int, shape: tuple[int, int]
) -> BoolArray:
    """Return the pixels of a window whose center lies in a polygon, (H, W) bool."""
    shapes = [polygon for polygon in polygons if not polygon.is_empty]
    if not shapes:
        return np.zeros(shape, np.bool_)
    burned = rasterize(
        shapes, out_shape=shape, transform=Affine.translation(col_off, row_off), dtype=np.uint8
    )
    return np.asarray(burned, np.bool_)


def _link_lengths(skeleton: BoolArray) -> FloatArray:
    """Return the length that each skeleton pixel stands for, (H, W)."""
    height, width = skeleton.shape
    padded = np.pad(skeleton, 1).astype(np.float64)

    def neighbor(row: int, col: int) -> FloatArray:
        return padded[row : row + height, col : col + width]

    straight = neighbor(0, 1) + neighbor(2, 1) + neighbor(1, 0) + neighbor(1, 2)
    diagonal = np.zeros_like(straight)
    for row in (0, 2):
        for col in (0, 2):  # counts only where no common straight neighbor joins the two already
            joined = np.maximum(neighbor(row, 1), neighbor(1, col))
            diagonal += neighbor(row, col) * (1.0 - joined)
    links = 0.5 * (straight + np.sqrt(2.0) * diagonal)
    return np.where(skeleton, np.where(links > 0, links, 1.0), 0.0)

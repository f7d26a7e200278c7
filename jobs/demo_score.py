"""How well a crack map agrees with known truth: pixels, found length, length that is right.

Lines and polygons are in one plane of pixels (x right, y down); tolerances are in pixels. Pure
geometry: nothing here reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine
from shapely.geometry.base import BaseGeometry
from skimage.morphology import skeletonize

Mask = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

_BUFFER_SEGMENTS = 16  # of a quarter circle: the tolerance is right to .5 %


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


def found_length(
    lines: Sequence[Float64], polygons: Sequence[BaseGeometry], tolerance_px: float
) -> list[Share]:
    """Length of each line that lies within the tolerance of any polygon.

    Args:
        lines: True centerlines, each (N, 2) x, y.
        polygons: Predicted cracks.
        tolerance_px: Distance that still counts.

    Returns:
        Found length and whole length of each line.
    """
    tree = shapely.STRtree(shapely.buffer(list(polygons), tolerance_px, quad_segs=_BUFFER_SEGMENTS))
    shares = []
    for points in lines:
        line = shapely.LineString(points)
        near = tree.geometries[tree.query(line, predicate="intersects")]
        found = shapely.intersection(line, shapely.union_all(near)).length if len(near) else 0.0
        shares.append(Share(found, line.length))
    return shares


def right_length(
    predicted: Mask, true: Mask, tolerance_px: float, core: tuple[slice, slice]
) -> Share:
    """Length of the predicted skeleton that lies within the tolerance of a true pixel.

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


def pixel_counts(predicted: Mask, true: Mask, valid: Mask) -> PixelCounts:
    """Counts over the valid pixels."""
    return PixelCounts(
        hit=int((predicted & true & valid).sum()),
        false=int((predicted & ~true & valid).sum()),
        missed=int((~predicted & true & valid).sum()),
    )


def burn(
    polygons: Iterable[BaseGeometry], row_off: int, col_off: int, shape: tuple[int, int]
) -> Mask:
    """Pixels of a window whose center lies in a polygon, (H, W) bool."""
    shapes = [polygon for polygon in polygons if not polygon.is_empty]
    if not shapes:
        return np.zeros(shape, np.bool_)
    burned = rasterize(
        shapes, out_shape=shape, transform=Affine.translation(col_off, row_off), dtype=np.uint8
    )
    return np.asarray(burned, np.bool_)


def _link_lengths(skeleton: Mask) -> Float64:
    """Length that each skeleton pixel stands for, (H, W)."""
    height, width = skeleton.shape
    padded = np.pad(skeleton, 1).astype(np.float64)

    def neighbor(row: int, col: int) -> Float64:
        return padded[row : row + height, col : col + width]

    straight = neighbor(0, 1) + neighbor(2, 1) + neighbor(1, 0) + neighbor(1, 2)
    diagonal = np.zeros_like(straight)
    for row in (0, 2):
        for col in (0, 2):  # counts only where no common straight neighbor joins the two already
            joined = np.maximum(neighbor(row, 1), neighbor(1, col))
            diagonal += neighbor(row, col) * (1.0 - joined)
    links = 0.5 * (straight + np.sqrt(2.0) * diagonal)
    return np.where(skeleton, np.where(links > 0, links, 1.0), 0.0)

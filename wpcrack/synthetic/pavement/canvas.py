"""What a drawn window consists of before light and camera: color, relief, darkness and truth.

Two coordinate systems: the plane of the pavement and the image, both in pixels, x to the right
and y down; pixel (r, c) covers [c, c+1] x [r, r+1]. A view maps the one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wpcrack.synthetic.arrays import Float32, Float64
from wpcrack.synthetic.pavement.fields import Shape

SUPERSAMPLING = 4
"""Each pixel is 4 x 4 samples where coverage is measured."""

_FRACTION_BITS = 4


class Kind(IntEnum):
    """What a pixel shows: the values of a class map. Everything but CRACK is no crack."""

    SURFACE = 0
    CRACK = 1
    JOINT = 2
    SEALANT = 3
    SEAM = 4
    MARKING = 5
    PEBBLE = 6
    EDGE = 7
    VEGETATION = 8
    METAL = 9
    STAIN = 10
    TYRE = 11
    LEAF = 12
    CABLE = 13
    GROOVE = 14
    PATCH = 15


@dataclass(frozen=True)
class View:
    """How the camera sees the plane.

    Attributes:
        matrix: (3, 3) homography from plane to image coordinates.
        plane: (H, W) of the part of the plane that is drawn.
        image: (H, W) of the image.
    """

    matrix: Float64
    plane: Shape
    image: Shape

    @cached_property
    def straight(self) -> bool:
        """Whether plane and image are the same."""
        return self.plane == self.image and bool(np.allclose(self.matrix, np.eye(3)))

    def project(self, points: Float64) -> Float64:
        """Turn plane coordinates (N, 2) to image coordinates."""
        if self.straight:
            return points
        h = np.column_stack([points, np.ones(len(points))]) @ self.matrix.T
        return np.asarray(h[:, :2] / h[:, 2:])

    def magnification(self, points: Float64) -> Float64:
        """Return the root of the area of a unit of the plane in the image, (N,) at (N, 2)."""
        if self.straight:
            return np.ones(len(points))
        depth = points @ self.matrix[2, :2] + self.matrix[2, 2]
        return np.asarray(np.sqrt(abs(np.linalg.det(self.matrix))) / np.abs(depth) ** 1.5)

    def warp(self, field: Float32) -> Float32:
        """Return a field of the plane, (H, W[, C]), as the image sees it."""
        if self.straight:
            return field
        shift = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])  # pixel centers are at .5
        matrix = shift @ self.matrix @ np.linalg.inv(shift)
        return np.asarray(
            cv2.warpPerspective(
                field,
                matrix,
                (self.image[1], self.image[0]),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT_101,
            ),
            np.float32,
        )


@dataclass
class Canvas:
    """The window in the making; painters change it in place.

    Attributes:
        view: Plane and image.
        gsd_mm: Size of a pixel of the plane.
        albedo: (H, W, 3) share of light that comes back, about [0, 1], RGB.
        relief: (H, W) height in pixels.
        gloom: (H, W) share of the light that never gets there (the depth of a crack).
        classes: (H, W) uint8 of `Kind`.
        mask: (H, W) bool, crack pixels that are seen.
        width_px: (H, W) float32, full width of the crack at its pixels, else 0.
    """

    view: View
    gsd_mm: float
    albedo: Float32
    relief: Float32
    gloom: Float32
    classes: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    width_px: Float32

    @property
    def shape(self) -> Shape:
        """(H, W) of the image."""
        return self.view.image

    def px(self, mm: float) -> float:
        """Turn millimeters on the ground to pixels of the plane."""
        return mm / self.gsd_mm

    def tint(self, cover: Float32, color: npt.NDArray[Any] | Sequence[float]) -> None:
        """Blend a color, (3,) or (H, W, 3), over the albedo where `cover` (H, W) says so."""
        rows, cols = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
        if not rows.size:
            return
        part = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
        paint = np.asarray(color, np.float32)
        paint = paint if paint.ndim == 1 else paint[part]
        self.albedo[part] += cover[part][..., None] * (paint - self.albedo[part])

    def claim(self, cover: Float32, kind: Kind, *, hides: bool = True) -> None:
        """Make pixels that are covered by half or more of a kind; hidden cracks are no truth."""
        here = cover >= 0.5
        if not hides:
            here &= ~self.mask
        self.classes[here] = kind
        if hides:
            self.mask[here] = False
            self.width_px[here] = 0


def coverage(polygons: Sequence[Float64], shape: Shape) -> Float32:
    """Return the share of each pixel that lies in any of the polygons, (H, W) in [0, 1].

    Args:
        polygons: (N, 2) image coordinates of the corners of each.
        shape: (H, W) of the image.
    """
    return area_mean(samples(polygons, shape), shape)


def samples(polygons: Sequence[Float64], shape: Shape) -> npt.NDArray[np.uint8]:
    """Return the polygons on the grid of samples, (4 H, 4 W), 255 inside."""
    fine = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(fine, [fixed_point(polygon)], 255, shift=_FRACTION_BITS)
    return fine


def fixed_point(points: Float64) -> npt.NDArray[np.int32]:
    """Return image coordinates on the grid of samples in OpenCV's fixed point, centers whole."""
    limit = 2.0**14
    scaled = (points * SUPERSAMPLING - 0.5).clip(-limit, limit) * (1 << _FRACTION_BITS)
    return np.asarray(np.rint(scaled), np.int32)


def area_mean(fine: npt.NDArray[np.uint8], shape: Shape) -> Float32:
    """Return the mean over the samples of each pixel, (H, W) in [0, 1]."""
    small = cv2.resize(fine, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)

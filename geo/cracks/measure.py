"""How length and width of the centerlines of one piece are taken from its pixels.

The mean width of a piece's mask is area / length, which is right to 0.03 pixels. The distance
transform knows a width only up to a constant that depends on the angle (up to 0.7 pixels), so it
gives the differences among branches and area / length gives the level. What the map says of a
crack's width comes from the imagery (`geo.cracks.width`), which needs that of the mask to know
where to look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo.arrays import FloatArray
from geo.cracks.centerline import Branch
from geo.grid import Grid

PROFILE_PX = 5
"""Window of the moving average over a width profile, whose raw values are whole pixel steps."""


@dataclass(frozen=True, eq=False, slots=True)
class MeasuredBranch:
    """A centerline.

    Attributes:
        line: (N, 2) col, row in mosaic pixels.
        length_m: of the line.
        mask_width_m: mean width of the mask along it.
        from_node, to_node: numbers of its nodes in the piece; equal for a loop.
    """

    line: FloatArray
    length_m: float
    mask_width_m: float
    from_node: int
    to_node: int


def measure(branches: Sequence[Branch], n_pixels: int, grid: Grid) -> tuple[MeasuredBranch, ...]:
    """Measure the centerlines of a piece with their number of pixels.

    Args:
        branches: at least one.
        n_pixels: of the piece.
        grid: the pixels' size and shape.
    """
    length_m = sum(branch.length_m for branch in branches)
    means = [float(mean_widths(branch.reach_m[None])[0]) for branch in branches]
    weighted = sum(b.length_m * mean for b, mean in zip(branches, means, strict=True)) / length_m
    level = n_pixels * grid.pixel_area_m2 / length_m - weighted
    least = min(grid.pixel_m) / 2
    return tuple(
        MeasuredBranch(
            line=branch.line,
            length_m=branch.length_m,
            mask_width_m=max(mean + level, least),
            from_node=branch.from_node,
            to_node=branch.to_node,
        )
        for branch, mean in zip(branches, means, strict=True)
    )


def mean_widths(reach_m: FloatArray) -> FloatArray:
    """Return the mean width (G,) along branches up to a constant: twice the border distance.

    The profile is smoothed and its ends repeat, so that the pixels near an end, which lie closer
    to the border, do not count more than others.

    Args:
        reach_m: (G, K) of G branches with K pixels each.
    """
    length = reach_m.shape[1]
    size = min(PROFILE_PX, length)
    edges = np.pad(2 * reach_m, ((0, 0), (size // 2, size - 1 - size // 2)), mode="edge")
    total = edges[:, :length]
    for step in range(1, size):
        total = total + edges[:, step : step + length]
    means: FloatArray = (total / size).mean(axis=1)
    return means


def path_widths(
    reach_m: FloatArray, length_m: FloatArray, n_pixels: NDArray[np.int64], grid: Grid
) -> FloatArray:
    """Return the mean mask width (G,) of pieces that are a single path, as `measure` has it.

    Args:
        reach_m: (G, K) distance of the skeletons' pixels to the border.
        length_m: (G,) of the centerlines.
        n_pixels: (G,) of the pieces.
        grid: the pixels' size and shape.
    """
    means = mean_widths(reach_m)
    level = n_pixels * grid.pixel_area_m2 / length_m - length_m * means / length_m
    return np.maximum(means + level, min(grid.pixel_m) / 2)


def orientations(steps_m: FloatArray, owner: NDArray[np.int64], count: int) -> FloatArray:
    """Return the mean direction of each crack, clockwise from grid north; nan if there is none.

    The axial mean of their segments, weighted by length. One of (x, y) meters adds its length
    times sine and cosine of its doubled angle, which are 2xy / length and (yy - xx) / length.

    Args:
        steps_m: (N, 2) segments in meters, east and north.
        owner: (N,) number of each segment's crack.
        count: number of cracks.
    """
    x, y = np.ascontiguousarray(steps_m[:, 0]), np.ascontiguousarray(steps_m[:, 1])
    length = np.hypot(x, y)
    unit = np.where(length > 0, length, 1.0)
    east = np.bincount(owner, 2 * x * y / unit, minlength=count)
    north = np.bincount(owner, (y * y - x * x) / unit, minlength=count)
    none = np.hypot(east, north) < 1e-9 * np.bincount(owner, length, minlength=count)
    degrees = [
        math.degrees(math.atan2(e, n) / 2) % 180 % 180  # -1e-15 % 180 is 180
        for e, n in zip(east.tolist(), north.tolist(), strict=True)
    ]
    return np.where(none, math.nan, degrees)

"""What is measured of a crack: the records, and what all ways of measuring share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

PROFILE_PX = 5
"""Window of the moving average over a width profile, whose raw values are whole pixel steps."""

P95 = 95


@dataclass(frozen=True, eq=False, slots=True)
class MeasuredBranch:
    """A centerline: (N, 2) col, row in mosaic pixels, with length and width."""

    line: FloatArray
    length_m: float
    width_mean_m: float
    width_max_m: float
    from_node: int
    to_node: int


@dataclass(frozen=True, eq=False, slots=True)
class Measures:
    """What is known of a whole crack beyond its area.

    Attributes:
        length_m: of all centerlines.
        width_p95_m, width_max_m: of the width along them; the mean is area / length.
        orientation_deg: mean direction, clockwise from grid north, 0 <= a < 180; nan if the
            centerlines point everywhere alike.
        tortuosity: length / distance of the ends over all centerlines but loops; nan if there are
            only loops.
        loops: independent closed paths.
        branches: the centerlines.
    """

    length_m: float
    width_p95_m: float
    width_max_m: float
    orientation_deg: float
    tortuosity: float
    loops: int
    branches: tuple[MeasuredBranch, ...]


def width_profiles(reach_m: FloatArray) -> FloatArray:
    """Width along branches up to a constant: twice the distance to the border, smoothed.

    Args:
        reach_m: (G, K) of G branches with K pixels each.
    """
    length = reach_m.shape[1]
    size = min(PROFILE_PX, length)
    edges = np.pad(2 * reach_m, ((0, 0), (size // 2, size - 1 - size // 2)), mode="edge")
    total = edges[:, :length]
    for step in range(1, size):
        total = total + edges[:, step : step + length]
    means: FloatArray = total / size
    return means


def orientations(steps_m: FloatArray, owner: NDArray[np.int64], count: int) -> FloatArray:
    """Mean direction of each crack's centerlines, clockwise from grid north; nan if there is none.

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
        math.degrees(math.atan2(e, n) / 2) % 180
        for e, n in zip(east.tolist(), north.tolist(), strict=True)
    ]
    return np.where(none, math.nan, degrees)

"""The measures of one crack: how its length, width, direction and loops are taken.

This file alone says what a width is: the mean is area / length, which is right to 0.03 pixels. The
distance transform knows a width only up to a constant that depends on the angle (up to 0.7
pixels), so it gives the differences along the crack and area / length gives the level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo.cracks.centerline import Branch
from geo.grid import Grid

FloatArray = NDArray[np.float64]

PROFILE_PX = 5
"""Window of the moving average over a width profile, whose raw values are whole pixel steps."""

P95 = 95


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


@dataclass(frozen=True, eq=False, slots=True)
class MeasuredBranch:
    """A centerline: (N, 2) col, row in mosaic pixels, with length and width."""

    line: FloatArray
    length_m: float
    width_mean_m: float
    width_max_m: float
    from_node: int
    to_node: int


def measure(
    branches: Sequence[Branch], n_pixels: int, grid: Grid, *, n_graphs: int = 1
) -> Measures:
    """Measure a crack from its centerlines and its number of pixels.

    Args:
        branches: at least one.
        n_pixels: of the crack.
        grid: the pixels' size and shape.
        n_graphs: number of unconnected graphs that the branches form.
    """
    length_m = sum(branch.length_m for branch in branches)
    profiles = [width_profiles(branch.reach_m[None])[0] for branch in branches]
    means = [float(profile.mean()) for profile in profiles]
    weighted = sum(b.length_m * mean for b, mean in zip(branches, means, strict=True)) / length_m
    level = n_pixels * grid.pixel_area_m2 / length_m - weighted
    least = min(grid.pixel_m) / 2
    widths = [np.maximum(profile + level, least) for profile in profiles]
    every = np.concatenate(widths)
    return Measures(
        length_m=length_m,
        width_p95_m=float(np.percentile(every, P95)),
        width_max_m=float(every.max()),
        orientation_deg=_orientation(branches, grid),
        tortuosity=_tortuosity(branches, grid),
        loops=_loops(branches, n_graphs),
        branches=tuple(
            MeasuredBranch(
                line=branch.line,
                length_m=branch.length_m,
                width_mean_m=float(width.mean()),
                width_max_m=float(width.max()),
                from_node=branch.from_node,
                to_node=branch.to_node,
            )
            for branch, width in zip(branches, widths, strict=True)
        ),
    )


def width_profiles(reach_m: FloatArray) -> FloatArray:
    """Return the width along branches up to a constant: twice the smoothed border distance.

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


def path_widths(
    reach_m: FloatArray, length_m: FloatArray, n_pixels: NDArray[np.int64], grid: Grid
) -> FloatArray:
    """Return the widths along cracks that are a single path each, as `measure` has them.

    Args:
        reach_m: (G, K) distance of the skeletons' pixels to the border.
        length_m: (G,) of the centerlines.
        n_pixels: (G,) of the cracks.
        grid: the pixels' size and shape.
    """
    profiles = width_profiles(reach_m)
    level = n_pixels * grid.pixel_area_m2 / length_m - length_m * profiles.mean(axis=1) / length_m
    widths: FloatArray = np.maximum(profiles + level[:, None], min(grid.pixel_m) / 2)
    return widths


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
        math.degrees(math.atan2(e, n) / 2) % 180
        for e, n in zip(east.tolist(), north.tolist(), strict=True)
    ]
    return np.where(none, math.nan, degrees)


def _orientation(branches: Sequence[Branch], grid: Grid) -> float:
    steps = np.concatenate([np.diff(grid.to_meters(branch.line), axis=0) for branch in branches])
    return float(orientations(steps, np.zeros(len(steps), np.int64), 1)[0])


def _tortuosity(branches: Sequence[Branch], grid: Grid) -> float:
    length = chord = 0.0
    for branch in branches:
        if branch.from_node != branch.to_node:
            ends = grid.to_meters(branch.line[[0, -1]])
            length += branch.length_m
            chord += float(np.hypot(*(ends[1] - ends[0])))
    return length / chord if chord > 0 else math.nan


def _loops(branches: Sequence[Branch], n_graphs: int) -> int:
    """Count the independent cycles of graphs: branches - nodes + graphs."""
    nodes = {node for branch in branches for node in (branch.from_node, branch.to_node)}
    return len(branches) - len(nodes) + n_graphs

"""Soft shapes on a frame: quadrilaterals, ellipses and the smooth step that edges them."""

from __future__ import annotations

import numpy as np

from wpcrack.synthetic.arrays import Float32, Float64
from wpcrack.synthetic.axis import StreetAxis
from wpcrack.synthetic.noise import Frame

Box = tuple[float, float, float, float]


def quad_px(
    axis: StreetAxis, center_m: Float64, half_m: tuple[float, float], turn: float
) -> Float64:
    """Return corners (4, 2) in plane pixels of a rectangle given in street coordinates."""
    c, s = np.cos(turn), np.sin(turn)
    unit = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half_m
    return axis.place(center_m + unit @ np.array([[c, s], [-s, c]]))


def smooth_step(value: Float32) -> Float32:
    """Return a smooth step: 0 below 0, 1 above 1."""
    v = np.clip(value, 0.0, 1.0)
    return np.asarray(v * v * (3.0 - 2.0 * v), np.float32)


def ellipse_radius(
    frame: Frame, center: tuple[float, float], axes: tuple[float, float], angle: float
) -> Float32:
    """Return the distance from the center in units of an ellipse, (H, W)."""
    x, y = frame.centers()
    dx, dy = x - np.float32(center[0]), y - np.float32(center[1])
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.hypot(
        (c * dx + s * dy) / np.float32(axes[0]), (c * dy - s * dx) / np.float32(axes[1])
    )


def quad_cover(corners: Float64, frame: Frame, soft_px: float) -> Float32:
    """Return how far a convex quadrilateral with edges of `soft_px` pixels covers each, (H, W)."""
    x, y = frame.centers()
    edges = np.roll(corners, -1, axis=0) - corners
    turn = np.sign(edges[0, 0] * edges[1, 1] - edges[0, 1] * edges[1, 0])
    inside = np.full((frame.height, frame.width), np.inf, np.float32)
    for (px, py), (ex, ey) in zip(corners, edges * turn, strict=True):
        norm = float(np.hypot(ex, ey))
        distance = (np.float32(ex / norm) * (y - np.float32(py))) - (
            np.float32(ey / norm) * (x - np.float32(px))
        )
        np.minimum(inside, distance, out=inside)
    return smooth_step(inside / np.float32(soft_px) + 0.5)


def box_around(points: Float64, reach: float) -> Box:
    """Return the box x0, y0, x1, y1 of points (N, 2), `reach` pixels wider on each side."""
    (x0, y0), (x1, y1) = points.min(axis=0) - reach, points.max(axis=0) + reach
    return float(x0), float(y0), float(x1), float(y1)

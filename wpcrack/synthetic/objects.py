"""What lies on a street besides cracks: patches, stains, joints, paint, covers, shadows.

Every object is a frozen record in plane coordinates (pixels, x right, y down) with the box that it
can touch; `paint` changes the canvas of a frame inside that box. None of them is in the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wpcrack.synthetic.arrays import Float32, Float64
from wpcrack.synthetic.axis import StreetAxis
from wpcrack.synthetic.noise import Frame, smooth, white
from wpcrack.synthetic.shapes import Box, box_around, ellipse_radius, quad_cover, smooth_step
from wpcrack.synthetic.strokes import Stroke, darkening
from wpcrack.synthetic.surface import SurfaceStyle, lay_surface


class StreetObject(Protocol):
    """Anything that can be painted onto a street."""

    @property
    def box(self) -> Box:
        """Plane coordinates x0, y0, x1, y1 of all that it can touch."""

    def paint(self, canvas: Float32, frame: Frame) -> None:
        """Paint onto the (H, W, 3) canvas of a frame inside the box, in place."""


@dataclass(frozen=True)
class Patch:
    """A repaired rectangle with a surface of its own; its joint is a stroke along the edge."""

    corners_px: Float64
    style: SurfaceStyle
    axis: StreetAxis
    edge_px: float

    @property
    def box(self) -> Box:
        """See StreetObject."""
        return box_around(self.corners_px, 1.0)

    def paint(self, canvas: Float32, frame: Frame) -> None:
        """See StreetObject."""
        cover = quad_cover(self.corners_px, frame, self.edge_px)[:, :, None]
        across_m, gsd_m = self.axis.across_m(frame), self.axis.gsd_m
        canvas += cover * (lay_surface(self.style, frame, across_m, gsd_m) - canvas)


@dataclass(frozen=True)
class Stain:
    """A soft-edged blot: oil, tar, water, a leaf. `strength` is the share of light lost."""

    center_px: tuple[float, float]
    axes_px: tuple[float, float]
    angle: float
    strength: float
    tint: tuple[float, float, float]
    softness: float
    seed: int

    @property
    def box(self) -> Box:
        """See StreetObject."""
        (x, y), reach = self.center_px, 2.2 * max(self.axes_px)
        return x - reach, y - reach, x + reach, y + reach

    def paint(self, canvas: Float32, frame: Frame) -> None:
        """See StreetObject."""
        radius = ellipse_radius(frame, self.center_px, self.axes_px, self.angle)
        raggedness = 0.22 * smooth(self.seed, frame, max(3.0, 0.45 * max(self.axes_px)))
        raggedness += 0.08 * smooth(self.seed + 1, frame, max(2.0, 0.12 * max(self.axes_px)))
        cover = smooth_step(
            (1.0 - radius + raggedness * np.minimum(1.0, 2.2 - radius)) / self.softness
        )
        loss = np.float32(self.strength) * cover[:, :, None]
        canvas *= 1.0 - loss * (2.0 - np.array(self.tint, np.float32))


@dataclass(frozen=True)
class Line:
    """A joint, a bitumen seal, a twig or a wire's shadow: a smooth stroke of one tone.

    `tone` is the gray level that the line's material has; None only takes light away.
    """

    stroke: Stroke
    tone: float | None

    @property
    def box(self) -> Box:
        """See StreetObject."""
        return box_around(self.stroke.points_px, float(self.stroke.width_px.max()) / 2 + 1)

    def paint(self, canvas: Float32, frame: Frame) -> None:
        """See StreetObject."""
        loss = darkening([self.stroke], frame)[:, :, None]
        if self.tone is None:
            canvas *= 1.0 - loss
        else:
            canvas += loss * (np.float32(self.tone) - canvas)


@dataclass(frozen=True)
class Marking:
    """A rectangle of road paint, worn: `wear` in [0, 1] is about the share that is gone."""

    corners_px: Float64
    tone: float
    ground_tone: float
    wear: float
    seed: int

    @property
    def box(self) -> Box:
        """See StreetObject."""
        return box_around(self.corners_px, 2.0)

    def paint(self, canvas: Float32, frame: Frame) -> None:
        """See StreetObject."""
        field = 0.5 * smooth(self.seed, frame, 30.0) + 0.4 * smooth(self.seed + 1, frame, 5.0)
        field += 0.45 * smooth(self.seed + 2, frame, 1.6) + 0.5 * white(self.seed + 3, frame)
        kept = smooth_step(np.float32(0.9) * field + np.float32(1.86 - 2.72 * self.wear))
        cover = (0.92 * quad_cover(self.corners_px, frame, 1.6) * kept)[:, :, None]
        paint = np.float32(self.tone) + 0.18 * (canvas - np.float32(self.ground_tone))
        canvas += cover * (paint - canvas)


@dataclass(frozen=True)
class Manhole:
    """An iron cover with a stud pattern inside a frame, a dark gap between them."""

    center_px: tuple[float, float]
    radius_px: float
    tone: float
    seed: int

    @property
    def box(self) -> Box:
        """See StreetObject."""
        (x, y), reach = self.center_px, 1.3 * self.radius_px
        return x - reach, y - reach, x + reach, y + reach

    def paint(self, canvas: Float32, frame: Frame) -> None:
        """See StreetObject."""
        x, y = frame.centers()
        radius = ellipse_radius(frame, self.center_px, (1.0, 1.0), 0.0)
        pitch = self.radius_px / 6.5
        studs = np.cos(2 * np.pi * (x + y) / pitch) * np.cos(2 * np.pi * (x - y) / pitch)
        iron = self.tone + 9.0 * np.sign(studs) + 5.0 * smooth(self.seed, frame, 9.0)
        iron += 3.0 * white(self.seed + 1, frame)
        ring = smooth_step(np.float32(0.86 * self.radius_px + 0.5) - radius)
        iron = iron * ring + (self.tone + 16.0) * (1.0 - ring)
        gap = np.exp(-(((radius - 0.86 * self.radius_px) / 1.1) ** 2))
        gap += 0.8 * np.exp(-(((radius - self.radius_px) / 1.3) ** 2))
        iron *= 1.0 - 0.6 * gap.clip(0, 1)
        collar = 0.16 * np.exp(-((((radius - self.radius_px).clip(0)) / 7.0) ** 2))
        canvas *= (1.0 - collar)[:, :, None]
        cover = smooth_step(np.float32(self.radius_px + 0.5) - radius)[:, :, None]
        canvas += cover * (iron[:, :, None].astype(np.float32) - canvas)


@dataclass(frozen=True)
class EdgedShadow:
    """The shadow of a wall, a pole or a car: a rectangle whose edge is `soft_px` wide."""

    corners_px: Float64
    strength: float
    soft_px: float

    @property
    def box(self) -> Box:
        """See StreetObject."""
        return box_around(self.corners_px, self.soft_px)

    def paint(self, canvas: Float32, frame: Frame) -> None:
        """See StreetObject."""
        _shade(canvas, self.strength * quad_cover(self.corners_px, frame, self.soft_px))


@dataclass(frozen=True)
class CanopyShadow:
    """The dappled shadow of a tree."""

    center_px: tuple[float, float]
    radius_px: float
    strength: float
    leaf_px: float
    seed: int

    @property
    def box(self) -> Box:
        """See StreetObject."""
        (x, y), reach = self.center_px, 1.6 * self.radius_px
        return x - reach, y - reach, x + reach, y + reach

    def paint(self, canvas: Float32, frame: Frame) -> None:
        """See StreetObject."""
        axes = (self.radius_px, self.radius_px)
        field = 0.7 - ellipse_radius(frame, self.center_px, axes, 0.0) ** 2
        field += 0.7 * smooth(self.seed, frame, 0.45 * self.radius_px)
        field += 0.5 * smooth(self.seed + 1, frame, self.leaf_px)
        field += 0.3 * smooth(self.seed + 2, frame, 0.4 * self.leaf_px)
        distance = ellipse_radius(frame, self.center_px, (1.0, 1.0), 0.0)
        fade = smooth_step((1.55 * self.radius_px - distance) / 20.0)
        _shade(canvas, self.strength * fade * smooth_step(field / 0.8 + 0.5))


def _shade(canvas: Float32, loss: Float32) -> None:
    """Take light away; what remains in a shadow is bluer."""
    canvas *= 1.0 - loss[:, :, None] * np.array([1.04, 1.0, 0.93], np.float32)

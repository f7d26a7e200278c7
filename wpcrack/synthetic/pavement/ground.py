"""Pavement without anything on it: asphalt of any grading and age, concrete, plaster and paint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from wpcrack.synthetic.arrays import Float32
from wpcrack.synthetic.pavement.fields import (
    Shape,
    cloud,
    draw_streaks,
    log_uniform,
    smooth,
    specks,
    white,
)

Material = Literal["asphalt", "concrete"]

_SMALLEST_STONE_PX = 3.2
"""Stones below this pitch are noise, not shapes."""


@dataclass(frozen=True)
class Stones:
    """Stones on the plane: which is the nearest to each pixel, and how far inside it one is.

    Attributes:
        label: (H, W) int32 number of the stone.
        inside: (H, W) distance from its rim in pixels; negative in the gaps.
        center: (N, 2) x, y.
        radius: (N,) about half of its breadth.
    """

    label: npt.NDArray[np.int32]
    inside: Float32
    center: Float32
    radius: Float32


@dataclass(frozen=True)
class Ground:
    """A bare surface on the plane.

    Attributes:
        material: Of the surface; joints and grooves follow from it.
        albedo: (H, W, 3) in [0, 1].
        relief: (H, W) height in pixels.
        stones: Of the coarsest aggregate that shows shapes; cracks run around them.
        grain_px: Breadth of what the surface is made of; edges of cracks are as ragged as that.
    """

    material: Material
    albedo: Float32
    relief: Float32
    stones: Stones | None
    grain_px: float


def draw_ground(rng: np.random.Generator, shape: Shape, gsd_mm: float) -> Ground:
    """Return a random surface of (H, W) pixels of `gsd_mm`."""
    if rng.random() < 0.66:
        return asphalt(rng, shape, gsd_mm)
    return concrete(rng, shape, gsd_mm)


def asphalt(rng: np.random.Generator, shape: Shape, gsd_mm: float) -> Ground:
    """Draw stones in bitumen: fresh and black, worn and gray, or stripped to coarse aggregate."""
    age = rng.uniform(0, 1)
    tone = max(0.04, 0.06 + 0.26 * age + rng.normal(0, 0.03))
    contrast = rng.uniform(0.25, 1.0)
    field = np.full(shape, tone, np.float32)
    field += np.float32(0.03 * rng.uniform(0.3, 1.3)) * cloud(rng, shape, 250 / gsd_mm)
    relief = np.zeros(shape, np.float32)
    coarse_mm, grain_mm = log_uniform(rng, 3, 14), rng.uniform(0.8, 3.0)
    found: Stones | None = None
    color = np.zeros((*shape, 3), np.float32)
    for pitch_mm, weight in ((coarse_mm, 1.0), (coarse_mm * rng.uniform(0.3, 0.5), 0.7)):
        pitch = pitch_mm / gsd_mm
        if pitch < _SMALLEST_STONE_PX:
            grain = white(rng, shape) if pitch < 1.6 else smooth(rng, shape, pitch / 1.3)
            fade = min(1.0, pitch / 1.6)
            field += np.float32(0.45 * tone * contrast * weight * fade) * grain
            relief += np.float32(0.12 * weight * min(pitch, 2.5) * rng.uniform(0.2, 1.2)) * grain
            continue
        stones = draw_stones(rng, shape, pitch)
        found = found or stones
        lay_stones(rng, stones, field, color, contrast * weight)
        relief += dome(stones, rng.uniform(0.08, 0.3) * pitch)
    sand = white(rng, shape) if grain_mm < 1.6 * gsd_mm else smooth(rng, shape, grain_mm / gsd_mm)
    fade = min(1.0, grain_mm / gsd_mm)
    field += np.float32(tone * log_uniform(rng, 0.06, 0.4) * fade) * sand
    relief += np.float32(0.2 * fade * rng.uniform(0.2, 1.0)) * sand
    field += flecks(rng, shape, gsd_mm, contrast)
    albedo = field[..., None] + color + tint_of(rng, 0.02)
    grain_px = max(coarse_mm * 0.5, grain_mm) / gsd_mm
    return Ground("asphalt", albedo.clip(0.01, 0.95), relief, found, grain_px)


def flecks(rng: np.random.Generator, shape: Shape, gsd_mm: float, contrast: float) -> Float32:
    """Strew bright chips and dark pits thinly, (H, W)."""
    size = max(1.1, rng.uniform(2, 7) / gsd_mm)
    bright = specks(rng, shape, size, rng.uniform(0.0, 0.04))
    dark = specks(rng, shape, max(1.1, size * rng.uniform(0.5, 1.5)), rng.uniform(0.0, 0.06))
    fade = min(1.0, 4.0 / gsd_mm)
    strength = np.float32(contrast * fade)
    return strength * (
        np.float32(rng.uniform(0.1, 0.4)) * bright - np.float32(rng.uniform(0.02, 0.12)) * dark
    )


def draw_stones(rng: np.random.Generator, shape: Shape, pitch_px: float) -> Stones:
    """Draw stones about `pitch_px` apart, crushed (angular, tight) or round (apart)."""
    margin = int(np.ceil(pitch_px))
    height, width = shape[0] + 2 * margin, shape[1] + 2 * margin
    rows, cols = int(height / pitch_px) + 1, int(width / pitch_px) + 1
    corner = np.stack(np.meshgrid(np.arange(cols), np.arange(rows)), -1).reshape(-1, 2)
    place = (corner + rng.uniform(0.0, 1.0, corner.shape)) * pitch_px
    place = place[(place[:, 0] < width - 1) & (place[:, 1] < height - 1)]
    at = place.astype(np.int64)
    seeds = np.ones((height, width), np.uint8)
    seeds[at[:, 1], at[:, 0]] = 0
    distance, label = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    number = label[at[:, 1], at[:, 0]]
    centers = np.zeros((int(label.max()) + 1, 2), np.float32)
    centers[number] = place - margin
    radius = pitch_px * rng.uniform(0.28, 0.62, len(centers)).astype(np.float32)
    crop = slice(margin, margin + shape[0]), slice(margin, margin + shape[1])
    near = np.asarray(np.ascontiguousarray(label[crop]), np.int32)
    wobble = smooth(rng, shape, max(1.5, pitch_px / 3)) * np.float32(0.1 * pitch_px)
    inside = radius[near] - distance[crop] + wobble
    gap = np.float32(rng.uniform(0.03, 0.16) * pitch_px)
    inside = np.minimum(inside, rim_distance(near) - gap)
    return Stones(near, inside, centers, radius)


def rim_distance(label: npt.NDArray[np.int32]) -> Float32:
    """Return the distance of each pixel to the next pixel of another label, (H, W)."""
    inner = np.ones(label.shape, np.uint8)
    inner[:, 1:][label[:, 1:] != label[:, :-1]] = 0
    inner[1:][label[1:] != label[:-1]] = 0
    return np.asarray(cv2.distanceTransform(inner, cv2.DIST_L2, 3), np.float32)


def dome(stones: Stones, height_px: float) -> Float32:
    """Return the relief of the stones: flat-topped domes, (H, W) pixels."""
    rise = (stones.inside / (0.45 * stones.radius[stones.label])).clip(0, 1)
    return np.asarray(np.float32(height_px) * np.sqrt(rise), np.float32)


def lay_stones(
    rng: np.random.Generator, stones: Stones, field: Float32, color: Float32, contrast: float
) -> None:
    """Paint the stones over a gray field and its color; each has a tone and a hue of its own."""
    count = len(stones.center)
    cover = (stones.inside + 0.5).clip(0, 1)
    if rng.random() < 0.5:  # bitumen still hides some of them
        bare = rng.random(count) < rng.uniform(0.3, 0.95)
        cover = cover * bare.astype(np.float32)[stones.label]
    tone = rng.normal(rng.uniform(0.0, 0.16), 0.11, count).astype(np.float32)
    tone[rng.random(count) < 0.06] += np.float32(0.25)
    field += np.float32(contrast) * cover * tone[stones.label]
    field -= np.float32(0.05 * contrast) * (1 - cover)
    hue = rng.normal(0, 0.022 * contrast, (count, 1)) * np.array([1.0, 0.3, -1.0])
    color += cover[..., None] * hue.astype(np.float32)[stones.label]


def concrete(rng: np.random.Generator, shape: Shape, gsd_mm: float) -> Ground:
    """Draw concrete or plaster: brushed, tined, rough, pitted, or worn to its aggregate."""
    tone = float(np.clip(rng.normal(0.42, 0.13), 0.16, 0.8))
    field = np.full(shape, tone, np.float32)
    field += np.float32(tone * rng.uniform(0.01, 0.09)) * cloud(rng, shape, 180 / gsd_mm)
    color = cloud(rng, shape, 120 / gsd_mm)[..., None] * tint_of(rng, 0.018)
    grain_mm = log_uniform(rng, 0.3, 1.5)
    grain = smooth(rng, shape, max(1.0, grain_mm / gsd_mm)) * np.float32(
        min(1.0, grain_mm / gsd_mm)
    )
    field += np.float32(tone * rng.uniform(0.01, 0.11)) * grain
    relief = np.float32(rng.uniform(0.02, 0.22)) * grain
    found: Stones | None = None
    pick = rng.random()
    if pick < 0.3:
        pitch = log_uniform(rng, 4, 25) / gsd_mm
        if pitch >= _SMALLEST_STONE_PX:
            found = draw_stones(rng, shape, pitch)
            plane = np.zeros((*shape, 3), np.float32)
            lay_stones(rng, found, field, plane, rng.uniform(0.2, 0.9))
            color += plane
            relief += dome(found, rng.uniform(0.01, 0.12) * pitch)
    elif pick < 0.55:
        finish(rng, shape, gsd_mm, field, relief)
    elif pick < 0.75:
        size = log_uniform(rng, 8, 40) / gsd_mm
        relief += np.float32(rng.uniform(0.03, 0.12) * min(size, 40.0)) * cloud(
            rng, shape, size, fall=0.4
        )
    if rng.random() < 0.6:
        pits = specks(rng, shape, rng.uniform(0.8, 5) / gsd_mm, rng.uniform(0.0, 0.02))
        field *= 1 - np.float32(rng.uniform(0.1, 0.6)) * pits
        relief -= np.float32(rng.uniform(0.3, 2.0)) * pits
    albedo = (field[..., None] + color) * (1 + tint_of(rng, 0.1 if rng.random() < 0.85 else 0.3))
    return Ground("concrete", albedo.clip(0.02, 0.98), relief, found, max(0.8, grain_mm / gsd_mm))


def finish(
    rng: np.random.Generator, shape: Shape, gsd_mm: float, field: Float32, relief: Float32
) -> None:
    """Draw streaks of a brush or trowel along rows or columns, in field and relief."""
    across, along = log_uniform(rng, 1.5, 5) / gsd_mm, rng.uniform(60, 400) / gsd_mm
    cells = (across, along) if rng.random() < 0.5 else (along, across)
    streaks = draw_streaks(rng, shape, cells) * np.float32(min(1.0, across))
    field *= 1 + np.float32(rng.uniform(0.02, 0.08)) * streaks
    relief += np.float32(rng.uniform(0.1, 0.8)) * streaks


def tint_of(rng: np.random.Generator, strength: float) -> Float32:
    """Return a hue, mostly between warm and cool: (3,) to be added or multiplied."""
    warm, green = rng.normal(0, strength), rng.normal(0, 0.35 * strength)
    return np.array([warm, green + 0.2 * warm, -warm], np.float32)


def weather(rng: np.random.Generator, albedo: Float32, gsd_mm: float) -> Float32:
    """Draw stains of age over a whole surface: dust, wear in lanes, dark and light patches."""
    shape = albedo.shape[0], albedo.shape[1]
    broad = cloud(rng, shape, rng.uniform(100, 900) / gsd_mm, fall=0.6)
    albedo = albedo * (1 + np.float32(rng.uniform(0.0, 0.1)) * broad)[..., None]
    if rng.random() < 0.3:  # dust or lime lies in places
        share = (cloud(rng, shape, rng.uniform(40, 300) / gsd_mm) - 0.5).clip(0, 1)
        dust = np.array([0.55, 0.5, 0.43], np.float32) * np.float32(rng.uniform(0.5, 1.2))
        cover = np.float32(rng.uniform(0.1, 0.5)) * share[..., None]
        albedo = albedo + cover * (dust - albedo)
    return np.asarray(albedo, np.float32)

"""Light on relief: one sun, the sky, shadows that things cast, and shadows from outside."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wpcrack.synthetic.arrays import Float32
from wpcrack.synthetic.pavement.fields import Shape, blur, cloud, smooth, step

_REACHES_PX = (1, 2, 3, 5, 8, 12, 18)
"""Distances towards the sun at which something may stand in the light."""
_CONCAVITY_PX = 2.5
_STEEPEST = 1.6


@dataclass(frozen=True)
class Sun:
    """Where the light comes from.

    Attributes:
        azimuth: Direction in the image towards the sun, radians.
        elevation: Above the ground, radians.
        share: Of the sun in all light; the rest comes from the whole sky.
    """

    azimuth: float
    elevation: float
    share: float


def draw_sun(rng: np.random.Generator) -> Sun:
    """Return a random sun: overcast in a third of the windows."""
    share = rng.uniform(0.05, 0.3) if rng.random() < 0.35 else rng.uniform(0.35, 0.8)
    return Sun(rng.uniform(0, 2 * np.pi), float(np.deg2rad(rng.uniform(22, 75))), share)


def shade(relief: Float32, gloom: Float32, sun: Sun) -> Float32:
    """Return the light that each pixel sends back by an albedo of 1; 1 on flat ground, (H, W).

    Lambert's law for the sun, occlusion by the surroundings for the sky.

    Args:
        relief: (H, W) height in pixels.
        gloom: (H, W) share of all light that is lost in depth.
        sun: Where the light comes from.
    """
    slope_x = cv2.Scharr(relief, cv2.CV_32F, 1, 0, scale=1 / 32)
    slope_y = cv2.Scharr(relief, cv2.CV_32F, 0, 1, scale=1 / 32)
    tangent = np.float32(1 / np.tan(sun.elevation))
    towards = np.float32(np.cos(sun.azimuth)) * slope_x + np.float32(np.sin(sun.azimuth)) * slope_y
    steep = np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    lambert = ((1 - tangent * towards) / steep).clip(0, _STEEPEST)
    sky = (1 - 0.35 * (blur(relief, _CONCAVITY_PX) - relief)).clip(0.55, 1.15)
    direct = lambert * (1 - cast(relief, sun))
    light = np.float32(sun.share) * direct + np.float32(1 - sun.share) * sky
    return np.asarray(light * (1 - gloom), np.float32)


def cast(relief: Float32, sun: Sun) -> Float32:
    """Return the shadow of the relief on itself, (H, W) in [0, 1]."""
    top = float(relief.max() - relief.min())
    shadow = np.zeros(relief.shape, np.float32)
    rise = float(np.tan(sun.elevation))
    for reach in _REACHES_PX:
        if reach * rise > top:
            break
        dx, dy = round(reach * np.cos(sun.azimuth)), round(reach * np.sin(sun.azimuth))
        over = move(relief, dx, dy) - relief - np.float32(reach * rise)
        np.maximum(shadow, over, out=shadow)
    return shadow.clip(0, 1)


def move(field: Float32, dx: int, dy: int) -> Float32:
    """Return the value `dx`, `dy` pixels further on at each pixel; edges repeat."""
    pad = max(abs(dx), abs(dy))
    wide = cv2.copyMakeBorder(field, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    height, width = field.shape[:2]
    part = wide[pad + dy : pad + dy + height, pad + dx : pad + dx + width]
    return np.asarray(part, np.float32)


def outside_shadow(rng: np.random.Generator, shape: Shape, gsd_mm: float, sun: Sun) -> Float32:
    """Return the light left by trees, poles and wires outside the picture, (H, W, 3).

    Shadows are bluer than the light. Without sun there are none.
    """
    light = np.ones((*shape, 3), np.float32)
    if sun.share < 0.35 or rng.random() > 0.3:
        return light
    dark = np.zeros(shape, np.float32)
    pick = rng.random()
    if pick < 0.6:  # leaves
        leaves = cloud(rng, shape, np.clip(rng.uniform(60, 600) / gsd_mm, 12, 300), fall=0.6)
        soft = rng.uniform(1.0, 6.0)
        dark = step(np.float32(0.5) + np.float32(soft) * (leaves - np.float32(rng.normal(0, 0.5))))
    if pick > 0.45:  # branches, poles, wires: bands
        for _ in range(int(rng.integers(1, 4))):
            dark = np.maximum(dark, band(rng, shape, gsd_mm))
    dark = blur(dark, rng.uniform(0.3, 3.0))
    strength = np.array([1.0, 0.95, 0.86], np.float32) * np.float32(rng.uniform(0.35, 0.75))
    return light - dark[..., None] * strength


def band(rng: np.random.Generator, shape: Shape, gsd_mm: float) -> Float32:
    """Return a straight or gently bent band with soft rims, (H, W)."""
    angle, (height, width) = rng.uniform(0, np.pi), shape
    x = np.arange(width, dtype=np.float32)[None, :] - np.float32(rng.uniform(0.1, 0.9) * width)
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(rng.uniform(0.1, 0.9) * height)
    bend = smooth(rng, shape, max(shape) / 2) * np.float32(rng.uniform(0, 0.04) * max(shape))
    off = np.abs(np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y + bend)
    half = np.float32(np.clip(np.exp(rng.uniform(np.log(4), np.log(150))) / gsd_mm / 2, 0.7, 60))
    soft = np.float32(rng.uniform(0.15, 0.8)) * half + np.float32(0.5)
    return step((half - off) / soft + np.float32(0.5))

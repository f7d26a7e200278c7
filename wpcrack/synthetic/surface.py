"""The sound surface of a street: aggregate, tonal drift, wear. No object, no crack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from wpcrack.synthetic.arrays import Float32
from wpcrack.synthetic.noise import Frame, smooth, white

Material = Literal["asphalt", "worn asphalt", "concrete"]

SURFACE_MARGIN_PX = 6
"""Pixels that the aggregate's blur reaches beyond a frame."""


@dataclass(frozen=True)
class SurfaceStyle:
    """What distinguishes one street's surface from another's; gray levels of 0-255."""

    material: Material
    seed: int
    """Of every noise of this street."""
    tone: float
    """Mean gray level."""
    tint: tuple[float, float, float]
    """Factor of red, green, blue."""
    grain: float
    """Deviation of the aggregate's gray levels."""
    grain_px: float
    """Blur of the aggregate: the larger, the coarser the stones."""
    speckle: float
    """Brightness of single light stones."""
    pits: float
    """Darkness of single gaps between the stones."""
    drift: float
    """Deviation of the slow changes of tone, as a share of the tone."""
    wear: float
    """Strength of the wheel tracks, as a share of the tone (negative: darkened by rubber)."""


_RANGES: dict[Material, dict[str, tuple[float, float]]] = {
    "asphalt": {
        "tone": (72, 118),
        "grain": (7, 12),
        "grain_px": (0.5, 0.8),
        "speckle": (8, 22),
        "pits": (4, 10),
        "drift": (0.025, 0.05),
        "wear": (-0.06, 0.06),
    },
    "worn asphalt": {
        "tone": (112, 152),
        "grain": (9, 16),
        "grain_px": (0.6, 1.0),
        "speckle": (10, 24),
        "pits": (6, 15),
        "drift": (0.03, 0.06),
        "wear": (-0.08, 0.03),
    },
    "concrete": {
        "tone": (148, 190),
        "grain": (4, 7),
        "grain_px": (0.6, 1.2),
        "speckle": (2, 8),
        "pits": (3, 9),
        "drift": (0.03, 0.06),
        "wear": (-0.10, -0.02),
    },
}


def draw_style(rng: np.random.Generator, material: Material | None = None) -> SurfaceStyle:
    """Make a random surface; of a random material (four in five asphalt) unless one is given."""
    if material is None:
        materials: tuple[Material, ...] = ("asphalt", "worn asphalt", "concrete")
        material = materials[int(rng.choice(3, p=(0.45, 0.35, 0.2)))]
    warmth = rng.normal(0.0, 0.018)
    values = {name: float(rng.uniform(*limits)) for name, limits in _RANGES[material].items()}
    return SurfaceStyle(
        material=material,
        seed=int(rng.integers(2**31)),
        tint=(1.0 + warmth, 1.0 + float(rng.normal(0.0, 0.006)), 1.0 - warmth + 0.01),
        **values,
    )


def lay_surface(style: SurfaceStyle, frame: Frame, across_m: Float32, gsd_m: float) -> Float32:
    """Paint the sound surface.

    Args:
        style: The street's.
        frame: Where, in the global pixel plane.
        across_m: (H, W) or broadcastable, signed distance from the street's centerline.
        gsd_m: Meters per pixel.

    Returns:
        (H, W, 3) float32 gray levels around 0-255, not clipped.
    """
    seed, per_m = style.seed, 1.0 / gsd_m
    tone = np.ones((frame.height, frame.width), np.float32)
    for k, (cell_m, share) in enumerate(((2.0, 0.9), (0.6, 0.7), (0.18, 0.5), (0.06, 0.35))):
        tone += np.float32(style.drift * share) * smooth(seed + k, frame, cell_m * per_m)
    track = _wheel_tracks(across_m)
    streaks = 1.0 + 0.35 * smooth(seed + 5, frame, 0.9 * per_m)
    tone += np.float32(style.wear) * track * streaks
    level = tone * np.float32(style.tone)
    raveled = (smooth(seed + 6, frame, 0.35 * per_m) - 0.6).clip(0, 1.5)
    polished = 1.0 - 0.25 * track
    level += _aggregate(style, frame, raveled) * polished
    image = level[:, :, None] * np.array(style.tint, np.float32)
    chroma = np.float32(0.006 * style.tone) * smooth(seed + 7, frame, 0.12 * per_m)
    chroma += np.float32(0.12 * style.grain) * white(seed + 8, frame)
    image[:, :, 0] += chroma
    image[:, :, 2] -= chroma
    return image


def _wheel_tracks(across_m: Float32) -> Float32:
    """Return 1 in the middle of the two wheel tracks (0.8 m off the centerline), 0 beside them."""
    off = (np.abs(across_m) - np.float32(0.8)) / np.float32(0.28)
    return np.asarray(np.exp(-(off**2)), np.float32)


def _aggregate(style: SurfaceStyle, frame: Frame, raveled: Float32) -> Float32:
    """Draw stones and the gaps between them: two sizes of blurred noise, its peaks and holes."""
    outer = frame.grow(SURFACE_MARGIN_PX)
    inner = outer.slices(frame)
    fine = _blur(white(style.seed + 11, outer), style.grain_px)[inner]
    coarse = _blur(white(style.seed + 12, outer), 2.0 * style.grain_px)[inner]
    level = np.float32(style.grain) * (0.8 * fine + 0.6 * coarse)
    level += np.float32(style.speckle) * (fine - 1.7).clip(0, 2)
    holes = (-0.6 * coarse - 0.8 * fine - 1.3 + 0.3 * raveled).clip(0, 2)
    level -= np.float32(style.pits) * holes * (1.0 + 0.5 * raveled)
    return level


def _blur(noise: Float32, sigma: float) -> Float32:
    """Blur by a Gaussian that keeps the deviation at 1 (13 taps, sigma in pixels)."""
    size = 2 * SURFACE_MARGIN_PX + 1
    taps = np.asarray(cv2.getGaussianKernel(size, sigma, cv2.CV_32F), np.float32)
    kernel = taps / np.sqrt((taps**2).sum())
    return np.asarray(
        cv2.sepFilter2D(noise, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT),
        np.float32,
    )

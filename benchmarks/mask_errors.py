"""What a detector gets wrong, done to a perfect mask: thick lines, gaps, false crumbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from wpcrack.synthetic import TrueCrack

Mask = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

STEP_PX = 0.5
"""Distance of the points along true lines to which mask pixels are counted."""


@dataclass(frozen=True)
class MaskErrors:
    """Statistics of the errors; gaps as measured on maps of drawn cities.

    Attributes:
        gaps_per_m: of true line.
        gap_mm, gap_log_deviation: median and spread of their lengths (p75 49, p95 183 mm).
        thick_patch_px: lines are one pixel too wide in some patches of this size, two in others.
        crumbs_per_m2: false pieces.
        crumb_px, crumb_log_deviation: median and spread of their lengths.
    """

    gaps_per_m: float = 1.3
    gap_mm: float = 28.0
    gap_log_deviation: float = 1.05
    thick_patch_px: int = 64
    crumbs_per_m2: float = 0.8
    crumb_px: float = 8.0
    crumb_log_deviation: float = 0.6


def with_errors(
    mask: Mask, valid: Mask, cracks: Sequence[TrueCrack], gsd_m: float, seed: int
) -> Mask:
    """Do to a perfect mask (H, W) what a detector does; the same seed gives the same errors."""
    rng, errors = np.random.default_rng(seed), MaskErrors()
    spoiled = _thickened(mask, errors, rng)
    points, in_gap = _gaps(cracks, gsd_m, errors, rng)
    rows, cols = np.nonzero(spoiled)
    _, nearest = cKDTree(points).query(np.column_stack((cols + 0.5, rows + 0.5)))
    lost = in_gap[nearest]
    spoiled[rows[lost], cols[lost]] = False
    return _with_crumbs(spoiled, valid, gsd_m, errors, rng) & valid


def _thickened(mask: Mask, errors: MaskErrors, rng: np.random.Generator) -> Mask:
    height, width = mask.shape
    size = errors.thick_patch_px
    patches = rng.random((height // size + 1, width // size + 1)).astype(np.float32)
    two = cv2.resize(patches, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    pixels = mask.astype(np.uint8)
    thick = cv2.dilate(pixels, np.ones((3, 3), np.uint8))
    return np.asarray(np.where(two, thick, cv2.dilate(pixels, np.ones((2, 2), np.uint8))) > 0)


def _gaps(
    cracks: Sequence[TrueCrack], gsd_m: float, errors: MaskErrors, rng: np.random.Generator
) -> tuple[Float64, Mask]:
    """Points along all true lines, and which of them lie in gaps."""
    points, in_gap = [], []
    for crack in cracks:
        steps = np.hypot(*np.diff(crack.points_px, axis=0).T)
        way = np.append(0.0, np.cumsum(steps))
        along = np.linspace(0.0, way[-1], max(2, int(way[-1] / STEP_PX)))
        gap = np.zeros(len(along), bool)
        for _ in range(rng.poisson(way[-1] * gsd_m * errors.gaps_per_m)):
            length_mm = errors.gap_mm * np.exp(rng.normal(0.0, errors.gap_log_deviation))
            length = length_mm / (1000 * gsd_m)
            begin = rng.uniform(-length / 2, way[-1] - length / 2)
            gap |= (along >= begin) & (along <= begin + length)
        points.append(
            np.column_stack([np.interp(along, way, crack.points_px[:, k]) for k in (0, 1)])
        )
        in_gap.append(gap)
    return np.concatenate(points), np.concatenate(in_gap)


def _with_crumbs(
    mask: Mask, valid: Mask, gsd_m: float, errors: MaskErrors, rng: np.random.Generator
) -> Mask:
    pixels = mask.astype(np.uint8)
    places = np.flatnonzero(valid)
    count = rng.poisson(len(places) * gsd_m**2 * errors.crumbs_per_m2)
    for place in rng.choice(places, count):
        row, col = divmod(int(place), mask.shape[1])
        length = errors.crumb_px * np.exp(rng.normal(0.0, errors.crumb_log_deviation))
        angle = rng.uniform(0.0, np.pi)
        end = (int(col + length * np.cos(angle)), int(row + length * np.sin(angle)))
        cv2.line(pixels, (col, row), end, 1, int(rng.integers(2, 5)))
    return pixels > 0

"""Cracks in a surface: depth, lit and dark walls, what lies in them, broken rims; exact truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from wpcrack.synthetic.arrays import Float32, Float64
from wpcrack.synthetic.pavement.canvas import (
    SUPERSAMPLING,
    Canvas,
    Kind,
    area_mean,
    samples,
)
from wpcrack.synthetic.pavement.fields import (
    Shape,
    blur,
    cut,
    log_uniform,
    smooth,
    specks,
    step,
    white,
)
from wpcrack.synthetic.pavement.ground import Ground, Material, Stones
from wpcrack.synthetic.pavement.lines import Branches, Habit

Fill = Literal["open", "soil", "sand", "moss", "debris"]

FILLS: dict[Fill, float] = {"open": 0.52, "soil": 0.17, "sand": 0.14, "moss": 0.08, "debris": 0.09}
"""How often cracks hold what."""

LIGHT_LEFT = 0.004, 0.14
"""Share of the light that the floor of an open crack gets."""

LIGHT_LEFT_FAINT = 0.14, 0.7
"""The same of a shallow or clogged crack."""

WORN: dict[Material, float] = {"asphalt": 0.5, "concrete": 0.2}
"""Share of cracks whose sides have crumbled: half dark at the rims, dark in the middle alone."""

FAINT: dict[Material, float] = {"asphalt": 0.4, "concrete": 0.15}
"""Share of shallow or clogged cracks."""

THIN_PX = 1.3
"""Below this width the pixels that the axis passes belong to the crack."""

_FILL_COLORS: dict[Fill, tuple[float, float, float]] = {
    "open": (0.10, 0.09, 0.08),
    "soil": (0.17, 0.12, 0.075),
    "sand": (0.44, 0.36, 0.26),
    "moss": (0.11, 0.17, 0.04),
    "debris": (0.26, 0.23, 0.19),
}
_CORES = {False: (0.12, 0.4), True: (0.3, 0.6)}  # where the dark begins, in widths, if worn
_RIMS = {False: (0.45, 0.9), True: (0.15, 0.55)}  # darkness of the rims as a share of the middle's
_OUTLINE_BIAS_PX = 0.5 / SUPERSAMPLING  # cv2.fillPoly also fills the samples on the outline


@dataclass(frozen=True)
class _Traces:
    """Crack lines on the image: what is covered, and what is true of the nearest axis point."""

    cover: Float32
    mask: npt.NDArray[np.bool_]
    width_px: Float32
    along: Float32
    """Random course along each branch, deviation 1: depth and filling change with it."""


def carve(
    rng: np.random.Generator,
    canvas: Canvas,
    lines: Sequence[Branches],
    habit: Habit,
    ground: Ground,
) -> None:
    """Cut a crack into the canvas: relief, gloom, color, class map and truth."""
    traces = trace(rng, canvas, lines, habit, ground.stones)
    if not traces.mask.any():
        return
    fill: Fill = rng.choice(list(FILLS), p=np.array(list(FILLS.values())))
    beside = _distance(~traces.mask)
    if habit.width > 1.5 and rng.random() < 0.4:
        spall(rng, canvas, traces, beside, habit)
    if rng.random() < 0.3:
        stain_rim(rng, canvas, beside, habit)
    deepen(rng, canvas, traces, fill, ground)
    canvas.classes[traces.mask] = Kind.CRACK
    canvas.mask |= traces.mask
    canvas.width_px = np.where(traces.mask, traces.width_px, canvas.width_px)
    if fill == "moss":
        overgrow(rng, canvas, traces, beside)


def trace(
    rng: np.random.Generator,
    canvas: Canvas,
    lines: Sequence[Branches],
    habit: Habit,
    stones: Stones | None,
) -> _Traces:
    """Project the lines onto the image and measure what they cover.

    A pixel belongs to the crack if half of it is covered; where the crack is thinner than THIN_PX,
    also the pixels that the axis passes (an 8-connected line).
    """
    shape = canvas.shape
    view = canvas.view
    snap = habit.snap if habit.width > 1.5 else 0.0
    rings: list[Float64] = []
    axes: list[Float64] = []
    widths: list[Float64] = []
    courses: list[Float32] = []
    for part in lines:
        lean = Branches(
            part.axis,
            (part.left - _OUTLINE_BIAS_PX).clip(0, None),
            (part.right - _OUTLINE_BIAS_PX).clip(0, None),
        )
        count, length = part.left.shape
        outlines = lean.outlines(stones if snap else None, snap).reshape(-1, 2)
        axis = part.axis.reshape(-1, 2)
        rings += list(view.project(outlines).reshape(count, 2 * length, 2))
        axes += list(view.project(axis).reshape(count, length, 2))
        widths += list(part.width * view.magnification(axis).reshape(count, length))
        courses += list(0.5 * cut(rng, habit.tapes.swing, (count, length)))
    cover = area_mean(samples(rings, shape), shape)
    thin = np.zeros(shape, np.uint8)
    for axis, width in zip(axes, widths, strict=True):
        if width.min() < THIN_PX:
            _pass_thin(thin, axis, width)
    nearest = _nearest(np.concatenate(axes), shape)
    seen = np.concatenate(widths).clip(1 / SUPERSAMPLING, None)  # 0 where a side has closed
    width_px = seen.astype(np.float32)[nearest]
    along = np.concatenate(courses)[nearest]
    return _Traces(cover, (cover >= 0.5) | (thin > 0), width_px, along)


def _pass_thin(
    thin: npt.NDArray[np.uint8],
    axis: npt.NDArray[np.float64],
    width: npt.NDArray[np.float64],
) -> None:
    """Mark the pixels that an axis passes where it is thinner than THIN_PX."""
    points = np.rint((axis - 0.5).clip(-(2.0**14), 2.0**14)).astype(np.int32)
    is_thin = np.concatenate([[False], width < THIN_PX, [False]])
    edges = np.flatnonzero(is_thin[1:] != is_thin[:-1])
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start > 1:
            cv2.polylines(thin, [points[start:stop]], False, 1)


def _nearest(points: npt.NDArray[np.float64], shape: Shape) -> npt.NDArray[np.int64]:
    """Return the index of the nearest of the points (N, 2) on the image at each pixel, (H, W)."""
    col, row = (np.floor(points[:, k]).astype(int) for k in (0, 1))
    here = np.flatnonzero((col >= 0) & (row >= 0) & (col < shape[1]) & (row < shape[0]))
    if not here.size:
        return np.zeros(shape, np.int64)
    col, row = col[here], row[here]
    away = np.ones(shape, np.uint8)
    away[row, col] = 0
    _, label = cv2.distanceTransformWithLabels(away, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    index = np.zeros(int(label.max()) + 1, np.int64)
    index[label[row, col]] = here
    return np.asarray(index[label], np.int64)


def _distance(inside: npt.NDArray[np.bool_]) -> Float32:
    """Return the distance of each pixel to the next one that is not inside, (H, W)."""
    return np.asarray(cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3), np.float32)


def deepen(
    rng: np.random.Generator, canvas: Canvas, traces: _Traces, fill: Fill, ground: Ground
) -> None:
    """Sink the crack: dark where it is open, crumbs in it, floor and color of what fills it."""
    shape, width = canvas.shape, traces.width_px
    cover = traces.cover
    inward = _distance(traces.mask)
    worn = rng.random() < WORN[ground.material]
    core = step((inward + 0.3) / (rng.uniform(*_CORES[worn]) * width + np.float32(0.7)))
    rim = np.float32(rng.uniform(*_RIMS[worn]))
    is_faint = rng.random() < FAINT[ground.material]
    left = log_uniform(rng, *(LIGHT_LEFT_FAINT if is_faint else LIGHT_LEFT))
    crumbs = smooth(rng, shape, float(np.clip(0.6 * ground.grain_px, 1.3, 12.0)))
    swing = np.float32(0.25) * traces.along + np.float32(rng.uniform(0.0, 1.2)) * crumbs
    dark = 1 - (np.float32(left) * np.exp(swing)).clip(0, 0.8)
    filled = np.zeros(shape, np.float32)
    if fill != "open":
        lower = np.float32(0.4) * np.minimum(1, width / 12)  # wide cracks are never filled up
        level = np.float32(rng.uniform(0.4, 1.0)) * (1 - lower)
        some = step(np.float32(rng.uniform(0.2, 1.1)) + np.float32(0.8) * traces.along)
        filled = level * some
        color = np.array(_FILL_COLORS[fill], np.float32) * np.float32(rng.uniform(0.7, 1.3))
        mixed = white(rng, shape) if fill != "debris" else smooth(rng, shape, 2.5)
        grains = color * (1 + np.float32(0.25 if fill != "debris" else 0.5) * mixed[..., None])
        canvas.tint(cover * (filled > 0.15), grains.clip(0.02, 0.9))
    else:
        canvas.tint(cover * np.float32(0.4), _FILL_COLORS["open"])
    gloom = (cover * dark * (rim + (1 - rim) * core)).clip(0, 0.995) * (1 - 0.9 * filled)
    canvas.gloom = np.maximum(canvas.gloom, gloom)
    depth = np.minimum(np.float32(0.7) * width, np.float32(6)) * (1 - np.float32(0.85) * filled)
    canvas.relief -= blur(cover, 0.5) * depth


def spall(
    rng: np.random.Generator, canvas: Canvas, traces: _Traces, beside: Float32, habit: Habit
) -> None:
    """Break pieces off the rims: lower ground beside the crack, of a fresher color, no truth."""
    reach = float(np.clip(rng.uniform(0.3, 1.4) * habit.width, 1.0, 14.0))
    patchy = smooth(rng, canvas.shape, max(4.0, 2.5 * reach)) - np.float32(rng.normal(0.3, 0.5))
    broken = step((np.float32(reach) * patchy.clip(0, 1.5) - beside) / np.float32(1.2))
    fresh = np.float32(rng.uniform(0.7, 1.35))
    canvas.albedo *= (1 + (fresh - 1) * broken * (1 - traces.cover))[..., None]
    rough = np.float32(0.6) * smooth(rng, canvas.shape, 2.5)
    canvas.relief -= broken * (np.float32(rng.uniform(0.3, 0.8) * min(reach, 4.0)) + rough)


def stain_rim(rng: np.random.Generator, canvas: Canvas, beside: Float32, habit: Habit) -> None:
    """Draw dirt, water or lime along the crack."""
    reach = rng.uniform(0.8, 4.0) * habit.width + rng.uniform(1, 6)
    near = np.exp(-beside / np.float32(reach)) * (
        np.float32(0.6) + np.float32(0.4) * smooth(rng, canvas.shape, 12.0)
    )
    change = rng.uniform(-0.3, 0.0) if rng.random() < 0.7 else rng.uniform(0.0, 0.4)
    canvas.albedo *= (1 + np.float32(change) * near)[..., None]


def overgrow(rng: np.random.Generator, canvas: Canvas, traces: _Traces, beside: Float32) -> None:
    """Draw moss and grass that hang over the rims of a crack."""
    shape = canvas.shape
    reach = np.float32(rng.uniform(0.5, 5.0))
    tufts = specks(rng, shape, rng.uniform(3, 9), rng.uniform(0.1, 0.5))
    cover = tufts * step((reach - beside) / 1.5) * (1 - traces.cover)
    leafy = np.array([0.13, 0.2, 0.05], np.float32) * (1 + 0.4 * white(rng, shape)[..., None])
    canvas.tint(cover, leafy.clip(0.02, 0.6))
    canvas.relief += cover * np.float32(1.5)
    canvas.claim(cover * (1 - traces.mask), Kind.VEGETATION, hides=False)

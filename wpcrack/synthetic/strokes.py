"""Polylines of varying width drawn onto a frame: exact coverage, exact masks, no clipping effects.

Everything is computed in plane coordinates segment by segment, so a line that crosses the border
of a frame continues on the next one to the pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wpcrack.synthetic.arrays import Float32, Float64
from wpcrack.synthetic.noise import Frame

_BOX_STEP = 6  # segments are grouped by box size in steps of this many pixels
_CHUNK_CELLS = 2_000_000
_LINE_STEP_PX = 0.25


@dataclass(frozen=True)
class Stroke:
    """A polyline: points_px (N, 2) x, y; width_px (N,); depth (N,), the share of light lost."""

    points_px: Float64
    width_px: Float64
    depth: Float64


@dataclass(frozen=True)
class _Segments:
    start: Float64  # (S, 2)
    along: Float64  # (S, 2) end - start
    half: Float64  # (S, 2) half width at start and end
    depth: Float64  # (S, 2)

    def __getitem__(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> _Segments:
        return _Segments(self.start[index], self.along[index], self.half[index], self.depth[index])


def darkening(strokes: Sequence[Stroke], frame: Frame) -> Float32:
    """Return the share of light that strokes take from each pixel of the frame, (H, W) in [0, 1].

    A pixel loses depth x coverage, where the coverage is the overlap of the stroke's profile with
    a box of one pixel: a stroke thinner than a pixel darkens its pixels in proportion.
    """
    loss = np.zeros(frame.height * frame.width, np.float32)
    for near in _near(_segments(strokes, frame, reach_px=0.5), frame, reach_px=0.5):
        cover = np.minimum(near.distance + 0.5, near.half) - np.maximum(
            near.distance - 0.5, -near.half
        )
        np.maximum.at(loss, near.index, (cover.clip(0, 1) * near.depth).astype(np.float32))
    return loss.reshape(frame.height, frame.width)


def mask(strokes: Sequence[Stroke], frame: Frame) -> npt.NDArray[np.bool_]:
    """Return true pixels of the strokes, (H, W) bool.

    A pixel belongs to a stroke if its center lies within half the width of the centerline. Where
    the stroke is thinner than one pixel, it is the pixels that the centerline passes (sampled
    every quarter of a pixel: an 8-connected line).
    """
    hit = np.zeros(frame.height * frame.width, np.bool_)
    segments = _segments(strokes, frame, reach_px=0.5)
    for near in _near(segments, frame, reach_px=0.0):
        hit[near.index[near.distance <= near.half]] = True
    hit[_thin_pixels(segments[segments.half.min(axis=1) < 0.5], frame)] = True
    return hit.reshape(frame.height, frame.width)


def _segments(strokes: Sequence[Stroke], frame: Frame, *, reach_px: float) -> _Segments:
    """Return segments whose box, with `reach_px` around it, touches the frame."""
    starts, alongs, halves, depths = [], [], [], []
    low = np.array([frame.col_off, frame.row_off]) - reach_px
    high = low + np.array([frame.width, frame.height]) + 2 * reach_px
    for stroke in strokes:
        if len(stroke.points_px) < 2:
            continue
        half = stroke.width_px / 2
        widest = half.max()
        if ((stroke.points_px.max(axis=0) + widest) < low).any() or (
            (stroke.points_px.min(axis=0) - widest) > high
        ).any():
            continue
        starts.append(stroke.points_px[:-1])
        alongs.append(np.diff(stroke.points_px, axis=0))
        halves.append(np.stack([half[:-1], half[1:]], axis=1))
        depths.append(np.stack([stroke.depth[:-1], stroke.depth[1:]], axis=1))
    if not starts:
        return _Segments(*(np.zeros((0, 2)) for _ in range(4)))
    everything = _Segments(*(np.concatenate(a) for a in (starts, alongs, halves, depths)))
    end = everything.start + everything.along
    reach = everything.half.max(axis=1, keepdims=True)
    touches = (np.maximum(everything.start, end) + reach >= low) & (
        np.minimum(everything.start, end) - reach <= high
    )
    return everything[touches.all(axis=1)]


@dataclass(frozen=True)
class _Near:
    """Pixels near segments: flat index in the frame, distance, half width and depth there."""

    index: npt.NDArray[np.int64]
    distance: Float64
    half: Float64
    depth: Float64


def _near(segments: _Segments, frame: Frame, *, reach_px: float) -> Iterator[_Near]:
    """Yield pixels with a center in the box of a segment grown by its half width + `reach_px`."""
    reach = segments.half.max(axis=1) + reach_px
    corner = np.floor(
        np.minimum(segments.start, segments.start + segments.along) - reach[:, None]
    ).astype(np.int64)
    size = np.ceil(np.abs(segments.along).max(axis=1) + 2 * reach).astype(np.int64) + 1
    size = -(-size // _BOX_STEP) * _BOX_STEP
    for box in np.unique(size):
        members = np.flatnonzero(size == box)
        for part in np.array_split(members, -(-members.size * box * box // _CHUNK_CELLS)):
            yield _near_boxes(segments[part], corner[part], int(box), frame)


def _near_boxes(
    segments: _Segments, corner: npt.NDArray[np.int64], box: int, frame: Frame
) -> _Near:
    offset = np.arange(box)
    col = corner[:, 0, None, None] + offset[None, None, :]
    row = corner[:, 1, None, None] + offset[None, :, None]
    dx = col + 0.5 - segments.start[:, 0, None, None]
    dy = row + 0.5 - segments.start[:, 1, None, None]
    ax, ay = segments.along[:, 0, None, None], segments.along[:, 1, None, None]
    t = ((dx * ax + dy * ay) / np.maximum(ax * ax + ay * ay, 1e-12)).clip(0, 1)
    distance = np.hypot(dx - t * ax, dy - t * ay)
    half = segments.half[:, 0, None, None] * (1 - t) + segments.half[:, 1, None, None] * t
    depth = segments.depth[:, 0, None, None] * (1 - t) + segments.depth[:, 1, None, None] * t
    row, col = row - frame.row_off, col - frame.col_off
    inside = (row >= 0) & (row < frame.height) & (col >= 0) & (col < frame.width)
    inside &= distance <= half + 0.5
    index = np.broadcast_to(row * frame.width + col, inside.shape)[inside]
    return _Near(index, distance[inside], half[inside], depth[inside])


def _thin_pixels(segments: _Segments, frame: Frame) -> npt.NDArray[np.int64]:
    """Return flat indices of pixels that centerlines pass where they are thinner than a pixel."""
    steps = np.ceil(np.hypot(segments.along[:, 0], segments.along[:, 1]) / _LINE_STEP_PX)
    steps = np.maximum(steps, 1).astype(np.int64) + 1
    which = np.repeat(np.arange(steps.size), steps)
    first = np.repeat(np.cumsum(steps) - steps, steps)
    t = (np.arange(which.size) - first) / (steps[which] - 1)
    half = segments.half[which, 0] * (1 - t) + segments.half[which, 1] * t
    point = segments.start[which] + t[:, None] * segments.along[which]
    pixel = np.floor(point[half < 0.5]).astype(np.int64) - (frame.col_off, frame.row_off)
    inside = ((pixel >= 0) & (pixel < (frame.width, frame.height))).all(axis=1)
    return np.asarray(pixel[inside] @ np.array([1, frame.width]), np.int64)

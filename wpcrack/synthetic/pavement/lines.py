"""Crack lines on the plane: rough axes with ragged sides, alone, branched or as a net.

All lengths are pixels of the plane unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wpcrack.synthetic.arrays import Float32, Float64
from wpcrack.synthetic.cracks import voronoi_edges
from wpcrack.synthetic.pavement.fields import Shape, cut, log_uniform, rough_line
from wpcrack.synthetic.pavement.ground import Ground, Stones

Pattern = Literal["single", "branching", "pair", "alligator", "block", "fine"]

PATTERNS: dict[Pattern, float] = {
    "single": 0.37,
    "branching": 0.25,
    "pair": 0.07,
    "alligator": 0.13,
    "block": 0.08,
    "fine": 0.1,
}
"""How often each pattern is drawn."""

NARROWEST_PX, NARROWEST_MM, WIDEST_MM = 0.45, 0.15, 60.0
_WIDEST_SHARE = 0.17  # of the window's side
_WIDEST_OF_NETS = 0.03
_HAIRLINES, _USUAL_PX = 0.2, 1.5  # share of cracks about or below a pixel, and what is not
_TAPE = 1024
_BROKEN_OUT = 0.3  # share of wide cracks from whose side a piece is missing


@dataclass(frozen=True)
class Branches:
    """Branches of a crack that have the same number of points.

    Attributes:
        axis: (E, N, 2) x, y.
        left: (E, N) half width on the one side; 0 where the crack is closed.
        right: (E, N) half width on the other side.
    """

    axis: Float64
    left: Float64
    right: Float64

    @property
    def width(self) -> Float64:
        """(E, N) full width."""
        return self.left + self.right

    def outlines(self, stones: Stones | None, snap: float) -> Float64:
        """Return the closed outlines, (E, 2 N, 2); their corners give way to stones."""
        normal = _normals(self.axis, max(2, int(self.width.mean())))
        one = self.axis + normal * self.left[..., None]
        other = self.axis - normal * self.right[..., None]
        rings = np.concatenate([one, other[:, ::-1]], axis=1)
        return rings if stones is None else around_stones(rings, stones, snap)


@dataclass(frozen=True)
class Habit:
    """What all branches of one crack share.

    Attributes:
        width: Mean full width.
        rough: Deviation of the axis over one pixel.
        hurst: How the deviation grows with distance.
        ragged: Deviation of each side from a smooth course.
        swing: Deviation of the logarithm of the width along the crack.
        snap: How far the crack gives way to stones, 0 to 1.
        tapes: Random lines.
    """

    width: float
    rough: float
    hurst: float
    ragged: float
    swing: float
    snap: float
    tapes: Tapes


@dataclass(frozen=True)
class Tapes:
    """Long random lines of deviation about 1, from which each branch cuts its own pieces.

    Attributes:
        course: (N,) self-affine; scaled so that one sample's step deviates by about 1.
        swing: (N,) nearly equal power at every length.
        side: (N,) raggedness from the crack's width down to a sample.
    """

    course: Float32
    swing: Float32
    side: Float32


def draw_tapes(rng: np.random.Generator, hurst: float, width: float) -> Tapes:
    """Draw tapes for cracks of a roughness and width (pixels)."""
    longest = float(np.clip(2 * width / _pace(width), 2.5, 60))
    side = rough_line(rng, _TAPE, longest=longest, shortest=1.6, hurst=0.45) / longest**0.45
    return Tapes(
        course=rough_line(rng, _TAPE, longest=_TAPE / 4, hurst=hurst),
        swing=rough_line(rng, _TAPE, longest=256, shortest=6, hurst=0.12),
        side=np.asarray(side, np.float32),
    )


def _pace(width: float) -> float:
    """Return the distance of the points of an axis."""
    return float(np.clip(width / 5, 0.9, 2.5))


def draw_lines(
    rng: np.random.Generator, plane: Shape, gsd_mm: float, ground: Ground
) -> tuple[list[Branches], Habit]:
    """Return the branches of one random crack somewhere on the plane, and what they share."""
    pattern = rng.choice(list(PATTERNS), p=np.array(list(PATTERNS.values())))
    side = min(plane)
    widest = min(_WIDEST_SHARE * side, WIDEST_MM / gsd_mm)
    low = max(NARROWEST_PX, NARROWEST_MM / gsd_mm)
    if pattern in ("alligator", "block", "fine"):
        widest = min(widest, _WIDEST_OF_NETS * side)
    usual = max(low, _USUAL_PX)
    if rng.random() < _HAIRLINES:
        width = log_uniform(rng, low, 1.3 * usual)
    else:
        width = log_uniform(rng, usual, max(widest, 1.6 * usual))
    hurst = rng.uniform(0.55, 0.85)
    habit = Habit(
        width=width,
        rough=log_uniform(rng, 0.09, 0.45),
        hurst=hurst,
        ragged=rng.uniform(0.03, 0.16) * width + min(0.3 * ground.grain_px, 0.25 * width),
        swing=rng.uniform(0.12, 0.6),
        snap=rng.uniform(0.3, 1.0) if rng.random() < 0.85 else 0.0,
        tapes=draw_tapes(rng, hurst, width),
    )
    make = {"alligator": _net, "block": _net}.get(pattern, _strand)
    lines = make(rng, plane, gsd_mm, habit, pattern)
    if ground.stones is not None and habit.snap:
        lines = [replace(k, axis=around_stones(k.axis, ground.stones, habit.snap)) for k in lines]
    return lines, habit


def _strand(
    rng: np.random.Generator, plane: Shape, gsd_mm: float, habit: Habit, pattern: Pattern
) -> list[Branches]:
    """Draw one crack across the plane, with branches, a companion, or only fine traces."""
    chord, free = _chord(rng, plane)
    main = rough_branches(rng, chord[None], habit, free)
    if pattern == "single":
        return [main]
    if pattern == "pair":
        off = rng.normal(0, 0.12, 2) * min(plane)
        other = replace(habit, width=max(NARROWEST_PX, habit.width * rng.uniform(0.3, 1.0)))
        return [main, rough_branches(rng, chord[None] + off, other, free)]
    if pattern == "fine":
        many = [main]
        for _ in range(int(rng.integers(1, 5))):
            chord, free = _chord(rng, plane)
            share = rng.uniform(0.2, 0.7)
            chord[1] = chord[0] + share * (chord[1] - chord[0])
            many.append(rough_branches(rng, chord[None], habit, (True, True)))
        return many
    return [main, *_twigs(rng, main, habit, min(plane), depth=2)]


def _twigs(
    rng: np.random.Generator, parent: Branches, habit: Habit, side: int, *, depth: int
) -> list[Branches]:
    """Draw thinner branches that leave a branch at 25-75 degrees, and theirs."""
    found: list[Branches] = []
    axis, breadth = parent.axis[0], parent.width[0]
    count = len(axis)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.uniform(0.1, 0.9) * (count - 1))
        ahead = axis[min(at + 8, count - 1)] - axis[max(at - 8, 0)]
        heading = np.arctan2(ahead[1], ahead[0]) + rng.choice((-1, 1)) * rng.uniform(0.45, 1.3)
        length = log_uniform(rng, 0.12, 0.9) * side * (1.0 if depth == 2 else 0.5)
        start = axis[at]
        chord = np.stack([start, start + length * np.array([np.cos(heading), np.sin(heading)])])
        width = max(NARROWEST_PX, min(float(breadth[at]), habit.width) * rng.uniform(0.25, 0.95))
        thinner = replace(habit, width=width, ragged=habit.ragged * width / habit.width)
        child = rough_branches(rng, chord[None], thinner, (False, True))
        found.append(child)
        if depth > 1 and rng.random() < 0.4:
            found += _twigs(rng, child, thinner, side, depth=depth - 1)
    return found


def _net(
    rng: np.random.Generator, plane: Shape, gsd_mm: float, habit: Habit, pattern: Pattern
) -> list[Branches]:
    """Draw edges of Voronoi cells: alligator 30-250 mm inside a blob, block .3-2 m everywhere."""
    side = min(plane)
    sizes = (30.0, 250.0) if pattern == "alligator" else (300.0, 2000.0)
    cell = float(
        np.clip(log_uniform(rng, *sizes) / gsd_mm, max(16.0, 9 * habit.width, side / 8), 0.9 * side)
    )
    size = np.array([plane[1], plane[0]])
    half = size / 2 + cell
    half = np.minimum(half, 5.5 * cell)
    center = size * rng.uniform(0.3, 0.7, 2)
    radius = rng.uniform(0.5, 1.3, 2) * half if pattern == "alligator" else half * 9
    edges = np.array(voronoi_edges(rng, half, cell)).reshape(-1, 2, 2)
    off = np.hypot(*(edges.mean(axis=1) / radius).T)
    ends = edges + center
    keep = rng.random(len(edges)) >= 0.08 + (off - 0.6).clip(0, None)
    keep &= np.hypot(*(edges[:, 1] - edges[:, 0]).T) >= 2
    keep &= ((ends > -cell) & (ends < size + cell)).all(axis=(1, 2))
    if not keep.any():
        return []
    widths = (habit.width * np.exp(rng.normal(0, 0.3, int(keep.sum())))).clip(NARROWEST_PX, None)
    flat = replace(habit, rough=habit.rough * 0.7)
    return [rough_branches(rng, ends[keep], flat, widths=widths)]


def _chord(rng: np.random.Generator, plane: Shape) -> tuple[Float64, tuple[bool, bool]]:
    """Return ends of a crack through the inner plane, and which of them end inside it."""
    size = np.array([plane[1], plane[0]], np.float64)
    middle = size * rng.uniform(0.15, 0.85, 2)
    angle = rng.uniform(0, 2 * np.pi)
    run = np.array([np.cos(angle), np.sin(angle)]) * 0.75 * float(np.hypot(*size))
    free = bool(rng.random() < 0.25), bool(rng.random() < 0.25)
    reach = [rng.uniform(0.15, 0.5) if end else 1.0 for end in free]
    return np.stack([middle - run * reach[0], middle + run * reach[1]]), free


def rough_branches(
    rng: np.random.Generator,
    chords: Float64,
    habit: Habit,
    free: tuple[bool, bool] = (False, False),
    widths: Float64 | None = None,
) -> Branches:
    """Draw rough lines from end to end of each chord.

    Args:
        rng: Source of randomness.
        chords: (E, 2, 2) their ends.
        habit: Width and roughness.
        free: Whether the cracks thin out towards their first and last points.
        widths: (E,) mean width of each; None: the habit's.
    """
    run = chords[:, 1] - chords[:, 0]
    length = np.hypot(run[:, 0], run[:, 1])[:, None].clip(1e-6, None)
    pace = _pace(habit.width)
    count = max(5, int(length.max() / pace) + 1)
    shape = len(chords), count
    share = np.linspace(0, 1, count)
    s = length * share
    ends = np.minimum(s, length - s)
    unit = run / length
    gain = habit.rough * pace**habit.hurst
    aside = gain * cut(rng, habit.tapes.course, shape)
    aside -= aside[:, :1] * (1 - share) + aside[:, -1:] * share
    along = gain * cut(rng, habit.tapes.side, shape) * np.minimum(1, ends / 8)
    normal = np.stack([-unit[:, 1], unit[:, 0]], axis=1)
    axis = chords[:, :1] + (s + along)[..., None] * unit[:, None]
    axis += aside[..., None] * normal[:, None]
    own = np.full((len(chords), 1), habit.width) if widths is None else widths[:, None]
    swing = habit.swing * 0.5 * cut(rng, habit.tapes.swing, shape)
    width = own * np.exp(swing).clip(0.2, 2.2)
    tip = np.minimum(0.5 * length, 12 * own + 8)
    for is_free, way in zip(free, (s, length - s), strict=True):
        if is_free:
            width = width * np.minimum(1, way / tip) ** 0.6
    halves = [0.5 * width + habit.ragged * cut(rng, habit.tapes.side, shape) for _ in range(2)]
    if habit.width > 3 and rng.random() < _BROKEN_OUT:
        halves[int(rng.integers(2))] += _gap(rng, s, length, habit.width)
    least = 0.15 * own if habit.width < 2.5 or not any(free) else np.zeros_like(own)  # few gaps
    left, right = (np.maximum(half, least) for half in halves)
    return Branches(axis, left, right)


def _gap(rng: np.random.Generator, s: Float64, length: Float64, width: float) -> Float64:
    """Return what a piece that has broken out adds to one side of each branch, (E, N)."""
    at = rng.uniform(0, 1, length.shape) * length
    reach, depth = rng.uniform(0.7, 3.0) * width, rng.uniform(0.3, 1.3) * width
    return np.asarray(depth * (1 - ((s - at) / reach) ** 2).clip(0, 1) ** 0.5)


def _normals(axis: Float64, reach: int) -> Float64:
    """Return unit normals of lines (E, N, 2), over `reach` points to both sides, (E, N, 2)."""
    count = axis.shape[1]
    at = np.arange(count)
    run = axis[:, np.minimum(at + reach, count - 1)] - axis[:, np.maximum(at - reach, 0)]
    run /= np.maximum(np.hypot(run[..., 0], run[..., 1]), 1e-9)[..., None]
    return np.stack([-run[..., 1], run[..., 0]], axis=-1)


def around_stones(points: Float64, stones: Stones, snap: float) -> Float64:
    """Move points (..., 2) that lie on stones towards their rims; points off the plane stay."""
    height, width = stones.label.shape
    col, row = np.floor(points[..., 0]).astype(int), np.floor(points[..., 1]).astype(int)
    on = (col >= 0) & (row >= 0) & (col < width) & (row < height)
    col, row = col.clip(0, width - 1), row.clip(0, height - 1)
    inside = np.where(on, stones.inside[row, col], 0).clip(0, None)
    off = points - stones.center[stones.label[row, col]]
    unit = off / np.maximum(np.hypot(off[..., 0], off[..., 1]), 0.5)[..., None]
    return np.asarray(points + unit * (snap * inside)[..., None])

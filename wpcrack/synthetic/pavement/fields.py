"""Random fields that pavement is made of: smooth noise, clouds, specks, rough lines.

Lengths are pixels. A field's deviation is about 1 unless a function says otherwise.
"""

from __future__ import annotations

import cv2
import numpy as np

from wpcrack.synthetic.arrays import Float32

Shape = tuple[int, int]

_CUBIC_STD = 0.75  # deviation that bicubic interpolation leaves of a white lattice
_SHRINK = 4  # wide blobs are drawn on every fourth pixel and enlarged
_LINEAR_STD = 0.8  # the same of linear interpolation along a line


def white(rng: np.random.Generator, shape: Shape) -> Float32:
    """Draw white normal noise, (H, W)."""
    return rng.standard_normal(shape, dtype=np.float32)


def smooth(rng: np.random.Generator, shape: Shape, cell_px: float) -> Float32:
    """Draw noise whose blobs are about `cell_px` wide: a random lattice, interpolated cubically.

    Below 1 px the blobs average out inside a pixel, and the deviation falls in proportion.
    """
    if cell_px <= 1.0:
        return white(rng, shape) * np.float32(max(cell_px, 0.0))
    return draw_streaks(rng, shape, (cell_px, cell_px))


def draw_streaks(rng: np.random.Generator, shape: Shape, cell_px: tuple[float, float]) -> Float32:
    """Draw smooth noise with cells of `cell_px` = (rows, columns); streaks if the two differ."""
    rows, cols = (max(1.0, cell) for cell in cell_px)
    coarse = min(rows, cols) >= 2 * _SHRINK
    small = tuple(-(-side // _SHRINK) for side in shape) if coarse else shape
    if coarse:
        rows, cols = rows / _SHRINK, cols / _SHRINK
    lattice = white(rng, (int(small[0] / rows) + 5, int(small[1] / cols) + 5))
    start = rng.uniform(1.5, 2.5, 2)
    if max(rows, cols) > 6 or coarse:
        pull = np.array([[1 / cols, 0, start[0]], [0, 1 / rows, start[1]]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        field = cv2.warpAffine(lattice, pull, (small[1], small[0]), flags=flags)
        if coarse:
            field = cv2.resize(field, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    else:
        size = round(lattice.shape[1] * cols), round(lattice.shape[0] * rows)
        wide = cv2.resize(lattice, size, interpolation=cv2.INTER_CUBIC)
        top, left = int(start[0] * rows), int(start[1] * cols)
        field = np.ascontiguousarray(wide[top : top + shape[0], left : left + shape[1]])
    return np.asarray(field, np.float32) / np.float32(_CUBIC_STD)


def cloud(
    rng: np.random.Generator, shape: Shape, largest_px: float, *, fall: float = 0.7
) -> Float32:
    """Sum smooth noises whose cells shrink fourfold; each is weighted `fall` times the last."""
    total = np.zeros(shape, np.float32)
    cell, weight, power = largest_px, 1.0, 0.0
    while cell > 1.5 and weight > 0.05:
        total += np.float32(weight) * smooth(rng, shape, cell)
        power += weight**2
        cell, weight = cell / 4, weight * fall
    return total / np.float32(max(power, 1e-9) ** 0.5)


def specks(rng: np.random.Generator, shape: Shape, cell_px: float, share: float) -> Float32:
    """Draw soft spots of about `cell_px` that cover some `share` of the field, in [0, 1]."""
    field = smooth(rng, shape, max(cell_px, 1.01))
    level = float(np.quantile(field[::3, ::3], 1 - min(max(share, 0.0), 1.0)))
    return np.asarray(((field - np.float32(level)) * np.float32(2.5)).clip(0, 1), np.float32)


def rough_line(
    rng: np.random.Generator, count: int, *, longest: float, shortest: float = 2.0, hurst: float
) -> Float32:
    """Return a self-affine line: broken lines with kinks every `longest`, half of it, ... samples.

    A broken line of spacing L has the deviation L^hurst, so that short stretches are as rough as
    long ones, seen from nearer.

    Args:
        rng: Source of randomness.
        count: Samples.
        longest: Spacing of the coarsest kinks, in samples.
        shortest: Spacing at which the roughness ends.
        hurst: 1 is smooth, 0.5 is a random walk, 0 is as rough at every spacing.

    Returns:
        (count,), with deviation about longest^hurst.
    """
    total = np.zeros(count, np.float32)
    spacing = longest
    at = np.arange(count, dtype=np.float64)
    while spacing >= shortest:
        knots = int(count / spacing) + 3
        place = (np.arange(knots) - 1 + rng.uniform(-0.35, 0.35, knots)) * spacing
        total += np.interp(at, place, rng.standard_normal(knots) * spacing**hurst).astype(
            np.float32
        )
        spacing /= 2
    return total / np.float32(_LINEAR_STD)


def cut(rng: np.random.Generator, tape: Float32, shape: tuple[int, int]) -> Float32:
    """Cut pieces of a long line at random places, turned and mirrored at random.

    Args:
        rng: Source of randomness.
        tape: (N,) the line; it is repeated if a piece is longer.
        shape: Number and length of the pieces.
    """
    rows, count = shape
    if count > len(tape):
        tape = np.tile(tape, -(-count // len(tape)))
    start = rng.integers(len(tape) - count + 1, size=(rows, 1))
    at = np.arange(count)
    at = np.where(rng.random((rows, 1)) < 0.5, at, at[::-1])
    sign = np.where(rng.random((rows, 1)) < 0.5, np.float32(1), np.float32(-1))
    return np.asarray(sign * tape[start + at], np.float32)


def blur(field: Float32, sigma_px: float) -> Float32:
    """Blur (H, W) or (H, W, C) by a Gaussian, edges mirrored; below .2 px nothing is done."""
    if sigma_px < 0.2:
        return field
    side = 2 * int(np.ceil(2.5 * sigma_px)) + 1
    return np.asarray(
        cv2.GaussianBlur(field, (side, side), sigma_px, borderType=cv2.BORDER_REFLECT_101),
        np.float32,
    )


def step(x: Float32) -> Float32:
    """Return a smooth step from 0 at x <= 0 to 1 at x >= 1."""
    v = x.clip(0, 1)
    return np.asarray(v * v * (3 - 2 * v), np.float32)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number between the limits, whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))

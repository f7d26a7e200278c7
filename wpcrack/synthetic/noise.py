"""Noise that belongs to a plane, not to an array: any frame of it can be drawn alone.

Every value is a hash of (seed, global row, global column), so two frames that abut continue each
other exactly and a city of any size needs no more memory than the frame in hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wpcrack.synthetic.arrays import Float32

_ROW_PRIME, _COL_PRIME = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77)
_MIX_1, _MIX_2 = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)  # "lowbias32", C. Wellons 2018
_BYTE_SUM_MEAN = 4 * 127.5
_SPLINE_STD = (36 * 151 / 315) ** 0.5  # of the four taps (times 6), averaged over all positions
_BYTE_SUM_STD = (4 * (256**2 - 1) / 12) ** 0.5


@dataclass(frozen=True)
class Frame:
    """A rectangle of the global pixel plane; pixel (r, c) covers [c, c+1] x [r, r+1]."""

    row_off: int
    col_off: int
    height: int
    width: int

    def grow(self, margin: int) -> Frame:
        """Return the frame with `margin` more pixels on each side."""
        return Frame(
            self.row_off - margin,
            self.col_off - margin,
            self.height + 2 * margin,
            self.width + 2 * margin,
        )

    def clip_to(self, x0: float, y0: float, x1: float, y1: float) -> Frame | None:
        """Return the part of the frame inside a box of plane coordinates, None if there is none."""
        top = max(self.row_off, int(np.floor(y0)))
        left = max(self.col_off, int(np.floor(x0)))
        height = min(self.row_off + self.height, int(np.ceil(y1))) - top
        width = min(self.col_off + self.width, int(np.ceil(x1))) - left
        return Frame(top, left, height, width) if height > 0 and width > 0 else None

    def slices(self, inner: Frame) -> tuple[slice, slice]:
        """Return the index of `inner`, which lies inside this frame, in an array of this frame."""
        top, left = inner.row_off - self.row_off, inner.col_off - self.col_off
        return slice(top, top + inner.height), slice(left, left + inner.width)

    def centers(self) -> tuple[Float32, Float32]:
        """Return plane coordinates of the pixel centers: x of shape (1, W), y of shape (H, 1)."""
        x = np.arange(self.col_off, self.col_off + self.width, dtype=np.float32) + np.float32(0.5)
        y = np.arange(self.row_off, self.row_off + self.height, dtype=np.float32) + np.float32(0.5)
        return x[None, :], y[:, None]


def white(seed: int, frame: Frame) -> Float32:
    """Draw uncorrelated, nearly normal noise of mean 0 and deviation 1, shape (H, W).

    The sum of a hash's four bytes (Irwin-Hall) stands for the normal distribution: one hash a
    pixel, and no tail beyond 3.5 deviations.
    """
    rows = np.arange(frame.row_off, frame.row_off + frame.height, dtype=np.int64).astype(np.uint32)
    cols = np.arange(frame.col_off, frame.col_off + frame.width, dtype=np.int64).astype(np.uint32)
    salt = np.uint32((seed * 0x27D4EB2F + 0x165667B1) & 0xFFFFFFFF)
    h = (rows * _ROW_PRIME)[:, None] + ((cols * _COL_PRIME) ^ salt)[None, :]
    h ^= h >> np.uint32(16)
    h *= _MIX_1
    h ^= h >> np.uint32(15)
    h *= _MIX_2
    h ^= h >> np.uint32(16)
    pairs = (h & np.uint32(0x00FF00FF)) + ((h >> np.uint32(8)) & np.uint32(0x00FF00FF))
    total = (pairs & np.uint32(0xFFFF)) + (pairs >> np.uint32(16))
    return (total.astype(np.float32) - np.float32(_BYTE_SUM_MEAN)) / np.float32(_BYTE_SUM_STD)


def smooth(seed: int, frame: Frame, cell_px: float) -> Float32:
    """Draw smooth noise of deviation about 1: a cubic B-spline through white noise on a lattice.

    Args:
        seed: Which noise.
        frame: Where.
        cell_px: Spacing of the lattice, about a third of the size of the blobs.
    """
    top, row_weights = _spline(frame.row_off, frame.height, cell_px)
    left, col_weights = _spline(frame.col_off, frame.width, cell_px)
    lattice = white(seed, Frame(top, left, row_weights.shape[1], col_weights.shape[1]))
    return _product(_product(row_weights, lattice), col_weights.T)


def line_noise(seed: int, start: int, count: int, cell_px: float) -> Float32:
    """Draw smooth noise along one axis at the pixel centers start + .5, ..., shape (count,)."""
    first, weights = _spline(start, count, cell_px)
    return _product(weights, white(seed, Frame(0, first, 1, weights.shape[1]))[0])


def _product(a: Float32, b: Float32) -> Float32:
    """Multiply finite matrices, silent where OpenBLAS raises the flag of invalid operations.

    Its AVX-512 kernel of a matrix with five columns times a vector (OpenBLAS 0.3.31, in numpy's
    wheels) computes on left-over bytes of the stack in lanes that it does not store.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(a @ b, np.float32)


def _spline(start: int, count: int, cell_px: float) -> tuple[int, Float32]:
    """Return first lattice index and (count, n) weights of a cubic B-spline at pixel centers."""
    u = (np.arange(start, start + count) + 0.5) / cell_px
    base = np.floor(u).astype(np.int64)
    f = u - base
    taps = np.stack(
        [(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3], axis=1
    )
    taps /= _SPLINE_STD
    first = int(base[0]) - 1
    weights = np.zeros((count, int(base[-1]) + 3 - first), np.float32)
    columns = (base - 1 - first)[:, None] + np.arange(4)
    np.put_along_axis(weights, columns, taps.astype(np.float32), axis=1)
    return first, weights

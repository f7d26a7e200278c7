"""Drawn crack masks for benchmarks/vector.py: street, crumbs and hatching."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize

Mask = NDArray[np.bool_]


def hatching(count: int) -> Mask:
    """Cracks of about 40 x 3 pixels, each in a cell of 48 pixels of its own."""
    rng = np.random.default_rng(0)
    columns = int(np.ceil(np.sqrt(count)))
    index = np.arange(count)
    center = np.column_stack((index % columns, index // columns)) * 48.0 + 24
    angle = rng.uniform(0, np.pi, count)
    reach = 18 * np.column_stack((np.cos(angle), np.sin(angle)))
    bend = rng.uniform(-3, 3, (count, 2))
    lines = shapely.linestrings(np.stack((center - reach, center + bend, center + reach), axis=1))
    outlines = shapely.buffer(lines, 1.5, quad_segs=2)
    rows = -(-count // columns)
    mask: Mask = rasterize(outlines, out_shape=(48 * rows, 48 * columns)).astype(bool)
    return mask


def street(side: int) -> Mask:
    """Winding cracks 2 to 6 pixels wide on one percent of the pixels."""
    rng = np.random.default_rng(1)
    lines = []
    length = 0.01 * side * side / 4 / 800
    for _ in range(round(length)):
        turns = np.cumsum(rng.normal(0, 0.25, 80)) + rng.uniform(0, 2 * np.pi)
        path = np.cumsum(10 * np.column_stack((np.cos(turns), np.sin(turns))), axis=0)
        start = rng.uniform(0, side, 2)
        lines.append(shapely.LineString(start + path).buffer(rng.uniform(1, 3), quad_segs=2))
    mask: Mask = rasterize(lines, out_shape=(side, side)).astype(bool)
    return mask


def crumbs(count: int) -> Mask:
    """Specks of 4 to 16 pixels, each in a cell of 8 pixels of its own."""
    rng = np.random.default_rng(2)
    columns = int(np.ceil(np.sqrt(count)))
    cells = np.zeros((columns, columns, 8, 8), bool)
    heights, widths = rng.integers(1, 7, (2, columns, columns))
    rows, cols = np.arange(8)[:, None], np.arange(8)
    box = (rows >= 1) & (rows <= heights[..., None, None])
    cells |= box & (cols >= 1) & (cols <= np.minimum(widths, 3)[..., None, None])
    cells.reshape(-1, 8, 8)[count:] = False
    return np.ascontiguousarray(cells.transpose(0, 2, 1, 3)).reshape(8 * columns, 8 * columns)

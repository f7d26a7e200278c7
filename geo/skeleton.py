"""Skeletons of crack masks as pixel graphs, one per component.

The thinning runs once over all components of an array: it looks at 3 x 3 pixels only, and those
of one 8-connected component never see another. So a component has the same skeleton whatever
array it lies in, which is what makes measures independent of the cut into blocks.

Thinning after Lee (1994), as that after Zhang and Suen (1984) eats diagonal cracks of an even
number of pixels from their ends, in the worst case wholly; both take the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import skeletonize

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The pixel graph of one component.

    Attributes:
        pixels: (K, 2) row, col of the skeleton in raster order.
        edges: (E, 2) indices of neighboring skeleton pixels. Corners count as neighbors only
            where no side leads around them, so that a staircase is a path and not a chain of
            triangles.
        border: (B, 2) row, col of the background pixels beside the component, in raster order.
    """

    pixels: IntArray
    edges: IntArray
    border: IntArray

    @property
    def corner(self) -> IntArray:
        """(2,) smallest row and column, from which the component's arithmetic counts."""
        least: IntArray = self.pixels.min(axis=0)
        return least


def skeletons(labels: NDArray[np.int32]) -> Iterator[tuple[int, Skeleton]]:
    """Thin each component of a label image; pixels count from the array's top-left corner.

    Args:
        labels: (H, W) int32, 0 = background; equal labels are one 8-connected component.

    Yields:
        Label and skeleton, by label.
    """
    if not labels.any():
        return
    padded = np.pad(labels, 1)
    thin = skeletonize(padded > 0, method="lee")  # type: ignore[no-untyped-call]
    flat = np.flatnonzero(thin)
    flat = flat[np.argsort(padded.ravel()[flat], kind="stable")]
    owner = padded.ravel()[flat]
    number = np.full(padded.size, -1, np.int64)
    number[flat] = np.arange(len(flat))
    edges = _edges(flat, number, padded.shape[1])
    edge_owner = owner[edges[:, 0]]
    border, border_owner = _border(padded)
    names = np.unique(owner)
    starts = np.searchsorted(owner, names)
    pixel_runs = np.split(flat, starts[1:])
    edge_runs = np.split(edges, np.searchsorted(edge_owner, names)[1:])
    border_runs = np.split(border, np.searchsorted(border_owner, names)[1:])
    for name, start, pixels, links, around in zip(
        names.tolist(), starts, pixel_runs, edge_runs, border_runs, strict=True
    ):
        width = padded.shape[1]
        yield name, Skeleton(_places(pixels, width), links - start, _places(around, width))


def _places(flat: IntArray, width: int) -> IntArray:
    """(N, 2) row, col in the unpadded array."""
    return np.column_stack(np.divmod(flat, width)) - 1


def _edges(flat: IntArray, number: IntArray, width: int) -> IntArray:
    """Pairs of neighboring skeleton pixels, ordered by the first of each."""
    pairs = []
    for step, around in (
        (1, ()),
        (width, ()),
        (width + 1, (1, width)),
        (width - 1, (-1, width)),
    ):
        joined = number[flat + step] >= 0
        for side in around:
            joined &= number[flat + side] < 0
        here = flat[joined]
        pairs.append(np.column_stack((number[here], number[here + step])))
    edges = np.concatenate(pairs)
    return edges[np.lexsort((edges[:, 1], edges[:, 0]))]


def _border(padded: NDArray[np.int32]) -> tuple[IntArray, IntArray]:
    """Background pixels beside a component and their component, by component, then in raster.

    Sides suffice: the background pixel nearest to a crack pixel always has one toward it.
    """
    values, width = padded.ravel(), padded.shape[1]
    inside = np.flatnonzero(values)
    found, owners = [], []
    for step in (-width, -1, 1, width):
        beside = inside + step
        outside = values[beside] == 0
        found.append(beside[outside])
        owners.append(values[inside[outside]])
    pairs = np.unique(np.concatenate(owners).astype(np.int64) * values.size + np.concatenate(found))
    owner, flat = np.divmod(pairs, values.size)
    return flat, owner

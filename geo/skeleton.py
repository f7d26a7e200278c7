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


@dataclass(frozen=True, eq=False)
class Thinned:
    """The skeletons of all components of an array, one run after the other, by label.

    Attributes:
        names: (N,) label of each component.
        pixels: (K, 2) row, col; those of component n are ``pixels[starts[n]:starts[n + 1]]``.
        edges: (E, 2) indices into ``pixels``.
        border: (B, 2) row, col of the background pixels beside the components.
        pixel_starts, edge_starts, border_starts: (N + 1,) where each component's run begins.
    """

    names: IntArray
    pixels: IntArray
    edges: IntArray
    border: IntArray
    pixel_starts: IntArray
    edge_starts: IntArray
    border_starts: IntArray

    def skeleton(self, index: int) -> Skeleton:
        """The skeleton of one component."""
        first = self.pixel_starts[index]
        return Skeleton(
            self.pixels[first : self.pixel_starts[index + 1]],
            self.edges[self.edge_starts[index] : self.edge_starts[index + 1]] - first,
            self.border[self.border_starts[index] : self.border_starts[index + 1]],
        )


def skeletons(labels: NDArray[np.int32]) -> Iterator[tuple[int, Skeleton]]:
    """Label and skeleton of each component of a label image, by label (see `thinned`)."""
    thin = thinned(labels)
    for index, name in enumerate(thin.names.tolist()):
        yield name, thin.skeleton(index)


def thinned(labels: NDArray[np.int32]) -> Thinned:
    """Thin each component of a label image; pixels count from the array's top-left corner.

    Args:
        labels: (H, W) int32, 0 = background; equal labels are one 8-connected component.
    """
    padded = np.pad(labels, 1)
    values, width = padded.ravel(), padded.shape[1]
    thin = skeletonize(padded > 0, method="lee")  # type: ignore[no-untyped-call]
    flat = np.flatnonzero(thin)
    flat = flat[np.argsort(values[flat], kind="stable")]
    owner = values[flat]
    number = np.full(padded.size, -1, np.int32)
    number[flat] = np.arange(len(flat), dtype=np.int32)
    edges = _edges(flat, number, width)
    border, border_owner = _border(padded)
    names = np.unique(owner)
    return Thinned(
        names.astype(np.int64),
        _places(flat, width),
        edges,
        _places(border, width),
        _starts(owner, names),
        _starts(owner[edges[:, 0]], names),
        _starts(border_owner, names),
    )


def _starts(owner: NDArray[np.integer], names: NDArray[np.integer]) -> IntArray:
    """(N + 1,) where the run of each name begins in its sorted owners."""
    starts: IntArray = np.append(np.searchsorted(owner, names), len(owner))
    return starts


def _places(flat: IntArray, width: int) -> IntArray:
    """(N, 2) row, col in the unpadded array."""
    return np.column_stack(np.divmod(flat, width)) - 1


def _edges(flat: IntArray, number: NDArray[np.int32], width: int) -> IntArray:
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
    edges = np.concatenate(pairs).astype(np.int64)
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
    pairs = np.concatenate(owners).astype(np.int64) * values.size + np.concatenate(found)
    pairs.sort()  # np.unique hashes, which takes ten times as long where most are different
    new = np.ones(len(pairs), bool)
    new[1:] = pairs[1:] != pairs[:-1]
    owner, flat = np.divmod(pairs[new], values.size)
    return flat, owner

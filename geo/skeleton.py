"""Skeletons of cracks as pixel graphs, one per component.

The thinning runs once over all components: it looks at 3 x 3 pixels only, and those of one
8-connected component never see another. So a component has the same skeleton in any company,
which is what makes measures independent of the cut into blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo.pixel_set import SE, SW, E, IntArray, N, PixelSet, S, W
from geo.thinning import thin


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The pixel graph of one component.

    Attributes:
        pixels: (K, 2) row, col of the skeleton in the mosaic, in raster order.
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
    """The skeletons of all components of a set, one run after the other, by number.

    Attributes:
        names: (N,) number of each component.
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


def thinned(pixels: PixelSet, owner: NDArray[np.integer]) -> Thinned:
    """Thin each component of a set of pixels.

    Args:
        pixels: of 8-connected components.
        owner: (N,) number of each pixel's component.
    """
    left = thin(pixels)
    left = left[np.argsort(owner[left], kind="stable")]
    number = np.full(len(pixels) + 1, -1, np.int32)
    number[left] = np.arange(len(left), dtype=np.int32)
    edges = _edges(left, number, pixels.neighbors)
    border, border_owner = _border(pixels, owner)
    names = owner[left][np.flatnonzero(np.diff(owner[left], prepend=-1))]  # they ascend
    return Thinned(
        names.astype(np.int64),
        np.column_stack(pixels.places(pixels.keys[left])),
        edges,
        np.column_stack(pixels.places(border)),
        _starts(owner[left], names),
        _starts(owner[left][edges[:, 0]], names),
        _starts(border_owner, names),
    )


def _starts(owner: NDArray[np.integer], names: NDArray[np.integer]) -> IntArray:
    """(N + 1,) where the run of each name begins in its sorted owners."""
    starts: IntArray = np.append(np.searchsorted(owner, names), len(owner))
    return starts


def _edges(left: IntArray, number: NDArray[np.int32], beside: NDArray[np.int32]) -> IntArray:
    """Pairs of neighboring skeleton pixels, ordered by the first of each."""
    pairs = []
    for step, around in ((E, ()), (S, ()), (SE, (E, S)), (SW, (W, S))):
        joined = number[beside[step][left]] >= 0
        for side in around:
            joined &= number[beside[side][left]] < 0
        here = left[joined]
        pairs.append(np.column_stack((number[here], number[beside[step][here]])))
    edges = np.concatenate(pairs).astype(np.int64)
    return edges[np.lexsort((edges[:, 1], edges[:, 0]))]


def _border(pixels: PixelSet, owner: NDArray[np.integer]) -> tuple[IntArray, IntArray]:
    """Keys of pixels beside a component and their component, by component, then in raster order.

    Sides suffice: the background pixel nearest to a crack pixel always has one toward it.
    """
    found, owners = [], []
    for step in (N, W, E, S):
        outside = pixels.neighbors[step] == len(pixels)
        found.append(pixels.keys[outside] + pixels.steps[step])
        owners.append(owner[outside])
    keys = np.concatenate(found)
    span = int(keys.max()) + 1 if len(keys) else 1
    pairs = np.concatenate(owners).astype(np.int64) * span + keys
    pairs.sort()  # np.unique hashes, which takes ten times as long where most are different
    new = np.ones(len(pairs), bool)
    new[1:] = pairs[1:] != pairs[:-1]
    border_owner, border = np.divmod(pairs[new], span)
    return border, border_owner

"""Which branches belong to which network: those that lie in it for the larger part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo.cracks.branches import BranchSet, IntArray
from geo.cracks.line_density import chunks, sample
from geo.cracks.pixel_set import E, N, PixelSet, S, W

_SIDES = 1 << E | 1 << S | 1 << W | 1 << N
"""Code of a cell whose four sides are in a network."""


def line_inside(
    branches: BranchSet, near: IntArray, cells: PixelSet, border: int, cell_um: int
) -> IntArray:
    """Find how much of each branch lies in each network.

    Args:
        branches: of the whole map.
        near: (B,) those that may lie in one.
        cells: of the networks, which are its components.
        border: cells beyond a network that count as inside.
        cell_um: side of a cell, micrometers.

    Returns:
        (3, P) network, branch, micrometers of the one in the other.
    """
    grown = _Grown.of(cells, border)
    found = [np.empty((3, 0), np.int64)]
    for chunk in chunks(branches.take(near), cell_um):
        samples = sample(branches.take(near[chunk]), cell_um)
        network = grown.lookup(samples.cells)
        hit = np.flatnonzero(network >= 0)
        order = hit[np.lexsort((samples.branch[hit], network[hit]))]
        network, branch = network[order], samples.branch[order]
        first = np.flatnonzero(
            (np.diff(network, prepend=-1) != 0) | (np.diff(branch, prepend=-1) != 0)
        )
        length = np.add.reduceat(samples.length[order], first) if len(first) else first
        found.append(np.stack((network[first], near[chunk][branch[first]], length)))
    return np.concatenate(found, axis=1)


def homes(inside: IntArray, lengths: IntArray, share: float) -> IntArray:
    """(N,) network of each branch of which more than a share lies inside; -1 for none.

    A branch in several belongs to that with most of it, or the first.
    """
    network, branch, length = inside
    home = np.full(len(lengths), -1)
    order = np.lexsort((-network, length))
    home[branch[order]] = network[order]  # the last assignment stays
    total = np.bincount(branch, length, minlength=len(lengths))
    return np.where(total > share * lengths, home, -1)


@dataclass(frozen=True, eq=False)
class _Grown:
    """Cells of networks and those around them: sorted keys and the network of each."""

    low: IntArray
    stride: int
    keys: IntArray
    number: IntArray

    @classmethod
    def of(cls, cells: PixelSet, border: int) -> _Grown:
        rows, cols = cells.places()
        low = np.array([cols.min() - border - 1, rows.min() - border - 1])
        stride = int(cols.max() - low[0]) + border + 2
        own = (np.column_stack((cols, rows)) - low) @ np.array([1, stride])
        edge = np.flatnonzero((cells.codes & _SIDES) != _SIDES)
        steps = np.arange(-border, border + 1)
        offsets = (steps[:, None] * stride + steps).ravel()
        keys = np.concatenate((own, (own[edge][:, None] + offsets).ravel()))
        owner = np.concatenate((cells.components, np.repeat(cells.components[edge], len(offsets))))
        order = np.argsort(keys, kind="stable")
        order = order[np.diff(keys[order], prepend=-1) != 0]
        return cls(low, stride, keys[order], owner[order].astype(np.int64))

    def lookup(self, cells: IntArray) -> IntArray:
        """(K,) network of cells (K, 2) x, y; -1 for none."""
        place = cells - self.low
        wanted = place @ np.array([1, self.stride])
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        known = (place[:, 0] >= 0) & (place[:, 0] < self.stride) & (self.keys[at] == wanted)
        return np.where(known, self.number[at], -1)

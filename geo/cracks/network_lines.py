"""Which branches belong to which network: those that lie in it for the larger part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo.arrays import IntArray
from geo.cracks.branches import BranchSet
from geo.cracks.cell_runs import CellRuns
from geo.cracks.line_density import chunks, sample
from geo.cracks.pixel_set import E, N, S, W

_SIDES = 1 << E | 1 << S | 1 << W | 1 << N
"""Code of a cell whose four sides are in a network."""


def line_inside(
    branches: BranchSet, near: IntArray, cells: CellRuns, border: int, cell_um: int
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
    near = near[np.argsort(branches.end_places[2 * near, 1])]  # cells are looked up row by row
    found = [np.empty((3, 0), np.int64)]
    for chunk in chunks(branches.take(near), cell_um):
        samples = sample(branches.take(near[chunk]), cell_um)
        by_row = np.argsort(samples.cells @ np.array([1, cells.stride]))
        network = np.empty(len(by_row), np.int64)
        network[by_row] = grown.lookup(samples.cells[by_row])
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
    """Return (N,) network of each branch of which more than a share lies inside; -1 for none.

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
    """Cells of networks, and those at their borders, which stand for what lies around them.

    Attributes:
        cells: of the networks, which are its components.
        border: cells beyond a network that count as inside.
        edge: (E,) keys of the cells at a border.
        owner: (E,) their networks.
    """

    cells: CellRuns
    border: int
    edge: IntArray
    owner: IntArray

    @classmethod
    def of(cls, cells: CellRuns, border: int) -> _Grown:
        around = cells.border
        edge = np.flatnonzero((around.codes & _SIDES) != _SIDES)
        return cls(cells, border, around.keys[edge], around.components[edge].astype(np.int64))

    def lookup(self, places: IntArray) -> IntArray:
        """Return (K,) network of cells (K, 2) x, y; -1 for none.

        Of several networks within the border it is that of the first cell in raster order.
        """
        cells, border, stride = self.cells, self.border, self.cells.stride
        found = cells.component_at(*places.T)
        x, y = places[:, 0] - cells.col_off, places[:, 1] - cells.row_off
        left, edge = np.flatnonzero(found < 0), self.edge
        for step in range(-border, border + 1):
            row = (y[left] + step) * stride
            least = row + np.maximum(x[left] - border, 0)
            at = np.minimum(np.searchsorted(edge, least), len(edge) - 1)
            hit = edge[at] >= least
            hit &= edge[at] <= row + np.minimum(x[left] + border, stride - 1)
            found[left[hit]] = self.owner[at[hit]]
            left = left[~hit]
        return found

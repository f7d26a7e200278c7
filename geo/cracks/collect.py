"""The measured branches of all pieces of a map, in an order that no cut into blocks changes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geo.arrays import FloatArray, IntArray
from geo.cracks.branch_sums import COLUMNS, N_PIXELS
from geo.cracks.branches import BranchSet
from geo.cracks.width import WidthSums
from geo.grid import Grid

UNKNOWN = -1
"""In `PieceFigures.touches_nodata` where that was not asked."""


@dataclass(frozen=True, eq=False)
class PieceFigures:
    """P pieces, in the order in which they were added.

    Attributes:
        n_pixels, probability_sum: of the piece.
        top, left: topmost, then leftmost pixel.
        touches_nodata: 1, 0 or UNKNOWN.
        gsd_m: of the coarsest imagery under it.
    """

    n_pixels: IntArray
    probability_sum: IntArray
    top: IntArray
    left: IntArray
    touches_nodata: IntArray
    gsd_m: FloatArray


@dataclass(frozen=True, eq=False)
class MapBranches:
    """N branches, each from west to east and all of them in that order (`BranchSet.canonical`).

    Attributes:
        lines: in the world, micrometers.
        piece: (N,) number of the piece of each.
        n_pixels: (N,) pixels of the mask nearest to it.
        sums: of the light that it takes.
        pieces: all of them.
    """

    lines: BranchSet
    piece: IntArray
    n_pixels: IntArray
    sums: WidthSums
    pieces: PieceFigures

    def __len__(self) -> int:
        """Return number of branches."""
        return len(self.piece)


class BranchCollector:
    """Takes tables of whole pieces (`piece_table.SCHEMA`) and gives all their branches."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._points: list[FloatArray] = [np.empty((0, 2))]
        self._counts: list[IntArray] = [np.empty(0, np.int64)]
        self._nodes: list[IntArray] = [np.empty((0, 2), np.int64)]
        self._piece: list[IntArray] = [np.empty(0, np.int64)]
        self._sums: list[FloatArray] = [np.empty((0, len(COLUMNS)))]
        self._pieces: list[tuple[NDArray[np.generic], ...]] = []
        self._n_nodes = self._n_pieces = 0

    def add(self, pieces: pa.Table) -> None:
        """Add measured pieces."""
        if not len(pieces):
            return
        column = pieces["branches"].combine_chunks()
        branches, lines = column.flatten(), column.flatten().field("line")
        owner = np.repeat(np.arange(len(pieces)), pc.list_value_length(column).to_numpy())
        nodes = np.column_stack([branches.field(n).to_numpy() for n in ("from_node", "to_node")])
        counts = np.zeros(len(pieces), np.int64)
        np.maximum.at(counts, owner, nodes.max(axis=1) + 1)
        first = self._n_nodes + np.cumsum(counts) - counts
        places = lines.flatten().to_numpy().reshape(-1, 2)
        self._points.append(self._grid.to_world(places) * self._grid.unit_m)
        self._counts.append(pc.list_value_length(lines).to_numpy().astype(np.int64) // 2)
        self._nodes.append(nodes + first[owner][:, None])
        self._piece.append(owner + self._n_pieces)
        self._sums.append(np.column_stack([branches.field(n).to_numpy() for n in COLUMNS]))
        self._pieces.append(_figures(pieces, self._grid))
        self._n_nodes += int(counts.sum())
        self._n_pieces += len(pieces)

    def branches(self) -> MapBranches:
        """Return all branches, sorted."""
        lines = BranchSet.of_meters(
            np.concatenate(self._points), np.concatenate(self._counts), np.concatenate(self._nodes)
        )
        ordered, ends = lines.canonical
        order = ends[::2] >> 1
        sums = np.concatenate(self._sums)[order]
        columns = list(zip(*self._pieces, strict=True)) or [
            (np.empty(0, np.int64),) for _ in fields(PieceFigures)
        ]
        return MapBranches(
            lines=ordered,
            piece=np.concatenate(self._piece)[order],
            n_pixels=sums[:, N_PIXELS].astype(np.int64),
            sums=WidthSums(*np.delete(sums, N_PIXELS, axis=1).T),
            pieces=PieceFigures(*(np.concatenate(column) for column in columns)),
        )


def _figures(pieces: pa.Table, grid: Grid) -> tuple[NDArray[np.generic], ...]:
    """Return columns of `PieceFigures`."""
    touches = pc.fill_null(pieces["touches_nodata"].cast(pa.int64()), UNKNOWN)
    gsd_m = pc.fill_null(pieces["gsd_m"], grid.gsd_m)
    whole = ("n_pixels", "probability_sum", "top", "left")
    columns = [*(pieces[name] for name in whole), touches, gsd_m]
    return tuple(column.to_numpy() for column in columns)

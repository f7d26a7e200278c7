"""Closed cells of coarse cracking: pieces of pavement with cracks all around them.

Alligator cracking is dense, so much line in a small window shows it. The blocks of block cracking
may be 3 m long, and as much line lies where two cracks merely cross; what tells them apart is that
blocks are closed. So lines grow until small gaps in them are shut, and what is then cut off from
the rest, neither too small nor too large, is a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geo.arrays import IntArray
from geo.cracks.branches import UM, BranchSet
from geo.cracks.cell_runs import runs_of_mask
from geo.cracks.growth import dilate
from geo.cracks.line_density import Region, Squares, sample
from geo.options import NetworkOptions

COARSE = 2
"""Side of a cell of the raster of blocks, in cells of networks."""

LEAST_LINE_M = 0.5
"""Line that lies around any block: a square of .3 m has 1.2 m with gaps."""


@dataclass(frozen=True, eq=False)
class Patch:
    """What of a region lies in networks.

    Attributes:
        runs: (R, 3) cells along rows: y, first x, x behind the last.
        blocks: (B, 2) x, y of a cell of each closed block in it.
    """

    runs: IntArray
    blocks: IntArray

    @classmethod
    def none(cls) -> Patch:
        """Make a patch without anything."""
        return cls(np.empty((0, 3), np.int64), np.empty((0, 2), np.int64))

    @classmethod
    def of(cls, runs: IntArray, region: Region, blocks: IntArray | None = None) -> Patch:
        """Place what was found, counted from the corner of a region, in the world."""
        x, y = region.corner
        found = np.empty((0, 2), np.int64) if blocks is None else blocks
        return cls(runs + np.array([y, x, x]), found + region.corner)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int((self.runs[:, 2] - self.runs[:, 1]).sum())


@dataclass(frozen=True)
class BlockLattice:
    """The limits of blocks in coarse cells.

    Attributes:
        cell_um: side of a (fine) cell, micrometers.
        growth: by which lines grow, coarse cells.
        least, most: coarse cells of a block between lines that have grown.
        extent: longest side of its bounding box.
    """

    cell_um: int
    growth: float
    least: float
    most: float
    extent: int

    @classmethod
    def of(cls, options: NetworkOptions) -> BlockLattice:
        """Take the limits of options."""
        cell = COARSE * options.cell_m
        narrowed = max(options.block_cell_m - 2 * options.closing_m, cell)
        diagonal = math.sqrt(2 * options.max_block_m2)  # of a square block
        return cls(
            cell_um=round(options.cell_m * UM),
            growth=options.closing_m / cell,
            least=(narrowed / cell) ** 2,
            most=options.max_block_m2 / cell**2,
            extent=math.ceil(diagonal / cell),
        )

    @property
    def halo(self) -> int:
        """Coarse cells around a region that have a part in it: a block, and what it grows by."""
        return self.extent + 2 * math.ceil(self.growth) + 3

    def squares(self) -> Squares:
        """Say how line is counted first: three squares hold a block."""
        side = COARSE * (self.extent // 2 + 2)
        return Squares(self.cell_um, side, LEAST_LINE_M * UM, COARSE * self.halo)


def block_patch(branches: BranchSet, region: Region, lattice: BlockLattice) -> Patch:
    """Find the blocks of a region, with the lines around them.

    A block that reaches into a region lies in it and its halo as a whole, so all regions agree.
    """
    squares, halo = lattice.squares(), lattice.halo
    side = squares.square // COARSE
    height, width = (count * side + 2 * halo for count in region.own.shape)
    samples = sample(branches.take(region.near), lattice.cell_um, COARSE)
    places = samples.cells // COARSE - (region.corner // COARSE - halo)
    inside = ((places >= 0) & (places < (width, height))).all(axis=1)
    line = np.zeros((height, width), np.uint8)
    line[places[inside, 1], places[inside, 0]] = 1
    open_ground = 1 - dilate(line, lattice.growth)
    blocks, first = _close(open_ground, lattice)
    shown = dilate(blocks, lattice.growth + 1)  # over the line, to the blocks beyond it
    own = region.own.repeat(side, axis=0).repeat(side, axis=1)
    coarse = COARSE * runs_of_mask(shown[halo:-halo, halo:-halo] & own)
    runs = np.concatenate([coarse + np.array([row, 0, 0]) for row in range(COARSE)])
    first = first - halo
    there = ((first >= 0) & (first < own.shape[::-1])).all(axis=1)
    first = first[there]
    first = first[own[first[:, 1], first[:, 0]]]
    return Patch.of(runs, region, COARSE * first)


def _close(ground: NDArray[np.uint8], lattice: BlockLattice) -> tuple[NDArray[np.uint8], IntArray]:
    """Return (H, W) the blocks of open ground, and (B, 2) col, row of the first cell of each."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(ground, connectivity=4)
    left, top, wide, high, area = np.asarray(stats, np.int64).T
    height, width = ground.shape
    good = (area >= lattice.least) & (area <= lattice.most)
    good &= (np.maximum(wide, high) <= lattice.extent) & (left > 0) & (top > 0)
    good &= (left + wide < width) & (top + high < height)
    good[0] = False  # the lines
    chosen = good[labels]
    inside = np.flatnonzero(chosen)
    first = np.zeros(len(good), np.int64)
    first[labels.ravel()[inside[::-1]]] = inside[::-1]  # the last assignment stays
    y, x = np.divmod(first[good], width)
    return chosen.astype(np.uint8), np.column_stack((x, y))

"""Lines cut into short pieces on a raster of cells, and the places where there is much line.

Most of a city has little line per area. So line is counted in large squares first, and only what
lies in and around squares with enough of it is looked at closely, a few meters at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from geo.arrays import BoolArray, IntArray
from geo.cracks.branches import BranchSet, norms
from geo.cracks.pixel_set import PixelSet, ramps

SAMPLES_AT_ONCE = 250_000
"""Pieces of line that are held at once: 50 MB."""

REGION_SQUARES = 40
"""Most squares on the side of a region; any number gives the same cells."""


@dataclass(frozen=True, eq=False)
class Samples:
    """K short pieces of line.

    Attributes:
        cells: (K, 2) x, y of the cell of the middle of each.
        length: (K,) whole micrometers.
        cosine, sine: (K,) length times cosine and sine of the doubled direction, in whole
            micrometers.
        branch: (K,) number of the branch.
    """

    cells: IntArray
    length: IntArray
    cosine: IntArray
    sine: IntArray
    branch: IntArray


@dataclass(frozen=True, eq=False)
class Region:
    """A rectangle of squares and the branches in and around it.

    Attributes:
        corner: (2,) x, y of the first cell.
        own: (H, W) bool, the squares of its group: another group's may lie in the rectangle.
        near: (B,) numbers of the branches.
    """

    corner: IntArray
    own: BoolArray
    near: IntArray


@dataclass(frozen=True)
class Squares:
    """How line is counted.

    Attributes:
        cell_um: side of a cell, micrometers.
        square: side of a square, cells. Three squares must hold a window and two cells.
        least_um: line that a window must hold.
        halo: cells around a region whose branches have a part in it.
    """

    cell_um: int
    square: int
    least_um: float
    halo: int


def sample(branches: BranchSet, cell_um: int, cells_each: float = 1.0) -> Samples:
    """Cut all lines into pieces of at most some cells.

    Args:
        branches: the lines, in canonical order where results must not depend on their order.
        cell_um: side of a cell in micrometers.
        cells_each: longest piece, cells.
    """
    inner = np.ones(len(branches.vertices), bool)
    inner[branches.starts[1:] - 1] = False
    begin = np.flatnonzero(inner)
    start, run = branches.vertices[begin], branches.vertices[begin + 1] - branches.vertices[begin]
    length = norms(run)
    pieces = np.maximum(-(-length // round(cells_each * cell_um)), 1)
    which, number = ramps(pieces)
    parts, whole = pieces[which], length[which]
    middle = start[which] + run[which] * (2 * number + 1)[:, None] // (2 * parts)[:, None]
    own = whole * (number + 1) // parts - whole * number // parts
    x, y = run[:, 0].astype(np.float64), run[:, 1].astype(np.float64)
    square = np.maximum(x * x + y * y, 1.0)
    cosine, sine = (x * x - y * y) / square, 2 * x * y / square
    return Samples(
        middle // cell_um,
        own,
        np.rint(own * cosine[which]).astype(np.int64),
        np.rint(own * sine[which]).astype(np.int64),
        branches.owner[begin][which],
    )


def dense_groups(branches: BranchSet, squares: Squares) -> Iterator[list[Region]]:
    """Find the places where a window may hold enough line.

    Args:
        branches: all lines.
        squares: how line is counted.

    Yields:
        Regions with squares that touch each other. Each square is in one region of one group, and
        all cells that a dense window up to a square away can reach are in such squares.
    """
    board = _Board.of(branches, squares)
    passes = board.passes(branches)
    for group in board.groups(board.dense(passes)):
        yield [passes.region(rows, cols, board) for rows, cols in group]


def distinct(values: IntArray) -> IntArray:
    """Return different values, ascending. np.unique hashes, which is slower where most differ."""
    ordered = np.sort(values)
    return ordered[np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))]


@dataclass(frozen=True, eq=False)
class _Passes:
    """Which branch runs through which square, and for how many micrometers; by square."""

    square: IntArray
    branch: IntArray
    length: IntArray

    def region(self, rows: IntArray, cols: IntArray, board: _Board) -> Region:
        """Return the rectangle over some squares."""
        corner, side = np.array([cols.min(), rows.min()]), board.squares.square
        own = np.zeros((rows.max() - corner[1] + 1, cols.max() - corner[0] + 1), bool)
        own[rows - corner[1], cols - corner[0]] = True
        around = -(-board.squares.halo // side)
        lines = np.arange(corner[1] - around, rows.max() + around + 1) * board.stride
        begins = np.searchsorted(self.square, lines + corner[0] - around)
        ends = np.searchsorted(self.square, lines + cols.max() + around + 1)
        near = [self.branch[begin:end] for begin, end in zip(begins, ends, strict=True)]
        return Region((board.low + corner) * side, own, distinct(np.concatenate(near)))


@dataclass(frozen=True, eq=False)
class _Board:
    """Squares by number: (y - low y) * stride + x - low x."""

    squares: Squares
    low: IntArray
    stride: int

    @classmethod
    def of(cls, branches: BranchSet, squares: Squares) -> _Board:
        """Lay squares around all branches, with a margin for what is looked at around them."""
        side, margin = squares.square * squares.cell_um, 3 + squares.halo // squares.square
        places = branches.vertices if len(branches.vertices) else np.zeros((1, 2), np.int64)
        low = places.min(axis=0) // side - margin
        return cls(squares, low, int(places[:, 0].max() // side - low[0]) + margin + 1)

    def passes(self, branches: BranchSet) -> _Passes:
        """Return the way of all branches over the squares, in steps of two cells."""
        found = [np.empty((3, 0), np.int64)]
        for chunk in chunks(branches, 2 * self.squares.cell_um):
            samples = sample(branches.take(chunk), self.squares.cell_um, 2)
            square = (samples.cells // self.squares.square - self.low) @ np.array([1, self.stride])
            new = np.diff(samples.branch, prepend=-1) != 0
            new |= np.diff(square, prepend=-1) != 0
            first = np.flatnonzero(new)
            length = np.add.reduceat(samples.length, first) if len(first) else samples.length
            found.append(np.stack((square[first], chunk[samples.branch[first]], length)))
        square, branch, length = np.concatenate(found, axis=1)
        order = np.argsort(square, kind="stable")
        return _Passes(square[order], branch[order], length[order])

    def dense(self, passes: _Passes) -> IntArray:
        """Return squares in which there may be a dense window, and those beside them, ascending.

        Where a window in a square holds enough line, three times three squares do.
        """
        first = np.flatnonzero(np.diff(passes.square, prepend=-1))
        if not len(first):
            return first
        places, total = passes.square[first], np.add.reduceat(passes.length, first)
        around = np.array([y * self.stride + x for y in (-1, 0, 1) for x in (-1, 0, 1)])
        centers = distinct((places[:, None] + around).ravel())
        sums = np.zeros(len(centers), np.int64)
        for step in around:
            at = np.minimum(np.searchsorted(places, centers + step), len(places) - 1)
            sums += np.where(places[at] == centers + step, total[at], 0)
        return distinct((centers[sums >= self.squares.least_um][:, None] + around).ravel())

    def groups(self, dense: IntArray) -> Iterator[list[tuple[IntArray, IntArray]]]:
        """Yield rows and columns of squares, region by region, for groups that touch each other."""
        if not len(dense):
            return
        rows, cols = np.divmod(dense, self.stride)
        owner = PixelSet.of_places(rows, cols).components.astype(np.int64)
        order = np.lexsort((cols // REGION_SQUARES, rows // REGION_SQUARES, owner))
        owner, rows, cols = owner[order], rows[order], cols[order]
        new = np.diff(owner, prepend=-1) != 0
        first_of_group = np.cumsum(new)
        for values in (rows, cols):
            new |= np.diff(values // REGION_SQUARES, prepend=-1) != 0
        cuts = np.flatnonzero(new)
        regions = zip(np.split(rows, cuts[1:]), np.split(cols, cuts[1:]), strict=True)
        for _, group in groupby(
            zip(first_of_group[cuts], regions, strict=True), lambda one: one[0]
        ):
            yield [region for _, region in group]


def chunks(branches: BranchSet, step: int) -> Iterator[IntArray]:
    """Yield numbers of branches in runs of about SAMPLES_AT_ONCE pieces of ``step`` micrometers."""
    pieces = branches.lengths // step + np.diff(branches.starts)
    run = np.cumsum(pieces) // SAMPLES_AT_ONCE
    yield from np.split(np.arange(len(branches)), np.flatnonzero(np.diff(run)) + 1)

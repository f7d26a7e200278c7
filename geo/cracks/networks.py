"""Where branches are dense and run in several directions: alligator and block cracking as areas.

A network is found on a raster of small cells in the world, so that neither blocks nor roads have a
part in it. Lines closer to each other than two radii grow together (closing); what stays narrow,
as two parallel cracks or a crossing do, falls away (opening); and around each cell that is left
there must be much line in several directions. All of that looks about a meter far. The blocks of
coarse block cracking lie too far apart for that: they are found as closed cells (`blocks`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from geo.arrays import FloatArray, IntArray
from geo.cracks.blocks import BlockLattice, Patch, block_patch
from geo.cracks.branches import UM, BranchSet
from geo.cracks.cell_runs import CellRuns, runs_of_mask
from geo.cracks.growth import dilate, erode
from geo.cracks.line_density import Region, Squares, dense_groups, distinct, sample
from geo.cracks.network_lines import homes, line_inside
from geo.cracks.outlines import outlines
from geo.cracks.pixel_set import firsts
from geo.options import NetworkOptions

Kind = Literal["alligator", "block"]

CELLS_AT_ONCE = 200_000
"""Cells of networks that are traced at once: 30 MB."""


@dataclass(frozen=True, eq=False)
class Networks:
    """M networks, from south to north and west to east by their first cell.

    Attributes:
        of_branch: (N,) number of the network to which each branch belongs; -1 for none.
        outlines: (M,) MultiPolygons in meters, along the borders of cells.
        area_m2, crack_length_m: (M,) of the outlines, and of their branches.
        first_cell: (M, 2) x, y of the center of the first cell in meters.
    """

    of_branch: IntArray
    outlines: NDArray[np.object_]
    area_m2: FloatArray
    crack_length_m: FloatArray
    first_cell: FloatArray

    def __len__(self) -> int:
        """Return number of networks."""
        return len(self.outlines)

    @property
    def density_m_per_m2(self) -> FloatArray:
        """(M,) line per area."""
        return self.crack_length_m / self.area_m2

    @property
    def cell_m(self) -> FloatArray:
        """(M,) mean block size: squares of side a have 2 / a of line per area."""
        return 2 * self.area_m2 / np.maximum(self.crack_length_m, 1 / UM)

    def kinds(self, options: NetworkOptions) -> list[Kind]:
        """Tell alligator from block cracking by the mean block size."""
        return ["block" if c >= options.block_cell_m else "alligator" for c in self.cell_m.tolist()]


def find_networks(branches: BranchSet, options: NetworkOptions) -> Networks:
    """Find networks and the branches that belong to them.

    A place more than `NetworkOptions.halo_m` away has no part in what is found here, and neither
    has the order of the branches.

    Args:
        branches: of the whole map, or of a block and all around it within the halo.
        options: see `NetworkOptions`.
    """
    canonical, ends = branches.canonical
    found, of_branch = _all_networks(canonical, _Lattice.of(options))
    home = np.full(len(branches), -1)
    home[ends[::2] >> 1] = of_branch
    count = len(found.cells)
    lengths = np.bincount(home + 1, branches.lengths, minlength=count + 1)[1:] / UM
    side = round(options.cell_m * UM) / UM
    return Networks(
        of_branch=home,
        outlines=np.asarray(shapely.transform(found.shapes, lambda xy: xy * side)),
        area_m2=np.asarray(found.cells * side * side, np.float64),
        crack_length_m=lengths,
        first_cell=np.asarray((found.first + 0.5) * side, np.float64),
    )


def _all_networks(branches: BranchSet, lattice: _Lattice) -> tuple[_Found, IntArray]:
    """Return dense networks, then blocks around them; and each branch's network, -1 for none."""
    options, blocks = lattice.options, BlockLattice.of(lattice.options)
    dense = _Found.join(
        _batches(branches, lattice, lattice.squares(), lambda r: _patch(branches, r, lattice))
    )
    coarse = _Found.join(
        _batches(
            branches,
            replace(lattice, least_blocks=options.min_blocks),
            blocks.squares(),
            lambda region: block_patch(branches, region, blocks),
        )
    ).without(dense.shapes)
    found, place = _Found.sort([dense, coarse])
    share = options.inside_share
    first = np.append(place, -1)[homes(dense.inside, branches.lengths, share)]
    second = np.append(place[len(dense.cells) :], -1)[homes(coarse.inside, branches.lengths, share)]
    home = np.where(first >= 0, first, second)
    left = distinct(home[home >= 0])  # of others all line belongs to a neighbor
    number = np.full(len(found.cells) + 1, -1)
    number[left] = np.arange(len(left))
    return found.take(left), number[home]


@dataclass(frozen=True)
class _Lattice:
    """The options in cells: radii, half of the window, halo of a region."""

    options: NetworkOptions
    cell_um: int
    closing: float
    eroding: float
    opening: float
    half_window: int
    reach: int
    border: int
    least_blocks: int = 0

    @classmethod
    def of(cls, options: NetworkOptions) -> _Lattice:
        cell = options.cell_m
        closing = options.closing_m / cell
        return cls(
            options,
            cell_um=round(cell * UM),
            closing=closing,
            eroding=closing - options.margin_m / cell,
            opening=options.opening_m / cell,
            half_window=round(options.window_m / cell / 2),
            reach=round(options.reach_m / cell),
            border=round(options.border_m / cell),
        )

    @property
    def halo(self) -> int:
        """Cells around a region that have a part in it."""
        shapes = math.ceil(2 * self.closing + 2 * self.opening)
        return shapes + self.half_window + self.reach + self.border + 2

    @property
    def least_um(self) -> float:
        """Line that a window must hold."""
        side = (2 * self.half_window + 1) * self.options.cell_m
        return self.options.min_density_m_per_m2 * side * side * UM

    @property
    def square(self) -> int:
        """Cells on the side of a square: three hold a window, one holds the reach."""
        return max(self.half_window, self.reach) + 2

    def squares(self) -> Squares:
        """Say how line is counted first."""
        return Squares(self.cell_um, self.square, self.least_um, self.halo)


@dataclass(frozen=True, eq=False)
class _Found:
    """Networks, and how much of a branch lies in them.

    Attributes:
        shapes: (M,) outlines in cells.
        cells: (M,) how many each has.
        first: (M, 2) x, y of the first cell.
        inside: (3, P) network, branch, micrometers of it inside.
    """

    shapes: NDArray[np.object_]
    cells: IntArray
    first: IntArray
    inside: IntArray

    @classmethod
    def none(cls) -> _Found:
        """Make an empty record."""
        nothing = np.empty(0, np.int64)
        return cls(
            np.empty(0, object), nothing, np.empty((0, 2), np.int64), np.empty((3, 0), np.int64)
        )

    @classmethod
    def join(cls, groups: Iterable[_Found]) -> _Found:
        """Join all of them, see `sorted`."""
        return cls.sort(groups)[0]

    @classmethod
    def sort(cls, groups: Iterable[_Found]) -> tuple[_Found, IntArray]:
        """Sort all of them from south to north, then from west to east, by their first cells.

        Returns:
            the networks; (M,) the new number of each, one group after the other.
        """
        every = [cls.none(), *groups]
        first = np.concatenate([group.first for group in every])
        order = np.lexsort((first[:, 0], first[:, 1]))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        before = np.cumsum([0, *(len(group.cells) for group in every)])
        inside = np.concatenate(
            [
                group.inside + np.array([[offset], [0], [0]])
                for group, offset in zip(every, before, strict=False)
            ],
            axis=1,
        )
        inside[0] = place[inside[0]]
        shapes = np.concatenate([group.shapes for group in every])
        cells = np.concatenate([group.cells for group in every])
        return cls(shapes[order], cells[order], first[order], inside), place

    def without(self, others: NDArray[np.object_]) -> _Found:
        """Cut other areas out of the networks; what is nothing but them goes."""
        shapes = self.shapes.copy()
        which, other = shapely.STRtree(others).query(shapes, predicate="intersects")
        for number in np.unique(which).tolist():
            cut = shapely.union_all(others[other[which == number]])
            parts = shapely.get_parts(shapely.difference(shapes[number], cut))
            areas = parts[shapely.get_dimensions(parts) == 2]
            shapes[number] = shapely.normalize(shapely.multipolygons(areas))
        cells = np.rint(shapely.area(shapes)).astype(np.int64)
        return replace(self, shapes=shapes, cells=cells).take(np.flatnonzero(cells))

    def take(self, chosen: IntArray) -> _Found:
        """Return some of them; ``chosen`` ascends."""
        place = np.full(len(self.cells), -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[self.inside[0]] >= 0
        inside = np.concatenate((place[self.inside[:1, kept]], self.inside[1:, kept]))
        return _Found(self.shapes[chosen], self.cells[chosen], self.first[chosen], inside)


def _batches(
    branches: BranchSet,
    lattice: _Lattice,
    squares: Squares,
    patch_of: Callable[[Region], Patch],
) -> Iterator[_Found]:
    """Yield networks of several groups of regions at a time: no network is in two groups."""
    patches: list[Patch] = []
    near: list[IntArray] = []
    for group in dense_groups(branches, squares):
        own = [patch_of(region) for region in group]
        if any(len(patch.runs) for patch in own):
            patches += own
            near += [region.near for region in group]
        if sum(patch.n_cells for patch in patches) >= CELLS_AT_ONCE:
            yield _find(branches, patches, np.concatenate(near), lattice)
            patches, near = [], []
    if patches:
        yield _find(branches, patches, np.concatenate(near), lattice)


def _find(
    branches: BranchSet, patches: Sequence[Patch], near: IntArray, lattice: _Lattice
) -> _Found:
    """Return networks of patches, and what of the branches near them lies in them."""
    cells = CellRuns.of_runs(np.concatenate([patch.runs for patch in patches]))
    blocks = np.concatenate([patch.blocks for patch in patches])
    large = cells.sizes * lattice.options.cell_m**2 >= lattice.options.min_area_m2
    of_block = cells.component_at(*blocks.T)
    large &= np.bincount(of_block, minlength=len(large)) >= lattice.least_blocks
    if not large.any():
        return _Found.none()
    kept = cells if large.all() else cells.take(large)
    first = firsts(kept.components, int(large.sum()))
    rows, cols = kept.border.places(kept.spans.begin[first])
    return _Found(
        outlines(kept.border).polygons(),
        kept.sizes,
        np.column_stack((cols, rows)),
        line_inside(branches, distinct(near), kept, lattice.border, lattice.cell_um),
    )


def _patch(branches: BranchSet, region: Region, lattice: _Lattice) -> Patch:
    """Return cells of a region that lie in dense networks, whatever the network's size."""
    samples, halo = sample(branches.take(region.near), lattice.cell_um), lattice.halo
    height, width = (side * lattice.square + 2 * halo for side in region.own.shape)
    places = samples.cells - (region.corner - halo)
    inside = ((places >= 0) & (places < (width, height))).all(axis=1)
    flat = places[inside] @ np.array([1, width])

    def window_sums(values: IntArray) -> FloatArray:
        sums = np.bincount(flat, values[inside], minlength=width * height)
        side = 2 * lattice.half_window + 1
        window = cv2.boxFilter(
            sums.reshape(height, width),
            cv2.CV_64F,
            (side, side),
            normalize=False,
            borderType=cv2.BORDER_CONSTANT,
        )
        return np.asarray(window, np.float64)

    length = window_sums(samples.length)
    dense = length >= lattice.least_um
    if not dense.any():
        return Patch.none()
    cosine, sine = window_sums(samples.cosine), window_sums(samples.sine)
    mean = lattice.options.max_anisotropy * length
    dense &= cosine * cosine + sine * sine < mean * mean
    line = np.zeros(height * width, np.uint8)
    line[flat] = 1
    closed = erode(dilate(line.reshape(height, width), lattice.closing), lattice.eroding)
    opened = dilate(erode(closed, lattice.opening), lattice.opening)
    side = 2 * lattice.reach + 1
    square = np.ones((side, side), np.uint8)
    near = np.asarray(cv2.dilate(dense.astype(np.uint8), square), np.uint8)
    own = region.own.repeat(lattice.square, axis=0).repeat(lattice.square, axis=1)
    runs = runs_of_mask((opened & near)[halo:-halo, halo:-halo] & own)
    return Patch.of(runs, region)

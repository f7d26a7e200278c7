"""Where branches are dense and run in several directions: alligator and block cracking as areas.

A network is found on a raster of small cells in the world, so that neither blocks nor roads have a
part in it. Lines closer to each other than two radii grow together (closing); what stays narrow,
as two parallel cracks or a crossing do, falls away (opening); and around each cell that is left
there must be much line in several directions. All of that looks a meter far, so that cells are
worked on in small tiles and only where there is much line at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from geo.cracks.branches import UM, BoolArray, BranchSet, FloatArray, IntArray, norms
from geo.outlines import outlines
from geo.pixel_set import E, N, PixelSet, S, W, firsts

Kind = Literal["alligator", "block"]

TILE_SQUARES = 9
"""Side of the tiles in squares of half a window; any other size gives the same networks."""

SAMPLES_AT_ONCE = 1_000_000
"""Sampled pieces of line that are held at once: 60 MB."""


_SIDES = 1 << E | 1 << S | 1 << W | 1 << N
"""Code of a cell whose four sides are in a network."""


@dataclass(frozen=True)
class NetworkOptions:
    """What counts as a network; chosen on drawn streets.

    Attributes:
        cell_m: of the raster. Half of the narrowest crack spacing that matters.
        closing_m: lines up to twice as far apart grow together; alligator blocks are smaller.
        margin_m: by which a network reaches beyond its outer lines.
        opening_m: a disk of this radius fits into every part of a network, so that two parallel
            cracks less than twice as far apart are none.
        window_m: side of the square in which line is counted around a cell.
        min_density_m_per_m2: of line in the square. Two crossing cracks have 4 at a side of .5 m.
        max_anisotropy: length of the mean doubled direction there, 0 in all directions alike, 1
            parallel.
        reach_m: a cell belongs to a network if the square around one so near is dense.
        min_area_m2: smaller networks are none.
        border_m: lines so near to a network are inside.
        inside_share: a branch belongs to a network if more than this share of it is inside.
        block_cell_m: from this mean block size on it is block cracking (ASTM D6433: .3 m).
    """

    cell_m: float = 0.02
    closing_m: float = 0.10
    margin_m: float = 0.02
    opening_m: float = 0.12
    window_m: float = 0.5
    min_density_m_per_m2: float = 4.5
    max_anisotropy: float = 0.6
    reach_m: float = 0.24
    min_area_m2: float = 0.25
    border_m: float = 0.04
    inside_share: float = 0.5
    block_cell_m: float = 0.3

    @property
    def halo_m(self) -> float:
        """How far from a place decides whether it is in a network."""
        shapes = 2 * self.closing_m + self.margin_m + 2 * self.opening_m + self.border_m
        small = self.min_area_m2 / (2 * self.opening_m)  # how long an area below the limit can be
        return shapes + self.window_m / 2 + self.reach_m + small + 8 * self.cell_m


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
        """Number of networks."""
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
        """Alligator or block cracking, by the mean block size."""
        return ["block" if c >= options.block_cell_m else "alligator" for c in self.cell_m.tolist()]


def find_networks(branches: BranchSet, options: NetworkOptions) -> Networks:
    """Find networks and the branches that belong to them.

    A place more than `NetworkOptions.halo_m` away has no part in what is found here, and neither
    has the order of the branches.

    Args:
        branches: of the whole map, or of a block and all around it within the halo.
        options: see `NetworkOptions`.
    """
    lattice = _Lattice.of(options)
    found = [
        _network_cells(_sample(branches.take(near), lattice.cell_um), tile, lattice)
        for tile, near in _dense_tiles(branches, lattice)
    ]
    cells = np.concatenate([np.empty((0, 2), np.int64), *found])
    if not len(cells):
        none = np.empty(0)
        outside = np.full(len(branches), -1)
        return Networks(outside, np.empty(0, object), none, none, np.empty((0, 2)))
    pixels = PixelSet.of_places(cells[:, 1], cells[:, 0])
    n_cells = np.bincount(pixels.components)
    large = n_cells * lattice.cell_m2 >= options.min_area_m2
    kept = pixels.with_keys(pixels.keys[large[pixels.components]])
    count = int(large.sum())
    of_branch = _owners(branches, kept, lattice)
    lengths = np.bincount(of_branch + 1, branches.lengths, minlength=count + 1)[1:] / UM
    rows, cols = kept.places()
    first = firsts(kept.components, count) if count else np.empty(0, np.int64)
    shapes = outlines(kept).polygons() if count else np.empty(0, object)
    side = lattice.cell_um / UM
    return Networks(
        of_branch=of_branch,
        outlines=shapely.transform(np.array(shapes, dtype=object), lambda xy: xy * side),
        area_m2=n_cells[large] * lattice.cell_m2,
        crack_length_m=lengths,
        first_cell=(np.column_stack((cols[first], rows[first])) + 0.5) * side,
    )


@dataclass(frozen=True)
class _Lattice:
    """The options in cells: radii, side of the window, halo of a tile."""

    options: NetworkOptions
    cell_um: int
    closing: float
    eroding: float
    opening: float
    half_window: int
    reach: int
    border: int
    halo: int

    @classmethod
    def of(cls, options: NetworkOptions) -> _Lattice:
        cell = options.cell_m
        half, reach = round(options.window_m / cell / 2), round(options.reach_m / cell)
        closing, opening = options.closing_m / cell, options.opening_m / cell
        halo = math.ceil(2 * closing + 2 * opening) + half + reach + 4
        return cls(
            options,
            round(cell * UM),
            closing,
            closing - options.margin_m / cell,
            opening,
            half,
            reach,
            round(options.border_m / cell),
            halo,
        )

    @property
    def cell_m2(self) -> float:
        """Area of a cell."""
        return (self.cell_um / UM) ** 2

    @property
    def square(self) -> int:
        """Cells on the side of the squares in which line is counted first.

        Three of them hold a window and, on either side, half of a piece of two cells.
        """
        return self.half_window + 2

    @property
    def tile(self) -> int:
        """Cells on the side of a tile; it holds a halo."""
        return self.square * max(TILE_SQUARES, -(-self.halo // self.square))

    @property
    def least_um(self) -> float:
        """Line that a window must hold."""
        side = (2 * self.half_window + 1) * self.options.cell_m
        return self.options.min_density_m_per_m2 * side * side * UM


@dataclass(frozen=True, eq=False)
class _Samples:
    """Short pieces of line: cells (K, 2) x, y of their middles; in whole micrometers their length
    and its product with cosine and sine of the doubled direction; their branch."""

    cells: IntArray
    length: IntArray
    cosine: IntArray
    sine: IntArray
    branch: IntArray


def _sample(branches: BranchSet, cell_um: int, cells_each: float = 0.5) -> _Samples:
    """Cut all lines into pieces of at most some cells."""
    step = round(cells_each * cell_um)
    inner = np.ones(len(branches.vertices), bool)
    inner[branches.starts[1:] - 1] = False
    begin = np.flatnonzero(inner)
    start, run = branches.vertices[begin], branches.vertices[begin + 1] - branches.vertices[begin]
    length = norms(run)
    pieces = np.maximum(-(-length // step), 1)
    which = np.repeat(np.arange(len(begin)), pieces)
    number = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    parts, whole = pieces[which], length[which]
    middle = start[which] + run[which] * (2 * number + 1)[:, None] // (2 * parts)[:, None]
    own = whole * (number + 1) // parts - whole * number // parts
    x, y = run[:, 0].astype(np.float64), run[:, 1].astype(np.float64)
    square = np.maximum(x * x + y * y, 1.0)
    cosine, sine = (x * x - y * y) / square, 2 * x * y / square
    return _Samples(
        middle // cell_um,
        own,
        np.rint(own * cosine[which]).astype(np.int64),
        np.rint(own * sine[which]).astype(np.int64),
        branches.owner[begin][which],
    )


def _chunks(branches: BranchSet, step: int) -> Iterator[IntArray]:
    """Numbers of branches, in runs of about SAMPLES_AT_ONCE sampled pieces."""
    pieces = branches.lengths // step + np.diff(branches.starts)
    run = np.cumsum(pieces) // SAMPLES_AT_ONCE
    yield from np.split(np.arange(len(branches)), np.flatnonzero(np.diff(run)) + 1)


def _dense_tiles(branches: BranchSet, lattice: _Lattice) -> Iterator[tuple[IntArray, IntArray]]:
    """Tiles (x, y) that may hold networks, and the branches in and around each."""
    squares, tile_of, branch_of = _squares(branches, lattice)
    hot = _unique(_dense_squares(squares, lattice) * lattice.square // lattice.tile)
    low = np.minimum(tile_of.min(axis=0, initial=0), hot.min(axis=0, initial=0)) - 1
    stride = int(tile_of[:, 0].max(initial=0)) - int(low[0]) + 3

    def number(tiles: IntArray) -> IntArray:
        flat: IntArray = (tiles - low) @ np.array([1, stride])
        return flat

    flat = number(tile_of)
    order = np.argsort(flat, kind="stable")
    flat, branch_of = flat[order], branch_of[order]
    for tile in hot:
        around = number(tile + np.array([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)]))
        begins, ends = np.searchsorted(flat, around), np.searchsorted(flat, around, side="right")
        near = [branch_of[begin:end] for begin, end in zip(begins, ends, strict=True)]
        yield tile, np.unique(np.concatenate(near))


@dataclass(frozen=True, eq=False)
class _Squares:
    """Squares with line in them: (K, 2) x, y and micrometers of line."""

    places: IntArray
    length: IntArray


def _squares(branches: BranchSet, lattice: _Lattice) -> tuple[_Squares, IntArray, IntArray]:
    """Line per square, and the tiles (P, 2) that each branch (P,) passes."""
    places, lengths, passes = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)], []
    for chunk in _chunks(branches, 2 * lattice.cell_um):
        samples = _sample(branches.take(chunk), lattice.cell_um, 2)
        where, which = np.unique(samples.cells // lattice.square, axis=0, return_inverse=True)
        places.append(where)
        lengths.append(np.bincount(which.ravel(), samples.length, len(where)).astype(np.int64))
        tiles = samples.cells // lattice.tile
        passes.append(_unique(np.column_stack((tiles, chunk[samples.branch]))))
    where, which = np.unique(np.concatenate(places), axis=0, return_inverse=True)
    total = np.bincount(which.ravel(), np.concatenate(lengths), len(where)).astype(np.int64)
    found = np.concatenate([np.empty((0, 3), np.int64), *passes])
    return _Squares(where, total), found[:, :2], found[:, 2]


def _dense_squares(squares: _Squares, lattice: _Lattice) -> IntArray:
    """Squares (K, 2) in which there may be cells of networks.

    Where a window in a square holds enough line, three times three squares do; cells of a network
    lie in the square of such a window or beside it.
    """
    if not len(squares.places):
        return squares.places
    low = squares.places.min(axis=0) - 2
    stride = int(squares.places[:, 0].max() - low[0]) + 3
    flat = (squares.places - low) @ np.array([1, stride])
    order = np.argsort(flat)
    flat, length = flat[order], squares.length[order]
    around = np.array([y * stride + x for y in (-1, 0, 1) for x in (-1, 0, 1)])
    centers = np.unique(flat[:, None] + around)
    sums = np.zeros(len(centers), np.int64)
    for step in around:
        at = np.minimum(np.searchsorted(flat, centers + step), len(flat) - 1)
        sums += np.where(flat[at] == centers + step, length[at], 0)
    dense = np.unique(centers[sums >= lattice.least_um][:, None] + around)
    rows, cols = np.divmod(dense, stride)
    return np.column_stack((cols, rows)) + low


def _network_cells(samples: _Samples, tile: IntArray, lattice: _Lattice) -> IntArray:
    """Cells (K, 2) of a tile that lie in networks, whatever the network's size."""
    halo, side = lattice.halo, lattice.tile + 2 * lattice.halo
    places = samples.cells - (tile * lattice.tile - halo)
    inside = ((places >= 0) & (places < side)).all(axis=1)
    flat = places[inside] @ np.array([1, side])

    def raster(values: IntArray) -> FloatArray:
        sums = np.bincount(flat, values[inside], minlength=side * side)
        return sums.reshape(side, side)

    length, cosine, sine = (
        _window_sums(raster(values), lattice.half_window)
        for values in (samples.length, samples.cosine, samples.sine)
    )
    mean = lattice.options.max_anisotropy * length
    dense = (length >= lattice.least_um) & (cosine * cosine + sine * sine < mean * mean)
    if not dense.any():
        return np.empty((0, 2), np.int64)
    square = np.ones((2 * lattice.reach + 1, 2 * lattice.reach + 1), np.uint8)
    near = cv2.dilate(dense.astype(np.uint8), square) > 0
    line = np.zeros(side * side, bool)
    line[flat] = True
    closed = _away(_away(~line.reshape(side, side)) <= lattice.closing) > lattice.eroding
    opened = _away(~(_away(closed) > lattice.opening)) <= lattice.opening
    rows, cols = np.nonzero((opened & near)[halo:-halo, halo:-halo])
    return np.column_stack((cols, rows)) + tile * lattice.tile


def _away(cells: BoolArray) -> NDArray[np.float32]:
    """Distance of each cell to the nearest one that is false, between their centers."""
    away = cv2.distanceTransform(cells.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away, np.float32)


def _window_sums(values: FloatArray, half: int) -> FloatArray:
    """Sums of whole numbers over the square around each cell; exact, and 0 beyond the array."""
    for axis in (0, 1):
        sums = np.cumsum(values, axis=axis)
        padded = np.insert(sums, 0, 0.0, axis=axis)
        index = np.arange(values.shape[axis])
        high = np.minimum(index + half + 1, values.shape[axis])
        values = padded.take(high, axis) - padded.take(np.maximum(index - half, 0), axis)
    return values


def _owners(branches: BranchSet, cells: PixelSet, lattice: _Lattice) -> IntArray:
    """(N,) network of each branch of which most lies inside; -1 for none."""
    owners = np.full(len(branches), -1)
    if not len(cells):
        return owners
    grown = _Grown.of(cells, lattice.border)
    for chunk in _chunks(branches, lattice.cell_um // 2):
        samples = _sample(branches.take(chunk), lattice.cell_um)
        networks = grown.lookup(samples.cells)
        hit = np.flatnonzero(networks >= 0)
        pairs, which = np.unique(
            np.column_stack((samples.branch[hit], networks[hit])), axis=0, return_inverse=True
        )
        length = np.bincount(which.ravel(), samples.length[hit], len(pairs))
        total = np.bincount(pairs[:, 0], length, len(chunk))
        inside = total > lattice.options.inside_share * branches.lengths[chunk]
        order = np.lexsort((-pairs[:, 1], length))  # the last assignment stays
        home = np.full(len(chunk), -1)
        home[pairs[order, 0]] = pairs[order, 1]
        owners[chunk] = np.where(inside, home, -1)
    return owners


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
        keys, first = np.unique(keys, return_index=True)
        return cls(low, stride, keys, owner[first].astype(np.int64))

    def lookup(self, cells: IntArray) -> IntArray:
        """(K,) network of cells (K, 2) x, y; -1 for none."""
        place = cells - self.low
        wanted = place @ np.array([1, self.stride])
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        known = (place[:, 0] >= 0) & (place[:, 0] < self.stride) & (self.keys[at] == wanted)
        return np.where(known, self.number[at], -1)


def _unique(rows: IntArray) -> IntArray:
    """Different rows (K, M), sorted."""
    different: IntArray = np.unique(rows, axis=0)
    return different

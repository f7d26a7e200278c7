"""Branches of all pieces -> whole cracks and networks with their figures.

First the networks are found, then what lies outside of them is linked to cracks. Only then come
filters, widths, classes and counts, so nothing depends on the crumbs in which a mask shows a crack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geo.arrays import BoolArray, FloatArray, IntArray
from geo.cracks.branches import UM, BranchSet
from geo.cracks.chains import Chains, chain
from geo.cracks.collect import UNKNOWN, MapBranches
from geo.cracks.linking import link
from geo.cracks.networks import Networks, find_networks
from geo.cracks.pixel_set import ramps
from geo.grid import Grid
from geo.layers.classes import d6433
from geo.layers.crack_width import CrackWidths, crack_widths
from geo.options import MapRules

Names = NDArray[np.object_]

MM = 1000.0


@dataclass(frozen=True, eq=False)
class Figures:
    """What is known of K cracks and, after them, M networks; (K + M,) each.

    Attributes:
        n_pixels: of the mask.
        confidence: mean probability of these pixels, 0-1.
        gsd_mm: of the coarsest imagery.
        touches_nodata: 1, 0 or UNKNOWN.
        branches, pieces: how many.
        first: number of the first branch.
    """

    n_pixels: IntArray
    confidence: FloatArray
    gsd_mm: FloatArray
    touches_nodata: IntArray
    branches: IntArray
    pieces: IntArray
    first: IntArray


@dataclass(frozen=True, eq=False)
class CrackMap:
    """K cracks and M networks.

    Attributes:
        branches: all N branches of the map.
        owner: (N,) crack of each branch; from K on, network.
        outside: (B,) numbers of the branches outside networks.
        chains: the cracks: chains of ``outside``.
        networks: the networks.
        figures: of cracks, then networks.
        widths: of branches; of cracks, then networks.
        p95_mm: (K + M,) mean width of branches that is exceeded on 5 % of the length.
        severity: (N,) class of each branch by ASTM D6433.
        kept: (K,) which cracks are large enough.
        grid: of the mosaic.
    """

    branches: MapBranches
    owner: IntArray
    outside: IntArray
    chains: Chains
    networks: Networks
    figures: Figures
    widths: CrackWidths
    p95_mm: FloatArray
    severity: Names
    kept: BoolArray
    grid: Grid

    @property
    def n_cracks(self) -> int:
        """K, with those that are too small."""
        return len(self.chains)

    @property
    def lines(self) -> BranchSet:
        """The branches outside networks."""
        return self.branches.lines.take(self.outside)

    @property
    def length_m(self) -> FloatArray:
        """(K,) of cracks with their gaps."""
        return self.chains.length_m(self.branches.lines.take(self.outside))

    @property
    def area_m2(self) -> FloatArray:
        """(K + M,) of the mask."""
        return np.asarray(self.figures.n_pixels * self.grid.pixel_area_m2, np.float64)

    def meters_by_class(self, name: str) -> FloatArray:
        """Return (K + M,) meters of branches of a class; over all classes the line without gaps."""
        meters = np.where(self.severity == name, self.branches.lines.lengths, 0)
        total = np.bincount(self.owner, meters, len(self.figures.first)) / UM
        return np.asarray(total, np.float64)

    def owner_of_pieces(self) -> IntArray:
        """Return (P,) crack or network with most pixels of each piece, the first of equals."""
        piece, owner = self.branches.piece, self.owner
        order = np.lexsort((owner, piece))
        piece, owner, count = piece[order], owner[order], self.branches.n_pixels[order]
        first = np.flatnonzero(np.diff(piece, prepend=-1) | np.diff(owner, prepend=-1))
        total = np.add.reduceat(count, first) if len(first) else count
        piece, owner = piece[first], owner[first]
        best = np.lexsort((-owner, total, piece))
        home = np.full(len(self.branches.pieces.top), -1)
        home[piece[best]] = owner[best]  # the last assignment stays
        return home


def find_cracks(branches: MapBranches, grid: Grid, rules: MapRules) -> CrackMap:
    """Find networks and cracks.

    Args:
        branches: of the whole map.
        grid: of the mosaic.
        rules: limits of links, networks, classes and filters.
    """
    lines = branches.lines
    networks = find_networks(lines, rules.network)
    outside = np.flatnonzero(networks.of_branch < 0)
    free = lines.take(outside)
    chains = chain(free, link(free, rules.link))
    owner = networks.of_branch + len(chains)
    owner[outside] = chains.of_branch
    count = len(chains) + len(networks)
    gsd_mm = MM * branches.pieces.gsd_m[branches.piece]
    widths = crack_widths(branches.sums, owner, count, MM * grid.gsd_m, gsd_mm, rules.severity)
    figures = _figures(branches, owner, count)
    large = figures.n_pixels[: len(chains)] * grid.pixel_area_m2 >= rules.min_area_m2
    return CrackMap(
        branches=branches,
        owner=owner,
        outside=outside,
        chains=chains,
        networks=networks,
        figures=figures,
        widths=widths,
        p95_mm=widths.p95_mm(lines.lengths, owner),
        severity=d6433(widths.branch_mm, widths.branch_measurable, rules.severity),
        kept=large & (chains.length_m(free) >= rules.min_length_m),
        grid=grid,
    )


def _figures(branches: MapBranches, owner: IntArray, count: int) -> Figures:
    pieces, piece = branches.pieces, branches.piece
    probability = pieces.probability_sum / (255.0 * pieces.n_pixels)
    n_pixels = np.bincount(owner, branches.n_pixels, count).astype(np.int64)
    first = np.full(count, len(owner))
    np.minimum.at(first, owner, np.arange(len(owner)))
    weighted = np.bincount(owner, branches.n_pixels * probability[piece], count)
    touches, gsd_m = np.full(count, UNKNOWN), np.zeros(count)
    np.maximum.at(touches, owner, pieces.touches_nodata[piece])
    np.maximum.at(gsd_m, owner, pieces.gsd_m[piece])
    pairs = np.unique(owner * np.int64(max(1, len(pieces.top))) + piece)
    return Figures(
        n_pixels=n_pixels,
        confidence=np.where(
            n_pixels > 0, weighted / np.maximum(n_pixels, 1), probability[piece[first]]
        ),
        gsd_mm=MM * gsd_m,
        touches_nodata=touches,
        branches=np.bincount(owner, minlength=count),
        pieces=np.bincount(pairs // max(1, len(pieces.top)), minlength=count),
        first=first,
    )


def crack_lines(found: CrackMap, chosen: IntArray) -> Names:
    """Return (C,) MultiLineStrings of cracks in the CRS: their branches in the order of travel."""
    chains = found.chains
    crack, step = ramps(np.diff(chains.starts)[chosen])
    index = chains.starts[chosen][crack] + step
    numbers = found.outside[chains.order[index]]
    along = found.branches.lines.take(numbers, chains.turned[index])
    places = along.vertices / (UM * found.grid.unit_m)
    lines = shapely.linestrings(places, indices=along.owner)
    shapes: Names = shapely.multilinestrings(lines, indices=crack)
    return shapes


def tortuosities(found: CrackMap) -> FloatArray:
    """Return (K,) length / distance of the ends of each crack; nan for a loop."""
    chains, lines = found.chains, found.lines
    first, last = chains.starts[:-1], chains.starts[1:] - 1
    begin = lines.end_places[2 * chains.order[first] + chains.turned[first]]
    end = lines.end_places[2 * chains.order[last] + 1 - chains.turned[last]]
    chord = np.hypot(*((end - begin) / UM).T)
    length = chains.length_m(lines)
    return np.where(chord > 0, length / np.where(chord > 0, chord, 1), np.nan)

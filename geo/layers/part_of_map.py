"""Some whole cracks and networks of a map as a map of their own."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

import numpy as np

from geo.arrays import BoolArray, IntArray
from geo.cracks.chains import Chains
from geo.cracks.collect import MapBranches
from geo.cracks.networks import Networks
from geo.cracks.width import WidthSums
from geo.layers.crack_width import CrackWidths
from geo.layers.whole_map import CrackMap, Figures

Columns = TypeVar("Columns", WidthSums, Figures)


def part_of_map(found: CrackMap, chosen: BoolArray) -> CrackMap:
    """Return the cracks and networks that some branches belong to, in the same order.

    Args:
        found: the map.
        chosen: (N,) branches; all or none of each crack and network.
    """
    branch = np.flatnonzero(chosen)
    owners = np.unique(found.owner[branch])
    count = int(np.searchsorted(owners, found.n_cracks))
    cracks, networks = owners[:count], owners[count:] - found.n_cracks
    place = np.cumsum(chosen) - 1  # of each branch among those chosen
    figures = _take(found.figures, owners)
    whole = found.branches
    return CrackMap(
        branches=MapBranches(
            lines=whole.lines.take(branch),
            piece=whole.piece[branch],
            n_pixels=whole.n_pixels[branch],
            sums=_take(whole.sums, branch),
            pieces=whole.pieces,
        ),
        owner=np.searchsorted(owners, found.owner[branch]),
        outside=place[found.outside[chosen[found.outside]]],
        chains=_some_chains(found.chains, chosen[found.outside], cracks),
        networks=_some_networks(found.networks, branch, networks),
        figures=replace(figures, first=place[figures.first]),
        widths=CrackWidths(
            branch_mm=found.widths.branch_mm[branch],
            crack_mm=found.widths.crack_mm[owners],
            most_mm=found.widths.most_mm[owners],
            branch_measurable=found.widths.branch_measurable[branch],
            crack_measurable=found.widths.crack_measurable[owners],
        ),
        p95_mm=found.p95_mm[owners],
        severity=found.severity[branch],
        kept=found.kept[cracks],
        grid=found.grid,
    )


def _take(columns: Columns, chosen: IntArray) -> Columns:
    """Take some entries of each array of a record."""
    names = [field.name for field in fields(columns)]
    return type(columns)(**{name: getattr(columns, name)[chosen] for name in names})


def _some_chains(chains: Chains, chosen: BoolArray, cracks: IntArray) -> Chains:
    """Return the chains of some cracks; ``chosen`` (B,) of the branches outside networks."""
    kept = chosen[chains.order]
    place = np.cumsum(chosen) - 1
    counts = np.diff(chains.starts)[cracks]
    return Chains(
        of_branch=np.searchsorted(cracks, chains.of_branch[chosen]),
        order=place[chains.order[kept]],
        starts=np.append(0, np.cumsum(counts)).astype(np.int64),
        turned=chains.turned[kept],
        gap_um=chains.gap_um[kept],
    )


def _some_networks(networks: Networks, branch: IntArray, chosen: IntArray) -> Networks:
    home = networks.of_branch[branch]
    return Networks(
        of_branch=np.where(home >= 0, np.searchsorted(chosen, home), -1),
        outlines=networks.outlines[chosen],
        area_m2=networks.area_m2[chosen],
        crack_length_m=networks.crack_length_m[chosen],
        first_cell=networks.first_cell[chosen],
    )

"""What is kept of each branch: its pixels, and sums of the light that it takes.

Sums add up over the branches of a crack, whichever pieces they come from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geo.arrays import FloatArray, IntArray
from geo.cracks.branches import BranchSet
from geo.cracks.light import Pixels
from geo.cracks.measure import MeasuredBranch
from geo.cracks.split import branch_of_pixels
from geo.cracks.width import WidthOptions, width_sums
from geo.grid import Grid

WIDTH_OPTIONS = WidthOptions()
"""Blocks and the joining of their pieces must read widths alike, so this is one constant."""

N_PIXELS = 0
"""Column of `branch_sums` that counts pixels; those of `geo.cracks.width.WidthSums` follow."""

COLUMNS = ("n_pixels", "length_px", "loss_px2", "weight", "weighted_depth", "most_px")

Branches = tuple[MeasuredBranch, ...]


def branch_sums(
    places: IntArray,
    owner: IntArray,
    branches: Sequence[Branches | None],
    light: Pixels | None,
    grid: Grid,
) -> list[FloatArray | None]:
    """Share pixels and light out among the branches of whole pieces.

    Args:
        places: (P, 2) row, col of the pixels of all pieces.
        owner: (P,) number of the piece of each.
        branches: of each piece; None for one that is not measured here.
        light: of the imagery; None: nothing is known of widths.
        grid: of the mosaic.

    Returns:
        For each piece (B, 6), a row of `COLUMNS` per branch; None for one that is not measured.
    """
    counts = np.array([len(some) if some is not None else 0 for some in branches], np.int64)
    every = [branch for some in branches if some is not None for branch in some]
    if not every:
        return [None if some is None else np.empty((0, len(COLUMNS))) for some in branches]
    piece = np.repeat(np.arange(len(branches)), counts)
    nodes = np.array([(branch.from_node, branch.to_node) for branch in every], np.int64)
    nodes_of = np.zeros(len(branches), np.int64)
    np.maximum.at(nodes_of, piece, nodes.max(axis=1) + 1)
    before = np.cumsum(nodes_of) - nodes_of
    lines = BranchSet.of_lines([branch.line for branch in every], nodes + before[piece][:, None])
    known = counts[owner] > 0
    nearest = branch_of_pixels(places[known], owner[known], lines, piece)
    found = np.zeros((len(every), len(COLUMNS)))
    found[:, N_PIXELS] = np.bincount(nearest, minlength=len(every))
    if light is not None:
        widths = np.array([branch.mask_width_m for branch in every]) / grid.gsd_m
        width, height = grid.pixel_m
        aspect = width / grid.gsd_m, height / grid.gsd_m
        sums = width_sums(light, lines, widths, WIDTH_OPTIONS, aspect)
        for column, name in enumerate(COLUMNS[1:], start=1):
            found[:, column] = getattr(sums, name)
    parts = np.split(found, np.cumsum(counts)[:-1])
    return [None if some is None else p for some, p in zip(branches, parts, strict=True)]

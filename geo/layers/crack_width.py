"""Widths of whole cracks: each branch with the depth that its crack has.

ASTM D6433 rates each portion of a crack by itself, so branches have widths of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo.arrays import BoolArray, FloatArray, IntArray
from geo.cracks.branch_sums import WIDTH_OPTIONS
from geo.cracks.width import WidthSums, depths, widths_mm
from geo.layers.classes import is_measurable
from geo.options import SeverityOptions

P95 = 0.95


@dataclass(frozen=True, eq=False)
class CrackWidths:
    """Widths of K cracks (or networks) and of their N branches; nan where none was seen.

    Attributes:
        branch_mm: (N,) mean width of each branch.
        crack_mm, most_mm: (K,) mean width by length, and that of the widest run.
        branch_measurable, crack_measurable: whether the width may be claimed.
    """

    branch_mm: FloatArray
    crack_mm: FloatArray
    most_mm: FloatArray
    branch_measurable: BoolArray
    crack_measurable: BoolArray

    def p95_mm(self, length: IntArray, owner: IntArray) -> FloatArray:
        """Return (K,) mean width of branches that is exceeded on 5 % of the length of each crack.

        It is at least the mean of the crack, which is taken over the light of all branches at once
        and may lie a little above that of each.
        """
        beyond = width_p95(self.branch_mm, length, owner, len(self.crack_mm))
        return np.maximum(beyond, self.crack_mm)


def crack_widths(
    sums: WidthSums,
    owner: IntArray,
    count: int,
    pixel_mm: float,
    gsd_mm: FloatArray,
    options: SeverityOptions,
) -> CrackWidths:
    """Return widths of cracks from the sums along their branches.

    Args:
        sums: of N branches.
        owner: (N,) crack of each branch.
        count: number of cracks.
        pixel_mm: size of the pixels in which the sums are.
        gsd_mm: (N,) pixel size of the imagery under each branch.
        options: from how many pixels on a width may be claimed.
    """
    whole = sums.group(owner, count)
    depth = depths(whole, WIDTH_OPTIONS)
    coarsest = np.zeros(count)
    np.maximum.at(coarsest, owner, gsd_mm)
    branch, crack = widths_mm(sums, depth[owner], pixel_mm), widths_mm(whole, depth, pixel_mm)
    most = np.maximum(pixel_mm * whole.most_px / depth, crack)
    return CrackWidths(
        branch_mm=branch,
        crack_mm=crack,
        most_mm=np.where(whole.length_px > 0, most, np.nan),
        branch_measurable=is_measurable(branch, gsd_mm, options),
        crack_measurable=is_measurable(crack, coarsest, options),
    )


def width_p95(
    width_mm: FloatArray, length: FloatArray | IntArray, owner: IntArray, count: int
) -> FloatArray:
    """Return (K,) width that is exceeded on 5 % of each owner's length; nan where none is known.

    Args:
        width_mm: (N,) width of each piece of line; nan counts nowhere.
        length: (N,) of each, in any unit.
        owner: (N,) number of the crack or road segment of each.
        count: number of owners.
    """
    seen = np.flatnonzero(np.isfinite(width_mm))
    order = seen[np.lexsort((width_mm[seen], owner[seen]))]
    who, way = owner[order], np.cumsum(length[order])
    total = np.bincount(who, length[order], count)
    before = (np.cumsum(total) - total)[who]
    beyond = np.flatnonzero(way - before >= P95 * total[who] - 1e-9)
    names, first = np.unique(who[beyond], return_index=True)
    width = np.full(count, np.nan)
    width[names] = width_mm[order[beyond[first]]]
    return width

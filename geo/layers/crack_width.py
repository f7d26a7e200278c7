"""Widths and severities of whole cracks: each branch with the depth that its crack has.

ASTM D6433 rates each portion of a crack by itself, so severity belongs to branches, and a crack
has meters of each. No class is given where the width is too small for the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo.cracks.branches import UM, BoolArray, BranchSet, FloatArray, IntArray
from geo.cracks.width import WidthOptions, WidthSums, depths, is_measurable
from geo.layers.classes import NOT_MEASURABLE, d6433, ltpp
from geo.options import SeverityOptions

MM = 1000.0

D6433_CLASSES = ("low", "medium", "high", NOT_MEASURABLE)
LTPP_CLASSES = ("low", "moderate", "high", NOT_MEASURABLE)


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


def crack_widths(
    sums: WidthSums, owner: IntArray, count: int, gsd_mm: FloatArray, options: WidthOptions
) -> CrackWidths:
    """Widths of cracks from the sums along their branches.

    Args:
        sums: of N branches.
        owner: (N,) crack of each branch.
        count: number of cracks.
        gsd_mm: (N,) pixel size under each branch.
        options: see `WidthOptions`.
    """
    whole = sums.grouped(owner, count)
    depth = depths(whole, options)
    coarsest = np.zeros(count)
    np.maximum.at(coarsest, owner, gsd_mm)
    with np.errstate(invalid="ignore", divide="ignore"):
        branch = np.maximum(sums.loss_px2, 0.0) / sums.length_px / depth[owner]
        crack = np.maximum(whole.loss_px2, 0.0) / whole.length_px / depth
    most = np.where(whole.length_px > 0, np.maximum(whole.most_px / depth, crack), np.nan)
    return CrackWidths(
        branch_mm=branch * gsd_mm,
        crack_mm=crack * coarsest,
        most_mm=most * coarsest,
        branch_measurable=is_measurable(branch, gsd_mm, options),
        crack_measurable=is_measurable(crack, coarsest, options),
    )


@dataclass(frozen=True, eq=False)
class Severities:
    """Class of each of N branches after both standards."""

    d6433: NDArray[np.object_]
    ltpp: NDArray[np.object_]


def branch_severities(
    widths: CrackWidths, gsd_mm: FloatArray, options: SeverityOptions
) -> Severities:
    """Class of each branch; not measurable where its width may not be claimed."""
    claimed = widths.branch_measurable
    width = np.nan_to_num(widths.branch_mm)
    return Severities(
        np.where(claimed, d6433(width, gsd_mm, options), NOT_MEASURABLE).astype(object),
        np.where(claimed, ltpp(width, gsd_mm, options), NOT_MEASURABLE).astype(object),
    )


def meters_by_class(
    classes: NDArray[np.object_],
    names: tuple[str, ...],
    branches: BranchSet,
    owner: IntArray,
    count: int,
) -> dict[str, FloatArray]:
    """Meters of each class in each crack (count,); over all classes they are its line's length."""
    return {
        name: np.bincount(owner, np.where(classes == name, branches.lengths, 0), count) / UM
        for name in names
    }

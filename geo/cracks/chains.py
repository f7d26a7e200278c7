"""Linked branches -> cracks: which branch belongs to which crack, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo.arrays import BoolArray, FloatArray, IntArray
from geo.cracks.branches import UM, BranchSet
from geo.cracks.linking import Links
from geo.cracks.measure import orientations


@dataclass(frozen=True, eq=False)
class Chains:
    """K cracks, by the place of their first branch.

    Attributes:
        of_branch: (N,) crack of each branch.
        order: (N,) branches crack by crack, in the order in which they are passed.
        starts: (K + 1,) where each crack begins in ``order``.
        turned: (N,) which branches of ``order`` are passed from their last vertex to their first.
        gap_um: (N,) gap after each branch of ``order``; 0 after the last one of an open crack.
    """

    of_branch: IntArray
    order: IntArray
    starts: IntArray
    turned: BoolArray
    gap_um: IntArray

    def __len__(self) -> int:
        """Return number of cracks."""
        return len(self.starts) - 1

    @property
    def gap_m(self) -> FloatArray:
        """(K,) length of the gaps of each crack."""
        return self._sums(self.gap_um)

    def line_m(self, branches: BranchSet) -> FloatArray:
        """Return (K,) length of the branches of each crack, without gaps."""
        return self._sums(branches.lengths[self.order])

    def length_m(self, branches: BranchSet) -> FloatArray:
        """Return (K,) length of each crack with its gaps."""
        return self.line_m(branches) + self.gap_m

    def orientation_deg(self, branches: BranchSet) -> FloatArray:
        """Return (K,) mean direction of branches, clockwise from north; nan if there is none."""
        along = branches.take(self.order, self.turned)
        inner = np.ones(len(along.vertices), bool)
        inner[along.starts[1:] - 1] = False
        at = np.flatnonzero(inner)
        steps = (along.vertices[at + 1] - along.vertices[at]) / UM
        owner = np.repeat(np.arange(len(self)), np.diff(self.starts))
        return orientations(steps, owner[along.owner[at]], len(self))

    def _sums(self, values: IntArray) -> FloatArray:
        sums = np.append(0, np.cumsum(values))[self.starts]
        return np.diff(sums) / UM


def chain(branches: BranchSet, links: Links) -> Chains:
    """Follow the links.

    A crack begins at its southwestern end; one that is a loop at its southwestern branch.
    """
    _, names = branches.canonical
    partner = np.full(len(names), -1)
    number = np.empty(len(names), np.int64)
    number[names] = np.arange(len(names))
    linked = links.partner[names] >= 0
    partner[linked] = number[links.partner[names][linked]]
    root, place = _rank(partner)
    entered = _choose(root, place)
    order = entered[np.lexsort((place[entered], root[entered]))]
    heads = root[order]
    first = np.flatnonzero(np.diff(heads, prepend=-1))
    ends = names[order]
    of_branch = np.empty(len(branches), np.int64)
    counts = np.diff(np.append(first, len(order)))
    of_branch[ends >> 1] = np.repeat(np.arange(len(first)), counts)
    exits = order ^ 1
    return Chains(
        of_branch=of_branch,
        order=ends >> 1,
        starts=np.append(first, len(order)),
        turned=(ends & 1).astype(bool),
        gap_um=np.where(partner[exits] >= 0, links.gap_um[names][exits], 0),
    )


def _rank(partner: IntArray) -> tuple[IntArray, IntArray]:
    """Return for each end by which a branch is entered where that walk began, and how far in it is.

    Pointers are doubled until all have arrived. Those that go around are cut at the lowest end of
    their loop and followed again.
    """
    before = np.where(partner >= 0, partner ^ 1, -1)
    root, place, arrived = _follow(before)
    while not arrived.all():
        lowest = _lowest(before, ~arrived)
        before[lowest] = -1
        root, place, arrived = _follow(before)
    return root, place


def _follow(before: IntArray) -> tuple[IntArray, IntArray, BoolArray]:
    count = len(before)
    here = np.arange(count)
    back = np.where(before >= 0, before, here)
    place = (before >= 0).astype(np.int64)
    for _ in range(max(1, count.bit_length())):
        place = place + place[back]
        further = back[back]
        if (further == back).all():
            break
        back = further
    return back, place, before[back] < 0


def _lowest(before: IntArray, looping: BoolArray) -> IntArray:
    """Return the lowest end of each loop."""
    lowest = np.arange(len(before))
    back = np.where(before >= 0, before, lowest)
    for _ in range(max(1, len(before).bit_length())):
        lowest = np.minimum(lowest, lowest[back])
        back = back[back]
    first: IntArray = np.unique(lowest[looping])
    return first


def _choose(root: IntArray, place: IntArray) -> IntArray:
    """Return of the two ways through each branch the one that began at the lower end."""
    roots, places = root.reshape(-1, 2), place.reshape(-1, 2)
    second = roots[:, 1] < roots[:, 0]
    second |= (roots[:, 1] == roots[:, 0]) & (places[:, 1] < places[:, 0])
    chosen: IntArray = 2 * np.arange(len(roots)) + second
    return chosen

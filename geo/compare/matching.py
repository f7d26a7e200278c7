"""Which meters of two surveys are the same line: stretches of cracks with one state each.

Every piece of a crack looks for a piece of the other survey beside it that runs the same way.
Along the crack the answers are then made whole: what was not seen for a hand's breadth is no
change, and what two lines share where they cross is no match.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geo.arrays import BoolArray, FloatArray, IntArray
from geo.compare.options import MatchOptions
from geo.compare.survey import Samples, sums

Codes = NDArray[np.int8]
"""Values of `State`."""

NEIGHBORS = 6
"""Pieces of line that are looked at for each: three lines that meet have some within reach."""
AT_ONCE = 100_000
"""Samples that are looked up together."""
SLACK = 1.1
"""Part of its own half length by which a piece reaches along itself: a bend opens a gap."""


class State(IntEnum):
    """Of a piece of line, seen from its own survey."""

    MATCHED = 0
    ALONE = 1
    UNSEEN = 2
    IN_NETWORK = 3


@dataclass(frozen=True, eq=False)
class Other:
    """What the other survey has: samples, the ground that both saw, its networks (or None)."""

    samples: Samples
    both: shapely.Geometry
    networks: shapely.Geometry | None


@dataclass(frozen=True, eq=False)
class Labels:
    """Per sample (N,): its state, and the other survey's crack (-1 for none)."""

    state: Codes
    partner: IntArray


@dataclass(frozen=True, eq=False)
class Runs:
    """R runs of equal label along the cracks.

    Attributes:
        first, last: samples, both included.
        state, crack: of the run.
        length_m: with the gaps inside, that after its last sample left out.
        after_m: the gap between it and the next run of its crack.
        begins, ends: whether it is the first, the last run of its crack.
    """

    first: IntArray
    last: IntArray
    state: Codes
    crack: IntArray
    length_m: FloatArray
    after_m: FloatArray
    begins: BoolArray
    ends: BoolArray


def match(
    own: Samples, beside: IntArray, back: IntArray, other: Other, options: MatchOptions
) -> Labels:
    """Find the line of the other survey beside each piece of a crack.

    A line belongs to one crack: where two lie close, as at a crossing, the nearer one has it.

    Args:
        own: N samples, in the new survey's place.
        beside: (N,) sample of the other survey beside each, -1 for none (`beside`).
        back: (M,) the same for the samples of the other survey.
        other: the other survey.
        options: limits.
    """
    mutual = beside >= 0
    mutual[mutual] = own.crack[back[beside[mutual]]] == own.crack[mutual]
    mutual &= np.append(back, -1)[beside] >= 0
    partner = np.full(len(own), -1)
    partner[mutual] = other.samples.crack[beside[mutual]]
    state = np.where(partner >= 0, State.MATCHED, State.ALONE).astype(np.int8)
    _close(own, state, partner, options)
    _open(own, state, options.min_match_m)
    alone = np.flatnonzero(state == State.ALONE)
    xy = own.xy[alone]
    if other.networks is not None:
        state[alone[shapely.contains_xy(other.networks, *xy.T)]] = State.IN_NETWORK
    state[alone[~shapely.contains_xy(other.both, *xy.T)]] = State.UNSEEN
    return Labels(state, _partners(own, state, partner, options.min_match_m))


def beside(
    own: Samples, tolerance_m: FloatArray, other: Samples, options: MatchOptions
) -> IntArray:
    """Return the other survey's piece of line beside each own one, the same way; -1 for none.

    Args:
        own: N samples.
        tolerance_m: (N,) how far beside it may lie.
        other: samples of the other survey.
        options: limits.
    """
    found = np.full(len(own), -1)
    if not len(other) or not len(own):
        return found
    tree = cKDTree(other.xy, balanced_tree=False)  # built in a quarter of the time
    cosine = np.cos(np.radians(options.angle_deg))
    near = np.arange(1, min(NEIGHBORS, len(other)) + 1)
    reach = float(np.hypot(tolerance_m.max(), SLACK * options.step_m / 2))
    for low in range(0, len(own), AT_ONCE):
        part = slice(low, low + AT_ONCE)
        _, index = tree.query(own.xy[part], k=near, distance_upper_bound=reach)
        place, column = np.nonzero(index < len(other))
        seen, index = place + low, index[place, column]  # most have few beside them
        tangent, offset = other.tangent[index], other.xy[index] - own.xy[seen]
        along = np.abs((offset * tangent).sum(axis=1))
        across = np.abs(offset[:, 0] * tangent[:, 1] - offset[:, 1] * tangent[:, 0])
        like = np.abs((tangent * own.tangent[seen]).sum(axis=1))
        there = (along <= SLACK * other.length_m[index] / 2) & (like >= cosine)
        there &= across <= tolerance_m[seen]
        if not there.any():
            continue
        seen, index, across = seen[there], index[there], across[there]
        begins = np.diff(seen, prepend=-1) != 0
        least = np.minimum.reduceat(across, np.flatnonzero(begins))[np.cumsum(begins) - 1]
        best = np.flatnonzero(across == least)[::-1]  # the first of equals is written last
        found[seen[best]] = index[best]
    return found


def runs_of(own: Samples, state: Codes, partner: IntArray | None = None) -> Runs:
    """Cut cracks where the state or the partner changes."""
    change = np.diff(own.crack, prepend=-1) != 0
    change[1:] |= state[1:] != state[:-1]
    if partner is not None:
        change[1:] |= partner[1:] != partner[:-1]
    first = np.flatnonzero(change)
    last = np.append(first[1:], len(own))[: len(first)] - 1
    number = np.cumsum(change) - 1
    length = sums(number, own.length_m + own.gap_m, len(first))
    crack = own.crack[first]
    return Runs(
        first=first,
        last=last,
        state=state[first],
        crack=crack,
        length_m=length - own.gap_m[last],
        after_m=own.gap_m[last],
        begins=np.diff(crack, prepend=-1) != 0,
        ends=np.diff(crack, append=-1) != 0,
    )


def _spread(runs: Runs, chosen: BoolArray, count: int) -> BoolArray:
    """Return (N,) bool: the samples of chosen runs."""
    sizes = runs.last - runs.first + 1
    assert sizes.sum() == count
    return np.repeat(chosen, sizes)


def _close(own: Samples, state: Codes, partner: IntArray, options: MatchOptions) -> None:
    """Make interruptions within a match part of it.

    A contact as short as that of two lines that cross vouches for an interruption only if the
    same crack of the other survey lies on both sides of it.
    """
    runs = runs_of(own, state)
    inner = ~runs.begins & ~runs.ends & (runs.state == State.ALONE)
    before = np.append(0.0, runs.after_m[:-1])
    whole = runs.length_m + before + runs.after_m
    beside = np.minimum(np.roll(runs.length_m, 1), np.roll(runs.length_m, -1))
    same = partner[runs.first - 1] == np.append(partner, -1)[runs.last + 1]
    chosen = inner & (whole <= options.bridge_m) & (same | (beside >= options.min_match_m))
    state[_spread(runs, chosen, len(own))] = State.MATCHED


def _open(own: Samples, state: Codes, min_match_m: float) -> None:
    """Take back short matches, but where they are most of a crack."""
    runs = runs_of(own, state)
    total = np.bincount(own.crack, own.length_m)
    matched = runs.state == State.MATCHED
    small = matched & (runs.length_m < min_match_m) & (runs.length_m < total[runs.crack] / 2)
    state[_spread(runs, small, len(own))] = State.ALONE


def _partners(own: Samples, state: Codes, partner: IntArray, min_match_m: float) -> IntArray:
    """Return the partner of each matched sample; crumbs take that of most of their crack."""
    matched = np.flatnonzero(state == State.MATCHED)
    result = np.full(len(own), -1)
    seen = matched[partner[matched] >= 0]
    if not len(seen):
        return result
    width = int(partner.max()) + 1
    keys = own.crack[seen] * width + partner[seen]
    begins = np.diff(keys, prepend=-1) != 0  # most samples have the pair of the one before
    key, run = np.unique(keys[begins], return_inverse=True)
    pair = run[np.cumsum(begins) - 1]
    length = np.bincount(pair, own.length_m[seen])
    crack, other = key // width, key % width
    order = np.lexsort((other, -length, crack))
    main = np.full(int(own.crack.max()) + 1, -1)
    top = order[np.diff(crack[order], prepend=-1) != 0]
    main[crack[top]] = other[top]
    large = length >= min_match_m
    result[matched] = main[own.crack[matched]]
    result[seen] = np.where(large[pair], partner[seen], main[own.crack[seen]])
    return result

"""Which meters of two surveys are the same line: stretches of cracks with one state each.

Every piece of a crack looks for a piece of the other survey beside it that runs the same way.
Along the crack the answers are then made whole: what was not seen for a hand's breadth is no
change, and what two lines share where they cross is no match.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geo.compare.options import MatchOptions
from geo.compare.survey import (
    LINES_AT_ONCE,
    BoolArray,
    FloatArray,
    IntArray,
    Lines,
    Samples,
    ShapeArray,
    sums,
)

Codes = NDArray[np.int8]
"""Values of `State`."""

NEIGHBORS = 6
"""Pieces of line that are looked at for each: three lines that meet have some within reach."""
AT_ONCE = 100_000
"""Samples that are looked up together."""
SLACK = 1.1
"""Part of its own half length by which a piece reaches along itself: a bend opens a gap."""
TIP_COSINE = float(np.cos(np.radians(50.0)))
"""A crack goes on in another that turns less (the limit of linking)."""
ROUNDS = 3
"""Of looking for a crack that goes on in one that goes on."""


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
    """(N,) bool: the samples of chosen runs."""
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


@dataclass(frozen=True, eq=False)
class Stretches:
    """Runs of one survey with what they are.

    Attributes:
        runs: cut at changes of state and of partner.
        partner: (R,) the other survey's crack; of a run that is alone, the one it goes on from.
        ends: (R,) how many free ends of it could have been missed.
        attached: (R,) alone, but part of a crack that the other survey has.
        shift_m: (R,) what it is longer than its samples: the other survey's crack ends within one.
    """

    runs: Runs
    partner: IntArray
    ends: IntArray
    attached: BoolArray
    shift_m: FloatArray


@dataclass(frozen=True, eq=False)
class Ends:
    """Where the other survey's cracks end, seen from N samples; nan where none is beside.

    Attributes:
        way_m: (N,) way from the middle of the piece beside to the nearer end of its crack.
        along_m: (N,) how far that middle lies ahead, in the direction of the sample.
    """

    way_m: FloatArray
    along_m: FloatArray

    @classmethod
    def of(cls, own: Samples, beside: IntArray, other: Samples) -> Ends:
        """Look from own samples at those beside them (-1 for none)."""
        if not len(other):
            return cls(np.full(len(own), np.nan), np.full(len(own), np.nan))
        along = ((other.xy[beside] - own.xy) * own.tangent).sum(axis=1)
        return cls(
            np.append(ways_to_end(other), np.nan)[beside], np.where(beside < 0, np.nan, along)
        )

    def beyond_m(self, own: Samples, sample: IntArray, side: int) -> FloatArray:
        """How far own pieces reach beyond the end of the crack beside; at most half of them.

        Args:
            own: the samples.
            sample: (K,) of them; -1 is any.
            side: 1 if the end lies ahead, -1 if behind.
        """
        half = own.length_m[sample] / 2
        beyond = half - self.way_m[sample] - side * self.along_m[sample]
        return np.nan_to_num(beyond).clip(-half, half)


def stretches(own: Samples, labels: Labels, ends: Ends, options: MatchOptions) -> Stretches:
    """Cut cracks into stretches and find from which crack each lonely one goes on.

    A crack grows at its ends. What leaves another one half way is a crack of its own.

    Args:
        own: N samples.
        labels: of them.
        ends: of the other survey's cracks beside them.
        options: limits.
    """
    runs = runs_of(own, labels.state, labels.partner)
    count = len(runs.first)
    partner = labels.partner[runs.first].copy()
    inside_before = np.where(runs.begins, -1, np.arange(count) - 1)
    inside_after = np.where(runs.ends, -1, np.arange(count) + 1)
    alone = runs.state == State.ALONE
    head, tail = _way_to_ends(runs, ends.way_m)
    gap_before = np.append(0.0, runs.after_m[:-1])
    shift = np.zeros(count)
    for other, way, gap, side in (
        (inside_before, tail[inside_before], gap_before, 1),
        (inside_after, head[inside_after], runs.after_m, -1),
    ):
        joins = alone & (other >= 0) & (way <= options.bridge_m) & (gap <= options.join_m)
        found = np.where(joins, labels.partner[runs.first[other]], -1)
        partner = np.where(partner < 0, found, partner)
        joins &= found >= 0
        border = runs.last[other] if side > 0 else runs.first[other]
        beyond = np.where(joins, ends.beyond_m(own, border, side), 0.0)
        shift += beyond
        np.subtract.at(shift, other[joins], beyond[joins])
    partner = _continued(own, runs, alone, partner, options)
    matched_before = (inside_before >= 0) & (runs.state[inside_before] == State.MATCHED)
    matched_after = (inside_after >= 0) & (runs.state[inside_after] == State.MATCHED)
    free = (~matched_before).astype(np.int64) + (~matched_after).astype(np.int64)
    return Stretches(runs, partner, free.clip(1), alone & (partner >= 0), shift)


def ways_to_end(samples: Samples) -> FloatArray:
    """(N,) way along its crack from each sample to the nearer end of it, in meters."""
    if not len(samples):
        return np.empty(0)
    pace = samples.length_m + samples.gap_m
    total = np.bincount(samples.crack, pace)
    first = np.flatnonzero(np.diff(samples.crack, prepend=-1))
    upto = np.cumsum(pace)
    begin = (upto[first] - pace[first])[np.searchsorted(first, np.arange(len(pace)), "right") - 1]
    along = upto - begin - pace + samples.length_m / 2
    return np.asarray(np.minimum(along, total[samples.crack] - along))


def _way_to_ends(runs: Runs, to_end_m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(R,) way to an end of the other crack from the first, the last known place of each run."""
    known = np.flatnonzero(~np.isnan(to_end_m))
    if not len(known):
        unknown = np.full(len(runs.first), np.inf)
        return unknown, unknown
    after = np.searchsorted(known, runs.first)
    before = np.searchsorted(known, runs.last, "right") - 1
    first, last = known[after.clip(max=len(known) - 1)], known[before.clip(min=0)]
    inside = (after <= before) & (before >= 0)
    return (
        np.where(inside, to_end_m[first], np.inf),
        np.where(inside, to_end_m[last], np.inf),
    )


def _continued(
    own: Samples, runs: Runs, alone: BoolArray, partner: IntArray, options: MatchOptions
) -> IntArray:
    """Let a lonely crack that begins where another ends, in its direction, go on from it."""
    tips = np.concatenate((runs.first[runs.begins], runs.last[runs.ends]))
    if not len(tips):
        return partner
    side = np.concatenate((np.full(runs.begins.sum(), -1.0), np.full(runs.ends.sum(), 1.0)))
    owner = np.concatenate((np.flatnonzero(runs.begins), np.flatnonzero(runs.ends)))
    outward = own.tangent[tips] * side[:, None]
    place = own.xy[tips] + outward * own.length_m[tips, None] / 2
    pairs = cKDTree(place).query_pairs(options.join_m, output_type="ndarray")
    pairs = np.vstack((pairs, pairs[:, ::-1]))
    facing = -(outward[pairs[:, 0]] * outward[pairs[:, 1]]).sum(axis=1)
    foreign = runs.crack[owner[pairs[:, 0]]] != runs.crack[owner[pairs[:, 1]]]
    pairs = pairs[(facing >= TIP_COSINE) & foreign]
    distance = np.hypot(*(place[pairs[:, 0]] - place[pairs[:, 1]]).T)
    pairs = pairs[np.argsort(-distance, kind="stable")]  # the nearest is written last
    partner = partner.copy()
    lonely, known = owner[pairs].T
    for _ in range(ROUNDS):
        open_ = alone[lonely] & (partner[lonely] < 0) & (partner[known] >= 0)
        partner[lonely[open_]] = partner[known[open_]]
    return partner


def pieces(own: Samples, runs: Runs, chosen: IntArray) -> Lines:
    """Lines of C chosen runs, cut where a crack has a gap."""
    sizes = runs.last[chosen] - runs.first[chosen] + 1
    owner = np.repeat(np.arange(len(chosen)), sizes)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    sample = runs.first[chosen][owner] + within
    begins = (np.diff(owner, prepend=-1) != 0) | (np.diff(own.part[sample], prepend=-1) != 0)
    ends = np.append(begins[1:], True)[: len(sample)]
    half = own.tangent[sample] * own.length_m[sample, None] / 2
    xy = own.xy[sample]
    start = np.where(begins[:, None], xy - half, (xy + np.roll(xy, 1, axis=0)) / 2)
    # a part has a point before each of its samples, and one behind the last
    places = np.arange(len(sample)) + np.cumsum(begins) - 1
    points = np.empty((len(sample) + int(begins.sum()), 2))
    points[places] = start
    points[places[ends] + 1] = (xy + half)[ends]
    parts = np.bincount(owner[begins], minlength=len(chosen))
    return Lines(
        points,
        np.append(places[begins], len(points)),
        np.append(0, np.cumsum(parts)),
    )


@dataclass(frozen=True, eq=False)
class RowLines:
    """Lines of rows, made of runs when they are asked for: samples take less than geometries.

    Attributes:
        groups: of each survey its samples, their runs, those that are taken (C,), and the row
            (C,) of each of these, ascending.
        count: of rows.
    """

    groups: tuple[tuple[Samples, Runs, IntArray, IntArray], ...]
    count: int

    def shapes(self) -> Iterator[ShapeArray]:
        """Yield the MultiLineStrings of the rows, `LINES_AT_ONCE` at a time."""
        for low in range(0, self.count, LINES_AT_ONCE):
            high = min(low + LINES_AT_ONCE, self.count)
            found = []
            for own, runs, taken, row in self.groups:
                here = slice(*np.searchsorted(row, (low, high)).tolist())
                found.append((pieces(own, runs, taken[here]), row[here] - low))
            yield from Lines.joined(found, high - low).shapes()

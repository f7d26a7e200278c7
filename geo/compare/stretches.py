"""What the stretches of matched cracks are: which lonely one goes on from which crack, and how far.

A crack grows at its ends: a stretch that the other survey lacks is a part of the crack that ends
where it begins. Stretches become lines when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from geo.arrays import BoolArray, FloatArray, IntArray, Shapes
from geo.compare.matching import Labels, Runs, State, runs_of
from geo.compare.options import MatchOptions
from geo.compare.survey import LINES_AT_ONCE, Lines, Samples
from geo.cracks.pixel_set import ramps

TIP_COSINE = float(np.cos(np.radians(50.0)))
"""A crack goes on in another that turns less (the limit of linking)."""
ROUNDS = 3
"""Of looking for a crack that goes on in one that goes on."""


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
        """Return how far own pieces reach beyond the end of the crack beside; at most half of them.

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
    partner = _continue(own, runs, alone, partner, options)
    matched_before = (inside_before >= 0) & (runs.state[inside_before] == State.MATCHED)
    matched_after = (inside_after >= 0) & (runs.state[inside_after] == State.MATCHED)
    free = (~matched_before).astype(np.int64) + (~matched_after).astype(np.int64)
    return Stretches(runs, partner, free.clip(1), alone & (partner >= 0), shift)


def ways_to_end(samples: Samples) -> FloatArray:
    """Return (N,) way along its crack from each sample to the nearer end of it, in meters."""
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
    """Return (R,) way to an end of the other crack from each run's first and last known place."""
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


def _continue(
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
    """Return lines of C chosen runs, cut where a crack has a gap."""
    owner, within = ramps(runs.last[chosen] - runs.first[chosen] + 1)
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

    def shapes(self) -> Iterator[Shapes]:
        """Yield the MultiLineStrings of the rows, `LINES_AT_ONCE` at a time."""
        for low in range(0, self.count, LINES_AT_ONCE):
            high = min(low + LINES_AT_ONCE, self.count)
            found = []
            for own, runs, taken, row in self.groups:
                here = slice(*np.searchsorted(row, (low, high)).tolist())
                found.append((pieces(own, runs, taken[here]), row[here] - low))
            yield from Lines.join(found, high - low).shapes()

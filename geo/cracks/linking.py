"""Branches -> cracks: which ends of centerlines go on in which others.

A mask breaks a crack into pieces, and a crossing joins cracks into one piece. So a crack is a chain
of branches. At a junction the most collinear pair goes on; then free ends are linked in rounds of
growing gap, if both lines point at each other. In each round every end names the best of its
candidates, and those who name each other are linked; that is repeated a few times and no more, so
that what happens at one place is decided within `LinkOptions.halo_m` of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from geo.arrays import BoolArray, FloatArray, IntArray
from geo.cracks.branches import UM, BranchSet, norms
from geo.cracks.pixel_set import ramps
from geo.options import LinkOptions

NONE = -1

MAX_WALK = 64
"""Branches that are followed for the direction of an end; crumbs of 4 mm fill the base."""

ENDS_AT_ONCE = 50_000
"""Free ends whose neighbors are looked up together."""


@dataclass(frozen=True, eq=False)
class Links:
    """Which end goes on in which.

    Attributes:
        partner: (2N,) end in which each end goes on; -1 for none.
        gap_um: (2N,) distance to it in micrometers; 0 at junctions.
    """

    partner: IntArray
    gap_um: IntArray


def link(branches: BranchSet, options: LinkOptions) -> Links:
    """Link the ends of branches.

    Args:
        branches: outside networks; of the whole map, or of a block and all that have a vertex
            within the halo around it.
        options: see `LinkOptions`.
    """
    canonical, names = branches.canonical
    state = _State.free(canonical)
    _link_junctions(state, options)
    for gap_m in options.gaps_m:
        _link_gaps(state, round(gap_m * UM), options)
    linked = state.partner >= 0
    partner, gap = np.full(len(names), NONE), np.zeros(len(names), np.int64)
    partner[names[linked]] = names[state.partner[linked]]
    gap[names] = state.gap_um
    return Links(partner, gap)


@dataclass(frozen=True, eq=False)
class _State:
    """Branches in canonical order, and what is linked so far; ends are known by their number."""

    branches: BranchSet
    partner: IntArray
    gap_um: IntArray

    @classmethod
    def free(cls, branches: BranchSet) -> _State:
        """Return a state with nothing linked."""
        return cls(
            branches, np.full(2 * len(branches), NONE), np.zeros(2 * len(branches), np.int64)
        )

    def join(self, one: IntArray, other: IntArray, gap_um: IntArray | int) -> None:
        """Link ends (K,) that are free."""
        self.partner[one], self.partner[other] = other, one
        self.gap_um[one] = self.gap_um[other] = gap_um


@dataclass(frozen=True, eq=False)
class _Pairs:
    """K candidates: their ends, and the short branch between their nodes (-1 for none)."""

    one: IntArray
    other: IntArray
    via: IntArray

    @classmethod
    def of(cls, one: IntArray, other: IntArray, via: IntArray | None = None) -> _Pairs:
        """Put the lower end of pairs first."""
        nothing = np.full(len(one), NONE) if via is None else via
        return cls(np.minimum(one, other), np.maximum(one, other), nothing)

    def take(self, chosen: IntArray) -> _Pairs:
        """Return some of them."""
        return _Pairs(self.one[chosen], self.other[chosen], self.via[chosen])


def _join(pairs: Sequence[_Pairs]) -> _Pairs:
    return _Pairs(
        np.concatenate([p.one for p in pairs]),
        np.concatenate([p.other for p in pairs]),
        np.concatenate([p.via for p in pairs]),
    )


def _link_junctions(state: _State, options: LinkOptions) -> None:
    """Let the most collinear ends at each node, or across a short branch, go on in each other."""
    branches = state.branches
    crossing_um = round(options.crossing_m * UM)
    pairs = _join([_pairs_at_nodes(branches), _pairs_across(branches, crossing_um)])
    directions = _directions(state, np.arange(2 * len(branches)), options)
    seen = _look(state, pairs, directions, options)
    limit = 1 - math.cos(math.radians(options.junction_turn_deg))
    cost = seen.bend + (2 - seen.sure_one - seen.sure_other) + seen.aside / crossing_um
    good = np.flatnonzero(seen.bend <= limit + seen.slack)
    chosen = good[_mutual_best(pairs.take(good), cost[good], 2 * len(branches), options.tries)]
    pairs, cost = pairs.take(chosen), cost[chosen]
    state.join(pairs.one, pairs.other, 0)
    _take_crossings_in(state, pairs, cost)


def _link_gaps(state: _State, gap_um: int, options: LinkOptions) -> None:
    """Link free ends at most ``gap_um`` apart, in one round."""
    free = np.flatnonzero(state.partner < 0)
    directions = _directions(state, free, options)
    found, costs = [], []
    for one, other in _near_pairs(state.branches.end_places[free], gap_um):
        pairs = _Pairs.of(free[one], free[other])
        seen = _look(state, pairs, directions, options)
        good = np.flatnonzero(_is_jump(seen, gap_um, options))
        found.append(pairs.take(good))
        costs.append(_jump_cost(seen, gap_um, options)[good])
    if not found:
        return
    pairs, cost = _join(found), np.concatenate(costs)
    chosen = pairs.take(_mutual_best(pairs, cost, 2 * len(state.branches), options.tries))
    places = state.branches.end_places
    state.join(chosen.one, chosen.other, norms(places[chosen.other] - places[chosen.one]))


@dataclass(frozen=True, eq=False)
class _Directions:
    """Of ends, in arrays of all ends of which only those asked for are filled.

    Attributes:
        x, y: unit vector that points out of the line; 0 for a line of no length.
        base_um: length of the base.
        tail: the other end of a chain that is shorter than a base; -1 for a longer one.
    """

    x: FloatArray
    y: FloatArray
    base_um: FloatArray
    tail: IntArray


def _directions(state: _State, ends: IntArray, options: LinkOptions) -> _Directions:
    """Look back from each end along its chain, through its links, for the length of a base."""
    branches, base_um = state.branches, round(options.base_m * UM)
    places = branches.end_places
    back = places[ends].copy()
    tail = np.full(len(ends), NONE)
    left = np.full(len(ends), base_um)
    active, here = np.arange(len(ends)), ends
    for _ in range(MAX_WALK):
        length = branches.lengths[here >> 1]
        within = length >= left[active]
        back[active[within]] = branches.at(here[within], left[active[within]])
        active, here, length = active[~within], here[~within], length[~within]
        if not len(active):
            break
        back[active] = places[here ^ 1]
        onward = state.partner[here ^ 1]
        left[active] -= length + state.gap_um[here ^ 1]
        ended = onward < 0
        tail[active[ended]] = here[ended] ^ 1
        going = ~ended & (left[active] > 0) & (onward != ends[active])
        active, here = active[going], onward[going]
    run = (places[ends] - back).astype(np.float64)
    length = np.sqrt(run[:, 0] * run[:, 0] + run[:, 1] * run[:, 1])
    unit = np.maximum(length, 1.0)
    count = 2 * len(branches)
    filled = _Directions(np.zeros(count), np.zeros(count), np.zeros(count), np.full(count, NONE))
    filled.x[ends], filled.y[ends] = run[:, 0] / unit, run[:, 1] / unit
    filled.base_um[ends], filled.tail[ends] = length, tail
    return filled


@dataclass(frozen=True, eq=False)
class _Sight:
    """How two ends lie to each other, (K,) each; lengths in micrometers.

    Attributes:
        gap: distance of the ends.
        ahead_one, ahead_other: how far the gap leads on in the direction of either end.
        aside_one, aside_other: how far it leads aside.
        bend: 1 - cosine of the angle between the lines: 0 straight on, 2 back.
        base_one, base_other: of the directions.
        sure_one, sure_other: how sure the directions are, 0 to 1.
        slack: by which the bend of short lines may be off.
        is_own: whether the two are the ends of one short chain.
        is_long: whether either line is longer than a base.
    """

    gap: FloatArray
    ahead_one: FloatArray
    ahead_other: FloatArray
    aside_one: FloatArray
    aside_other: FloatArray
    bend: FloatArray
    base_one: FloatArray
    base_other: FloatArray
    sure_one: FloatArray
    sure_other: FloatArray
    slack: FloatArray
    is_own: BoolArray
    is_long: BoolArray

    @property
    def aside(self) -> FloatArray:
        """Mean of how far the gap leads aside."""
        return (self.aside_one + self.aside_other) / 2


def _look(state: _State, pairs: _Pairs, known: _Directions, options: LinkOptions) -> _Sight:
    """Return how the ends of candidates lie to each other.

    All arithmetic is on single candidates, in a fixed order: the same in whatever company.
    """
    one, other = pairs.one, pairs.other
    jump = (state.branches.end_places[other] - state.branches.end_places[one]).astype(np.float64)
    x, y = jump.T
    (one_x, one_y), (other_x, other_y) = ((known.x[end], known.y[end]) for end in (one, other))
    bases = known.base_um[one], known.base_um[other]
    noise, sure = options.noise_m * UM, options.sure_m * UM
    return _Sight(
        gap=np.sqrt(x * x + y * y),
        ahead_one=one_x * x + one_y * y,
        ahead_other=-(other_x * x + other_y * y),
        aside_one=np.abs(one_x * y - one_y * x),
        aside_other=np.abs(other_x * y - other_y * x),
        bend=1 + (one_x * other_x + one_y * other_y),
        base_one=bases[0],
        base_other=bases[1],
        sure_one=np.minimum(bases[0] / sure, 1.0),
        sure_other=np.minimum(bases[1] / sure, 1.0),
        slack=noise / np.maximum(bases[0], noise) + noise / np.maximum(bases[1], noise),
        is_own=known.tail[one] == other,
        is_long=(known.tail[one] < 0) | (known.tail[other] < 0),
    )


def _is_jump(seen: _Sight, gap_um: int, options: LinkOptions) -> BoolArray:
    """Tell whether a gap may be crossed: each line points at the other, and it is not too long."""
    noise = options.noise_m * UM
    slope = math.tan(math.radians(options.max_turn_deg))
    limit = 1 - math.cos(math.radians(options.max_turn_deg))
    longer = np.maximum(seen.base_one, seen.base_other)
    good = (seen.gap <= gap_um) & ~seen.is_own & (seen.bend <= limit + seen.slack)
    good &= (seen.gap <= options.free_gap_m * UM) | (seen.gap <= longer) | seen.is_long
    for ahead, aside, base in (
        (seen.ahead_one, seen.aside_one, seen.base_one),
        (seen.ahead_other, seen.aside_other, seen.base_other),
    ):
        spread = noise * (1 + seen.gap / np.maximum(base, noise))
        good &= (ahead >= -noise) & (aside <= slope * np.maximum(ahead, 0.0) + spread)
    return good


def _jump_cost(seen: _Sight, gap_um: int, options: LinkOptions) -> FloatArray:
    """Add the gap as a share of the longest, and turns as shares of the sharpest."""
    sharp = 1 - math.cos(math.radians(options.max_turn_deg))
    gap = np.maximum(seen.gap, 1.0)
    sure = gap / (gap + options.noise_m * UM)  # the direction of a jump of no length says nothing
    turn_one = seen.sure_one * (1 - seen.ahead_one / gap)
    turn_other = seen.sure_other * (1 - seen.ahead_other / gap)
    bend = np.minimum(seen.sure_one, seen.sure_other) * seen.bend
    cost: FloatArray = seen.gap / gap_um + (sure * (turn_one + turn_other) + bend) / sharp
    return cost


def _mutual_best(pairs: _Pairs, cost: FloatArray, n_ends: int, tries: int) -> IntArray:
    """Return candidates that are the best of both their ends, in ``tries`` turns of choosing.

    Equal costs are decided by the numbers of the ends, which follow from their places.
    """
    order = np.lexsort((pairs.via, pairs.other, pairs.one, cost))
    taken = np.zeros(n_ends, bool)
    chosen = [np.empty(0, np.int64)]
    for _ in range(tries):
        one, other = pairs.one[order], pairs.other[order]
        place, none = np.arange(len(order)), len(order)
        best = np.full(n_ends, none)
        best[one[::-1]] = place[::-1]  # the last assignment stays, which is the best
        best_as_other = np.full(n_ends, none)
        best_as_other[other[::-1]] = place[::-1]
        best = np.minimum(best, best_as_other)
        mutual = (best[one] == place) & (best[other] == place)
        chosen.append(order[mutual])
        taken[one[mutual]] = taken[other[mutual]] = True
        order = order[~taken[one] & ~taken[other]]
    return np.concatenate(chosen)


def _near_pairs(places: IntArray, gap_um: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield pairs of points (K, 2) at most so far apart, strip by strip from west to east."""
    order = np.argsort(places[:, 0], kind="stable")
    x = places[order, 0]
    origin = places.min(axis=0) if len(places) else 0
    points = (places[order] - origin).astype(np.float64)
    for first in range(0, len(order), ENDS_AT_ONCE):
        last = min(first + ENDS_AT_ONCE, len(order))
        beyond = int(np.searchsorted(x, x[last - 1] + gap_um, side="right"))
        pairs = cKDTree(points[first:beyond]).query_pairs(gap_um, output_type="ndarray") + first
        own = pairs[pairs.min(axis=1) < last]
        yield order[own[:, 0]], order[own[:, 1]]


def _pairs_at_nodes(branches: BranchSet) -> _Pairs:
    """Return all pairs of ends that meet; those of one branch only where no other comes."""
    node = branches.nodes.ravel()
    order = np.argsort(node, kind="stable")
    sorted_ = node[order]
    one, other = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for step in range(1, int(branches.degrees.max(initial=1))):
        at = np.flatnonzero(sorted_[:-step] == sorted_[step:])
        one.append(order[at])
        other.append(order[at + step])
    pairs = _Pairs.of(np.concatenate(one), np.concatenate(other))
    loop = pairs.one >> 1 == pairs.other >> 1
    return pairs.take(np.flatnonzero(~loop | (branches.degrees[pairs.one] == 2)))


def _pairs_across(branches: BranchSet, crossing_um: int) -> _Pairs:
    """Return pairs of ends at the two nodes of a short branch on which two cracks may lie."""
    degree = branches.degrees.reshape(-1, 2)
    short = (branches.lengths <= crossing_um) & (degree >= 3).all(axis=1)
    short &= branches.nodes[:, 0] != branches.nodes[:, 1]
    via = np.flatnonzero(short)
    node = branches.nodes.ravel()
    order = np.argsort(node, kind="stable")
    begins = [np.searchsorted(node[order], branches.nodes[via, side]) for side in (0, 1)]
    widths = [degree[via, side] for side in (0, 1)]
    which, number = ramps(widths[0] * widths[1])
    first = order[begins[0][which] + number // widths[1][which]]
    second = order[begins[1][which] + number % widths[1][which]]
    others = (first >> 1 != via[which]) & (second >> 1 != via[which]) & (first >> 1 != second >> 1)
    pairs = _Pairs.of(first, second, via[which])
    return pairs.take(np.flatnonzero(others))


def _take_crossings_in(state: _State, pairs: _Pairs, cost: FloatArray) -> None:
    """Put each short branch into the best of the links that lead across it."""
    across = np.flatnonzero(pairs.via >= 0)
    order = across[np.lexsort((pairs.one[across], cost[across], pairs.via[across]))]
    best = order[np.diff(pairs.via[order], prepend=NONE) != 0]
    free = (state.partner[2 * pairs.via[best]] < 0) & (state.partner[2 * pairs.via[best] + 1] < 0)
    chosen = pairs.take(best[free])
    nodes = state.branches.nodes.ravel()
    straight = nodes[chosen.one] == nodes[2 * chosen.via]
    near = 2 * chosen.via + np.where(straight, 0, 1)
    state.join(chosen.one, near, 0)
    state.join(chosen.other, near ^ 1, 0)

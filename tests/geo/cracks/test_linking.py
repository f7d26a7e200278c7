"""Which branches become one crack, on drawn lines; and that only what is near decides it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo.cracks.branches import UM, BranchSet
from geo.cracks.chains import chain
from geo.cracks.linking import link
from geo.options import LinkOptions

OPTIONS = LinkOptions()


def line(*points):
    """A line in meters with a vertex every 2 cm or so."""
    points = np.array(points, float)
    parts = [
        np.linspace(a, b, max(2, int(np.hypot(*(b - a)) / 0.02)), endpoint=False)
        for a, b in pairwise(points)
    ]
    return np.concatenate([*parts, points[-1:]])


def free(lines):
    """Branches that meet nowhere."""
    return BranchSet.of_lines(lines, np.arange(2 * len(lines)).reshape(-1, 2))


def cracks(branches, options=OPTIONS):
    """Branches of each crack, as a set of frozen sets."""
    chains = chain(branches, link(branches, options))
    groups = [set() for _ in range(len(chains))]
    for number, owner in enumerate(chains.of_branch.tolist()):
        groups[owner].add(number)
    return {frozenset(group) for group in groups}


def test_a_crack_with_gaps_is_one_and_knows_how_much_was_not_seen():
    lines = [line((0, 0), (1, 0)), line((1.03, 0), (1.5, 0.01)), line((1.78, 0.02), (3, 0.05))]
    branches = free(lines)
    chains = chain(branches, link(branches, OPTIONS))
    assert len(chains) == 1
    assert chains.order.tolist() == [0, 1, 2]
    gaps = np.hypot(0.03, 0), np.hypot(0.28, 0.01)
    assert chains.gap_m[0] == pytest.approx(sum(gaps), abs=1e-5)
    seen = sum(np.hypot(*np.diff(one, axis=0).T).sum() for one in lines)
    assert chains.line_m(branches)[0] == pytest.approx(seen, abs=1e-4)
    assert chains.length_m(branches)[0] == pytest.approx(seen + sum(gaps), abs=1e-4)


def test_a_gap_longer_than_the_longest_is_not_crossed():
    assert len(cracks(free([line((0, 0), (1, 0)), line((1.46, 0), (2, 0))]))) == 2


def test_two_parallel_cracks_5_cm_apart_stay_two_whatever_their_gaps():
    upper = [line((0, 0.05), (0.9, 0.05)), line((1.0, 0.05), (2, 0.05))]
    lower = [line((0, 0), (0.95, 0)), line((1.05, 0), (2, 0))]
    assert cracks(free(upper + lower)) == {frozenset({0, 1}), frozenset({2, 3})}


def test_a_crack_that_turns_is_followed():
    angle = np.linspace(0, np.pi / 2, 60)
    arc = np.column_stack((0.6 * np.sin(angle), 0.6 - 0.6 * np.cos(angle)))
    assert len(cracks(free([arc[:25], arc[29:]]))) == 1


def test_a_sharp_corner_ends_a_crack():
    assert len(cracks(free([line((0, 0), (1, 0)), line((1.02, 0.02), (1.02, 1))]))) == 2


def test_the_straighter_pair_goes_on_through_a_t_junction():
    lines = [line((0, 0), (1, 0)), line((1, 0), (2, 0.1)), line((1, 0), (1.3, 1))]
    branches = BranchSet.of_lines(lines, np.array([(0, 1), (1, 2), (1, 3)]))
    assert cracks(branches) == {frozenset({0, 1}), frozenset({2})}


def test_two_cracks_cross_in_one_point():
    ends = [(-1, 0), (1, 0.1), (0.2, -1), (-0.1, 1)]
    lines = [line((0, 0), end) for end in ends]
    branches = BranchSet.of_lines(lines, np.array([(0, 1), (0, 2), (0, 3), (0, 4)]))
    assert cracks(branches) == {frozenset({0, 1}), frozenset({2, 3})}


def test_two_cracks_cross_though_the_skeleton_has_two_junctions():
    one, other = (0, 0), (0.03, 0)
    lines = [
        line((-1, 0.3), one),
        line((-1, -0.3), one),
        line(other, (1, 0.3)),
        line(other, (1, -0.3)),
        line(one, other),
    ]
    branches = BranchSet.of_lines(lines, np.array([(0, 4), (1, 4), (5, 2), (5, 3), (4, 5)]))
    found = cracks(branches)
    assert len(found) == 2
    assert all(({0, 3} <= group) != ({1, 2} <= group) for group in found)


def test_a_ring_with_a_gap_closes():
    angle = np.linspace(0.05, 2 * np.pi, 100)
    ring = np.column_stack((np.cos(angle), np.sin(angle)))
    branches = free([ring[:50], ring[49:]])
    chains = chain(branches, link(branches, OPTIONS))
    assert len(chains) == 1
    assert chains.gap_m[0] == pytest.approx(2 * np.sin(0.025), abs=1e-4)


def test_a_crumb_beside_a_crack_is_none_of_it():
    assert len(cracks(free([line((0, 0), (2, 0)), line((1, 0.03), (1.03, 0.06))]))) == 2


def scene(seed, count=120, size=12.0):
    """Winding cracks in pieces of all lengths, some of which meet in junctions."""
    rng = np.random.default_rng(seed)
    lines, nodes = [], []
    for _ in range(count):
        place, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        for _ in range(int(rng.integers(1, 5))):
            length = rng.uniform(0.02, 0.8)
            turns = heading + np.cumsum(rng.normal(0, 0.1, max(2, int(length / 0.02))))
            steps = length / len(turns) * np.column_stack((np.cos(turns), np.sin(turns)))
            points = np.vstack((place, place + np.cumsum(steps, axis=0)))
            start = nodes[-1][1] if nodes and rng.random() < 0.3 else 2 * len(nodes)
            if start != 2 * len(nodes):
                points += lines[-1][-1] - points[0]
            lines.append(points)
            nodes.append((start, 2 * len(nodes) + 1))
            heading = turns[-1] + rng.normal(0, 0.2)
            gap = rng.uniform(0.0, 0.25)
            place = points[-1] + gap * np.array([np.cos(heading), np.sin(heading)])
    return BranchSet.of_lines(lines, np.array(nodes))


def named(branches, links):
    """Links as pairs of the places of their ends: a name that no order is in."""
    places = branches.end_places
    ends = np.flatnonzero(links.partner >= 0)
    return {
        (*places[end].tolist(), *places[links.partner[end]].tolist(), links.gap_um[end])
        for end in ends.tolist()
    }


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_links_do_not_depend_on_order_and_direction_of_the_branches(seed):
    branches, rng = scene(seed), np.random.default_rng(seed)
    order = rng.permutation(len(branches))
    shuffled = branches.take(order, rng.random(len(branches)) < 0.5)
    whole = named(branches, link(branches, OPTIONS))
    assert len(whole) > 50
    assert named(shuffled, link(shuffled, OPTIONS)) == whole


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.floats(1.0, 7.0))
def test_blocks_with_the_halo_find_the_links_of_the_whole(seed, block_m):
    """Small gaps make the halo small against the scene, so that blocks miss most of it."""
    options = LinkOptions(gaps_m=(0.04, 0.12), base_m=0.1, tries=1)
    branches = scene(seed)
    whole = named(branches, link(branches, options))
    places, halo = branches.end_places, round(options.halo_m * UM)
    side, found, most = round(block_m * UM), set(), 0
    for corner in np.unique(places // side, axis=0) * side:
        inside = (branches.vertices >= corner - halo) & (branches.vertices < corner + side + halo)
        near = np.unique(branches.owner[inside.all(axis=1)])
        part = branches.take(near)
        own = (part.end_places >= corner) & (part.end_places < corner + side)
        links = link(part, options)
        links.partner[~own.all(axis=1)] = -1
        found |= named(part, links)
        most = max(most, len(near))
    assert found == whole
    assert most < len(branches) or block_m > 3


def test_a_link_is_decided_within_seven_meters():
    assert OPTIONS.halo_m < 7


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_anything_gives_hardly_anything(count):
    branches = free([line((0, 0), (1, 0))][:count]) if count else free([])
    chains = chain(branches, link(branches, OPTIONS))
    assert len(chains) == count
    assert chains.gap_m.tolist() == [0.0] * count

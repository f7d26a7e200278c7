"""Two drawn surveys: what is compared adds up, and comes out as it was drawn."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.compare import score
from benchmarks.compare_draw import second_epoch
from geo.compare.changes import compare
from geo.compare.maps import Segments, unite
from geo.compare.options import CompareOptions, RegistrationOptions
from geo.compare.registration import register
from geo.compare.report import _segment_table, summary
from geo.compare.segments import gather
from geo.compare.survey import Lines, Survey, sample_lines
from geo.errors import InputError

GROUND = shapely.box(-50, -50, 50, 50)


def survey(*lines, widths=None, networks=(), ground=GROUND):
    shapes = np.array([shapely.MultiLineString([line]) for line in lines], object)
    return Survey(
        crack_ids=np.array([f"c{n}" for n in range(len(lines))], object),
        cracks=Lines.of(shapes),
        width_mm=np.full(len(lines), 8.0) if widths is None else np.array(widths, float),
        network_ids=np.array([f"n{n}" for n in range(len(networks))], object),
        networks=np.array(networks, object),
        inspected=ground,
        gsd_m=0.005,
    )


STAR = [[(0, 0), (9, 1)], [(0, 3), (1, 12)], [(-8, -2), (-2, -9)], [(12, 3), (19, 9)]]
"""Lines of several directions, far apart."""


def kinds(result):
    lines = result.lines
    return {k: round(lines.meters(k), 2) for k in dict.fromkeys(lines.kind)}


def of_kind(result, kind):
    return np.flatnonzero(result.lines.kind == kind)


def test_a_survey_compared_with_itself_has_not_changed():
    one = survey(*STAR, networks=[shapely.box(20, 20, 22, 21)])
    result = compare(one, one, CompareOptions())
    assert set(result.lines.kind) == {"unchanged"}
    assert list(result.areas.kind) == ["unchanged"]
    assert np.abs(result.registration.shift_m).max() < 1e-6


@pytest.mark.parametrize(
    ("old", "new", "kind", "meters"),
    [
        ([(30, 0), (33, 0)], [(30, 0), (34, 0)], "grown", 1.0),
        ([(30, 0), (33, 0)], [(28.5, 0), (33, 0)], "grown", 1.5),
        ([(30, 0), (34, 0)], [(30, 0), (32, 0)], "shrunk", 2.0),
        (None, [(30, 0), (34, 0)], "new", 4.0),
        ([(30, 0), (34, 0)], None, "gone", 4.0),
        (None, [(30, 0), (30.2, 0)], "unsure", 0.2),
        ([(30, 0), (33, 0)], [(30, 0), (33.1, 0)], "unchanged", None),
    ],
)
def test_a_drawn_change_is_named_and_measured(old, new, kind, meters):
    before = survey(*STAR, *([old] if old else []))
    after = survey(*STAR, *([new] if new else []))
    result = compare(before, after, CompareOptions())
    assert set(result.lines.kind) <= {kind, "unchanged"}
    if meters is not None:
        assert result.lines.meters(kind) == pytest.approx(meters, abs=0.06)


def test_a_growth_names_the_crack_that_it_is_of():
    result = compare(
        survey(*STAR, [(30, 0), (33, 0)]), survey(*STAR, [(30, 0), (35, 0)]), CompareOptions()
    )
    (row,) = of_kind(result, "grown")
    assert (result.lines.old[row], result.lines.new[row]) == (4, 4)


def test_a_crack_grows_at_its_ends_and_without_a_gap():
    old = [(30, 0), (34, 0)]
    half_way = [(30, 0), (32, 0), (33, 1.5)]  # goes on along the old line, then leaves it
    in_line = [(34.15, 0), (36, 0)]
    result = compare(survey(*STAR, old), survey(*STAR, old, in_line), CompareOptions())
    assert set(kinds(result)) == {"unchanged", "new"}
    rest = [(32.02, 0), (34, 0)]
    result = compare(survey(*STAR, old), survey(*STAR, half_way, rest), CompareOptions())
    assert set(kinds(result)) == {"unchanged", "new"}
    assert kinds(result)["new"] == pytest.approx(np.hypot(1, 1.5), abs=0.15)


@pytest.mark.parametrize("end", [33.0, 33.02, 33.04, 33.07])
def test_growth_begins_where_the_old_crack_ended(end):
    result = compare(
        survey(*STAR, [(30, 0), (end, 0)]), survey(*STAR, [(30, 0), (34, 0)]), CompareOptions()
    )
    assert kinds(result)["grown"] == pytest.approx(34 - end, abs=0.01)


def test_two_ends_that_grew_by_less_than_one_can_show_are_a_growth_together():
    old, longer = [(30, 0), (33, 0)], [(29.86, 0), (33.14, 0)]
    moved = [(29.86, 0), (32.86, 0)]  # by as much at both ends
    result = compare(survey(*STAR, old), survey(*STAR, longer), CompareOptions())
    assert kinds(result)["grown"] == pytest.approx(0.28, abs=0.02)
    assert "grown" not in kinds(compare(survey(*STAR, old), survey(*STAR, moved), CompareOptions()))


def test_a_crack_that_grows_past_the_end_of_another_has_grown_all_the_way():
    hook = [(33.4, 0), (33.5, 0), (34.4, 2)]  # its first 10 cm are of the longer crack now
    result = compare(
        survey(*STAR, [(30, 0), (33, 0)], hook), survey(*STAR, [(30, 0), (34.5, 0)], hook[1:]),
        CompareOptions(),
    )  # fmt: skip
    assert kinds(result)["grown"] == pytest.approx(1.5, abs=0.05)


def test_a_new_crack_over_an_old_one_at_a_sharp_angle_is_new():
    crossing = [(30, -0.4), (36, 0.4)]
    result = compare(
        survey(*STAR, [(30, 0), (36, 0)]), survey(*STAR, [(30, 0), (36, 0)], crossing),
        CompareOptions(),
    )  # fmt: skip
    assert kinds(result)["new"] == pytest.approx(shapely.LineString(crossing).length, abs=0.01)
    assert "grown" not in kinds(result)


def test_widths_count_beyond_their_uncertainty_only():
    old = survey(*STAR, widths=[8, 8, 8, np.nan])
    new = survey(*STAR, widths=[12, 20, 1, 30])
    result = compare(old, new, CompareOptions())
    named = dict(zip(result.lines.old.tolist(), result.lines.kind, strict=True))
    sd = 2.0 * np.sqrt(2)
    assert named == {0: "unchanged", 1: "widened", 2: "unchanged", 3: "unchanged"}
    assert result.lines.width_sd_mm[result.lines.old == 1] == pytest.approx(sd)
    assert 12 - 8 < 3 * sd < 20 - 8


def test_what_one_survey_did_not_see_is_no_change():
    half = shapely.box(-50, -50, 26, 50)
    far = [(30, 0), (34, 0)]
    for old, new in (
        (survey(*STAR, far), survey(*STAR, ground=half)),
        (survey(*STAR, ground=half), survey(*STAR, far)),
    ):
        result = compare(old, new, CompareOptions())
        assert set(result.lines.kind) == {"unchanged", "not_inspected"}
        assert result.lines.meters("not_inspected") == pytest.approx(4.0)


def test_a_crack_that_became_a_network_is_neither_gone_nor_unseen():
    line, area = [(30, 0), (34, 0)], shapely.box(29, -1, 35, 1)
    result = compare(survey(*STAR, line), survey(*STAR, networks=[area]), CompareOptions())
    assert result.lines.meters("in_network") == pytest.approx(4.0)
    assert list(result.areas.kind) == ["new"]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [((2, 2), (3, 3), "grown"), ((3, 3), (2, 2), "shrunk"), ((2, 2), (2.02, 2), "unchanged"),
     (None, (2, 2), "new"), ((2, 2), None, "gone"), (None, (0.2, 0.2), "unsure")],
)  # fmt: skip
def test_networks_change_by_area(old, new, kind):
    areas = [[shapely.box(30, 0, 30 + s[0], s[1])] if s else [] for s in (old, new)]
    result = compare(
        survey(*STAR, networks=areas[0]), survey(*STAR, networks=areas[1]), CompareOptions()
    )
    assert list(result.areas.kind) == [kind]
    assert result.areas.before_m2[0] == pytest.approx(old[0] * old[1] if old else 0, abs=0.02)


@given(
    east=st.floats(-0.4, 0.4),
    north=st.floats(-0.25, 0.25),
    degrees=st.floats(-0.1, 0.1),
)
@settings(max_examples=15, deadline=None)
def test_a_shift_and_a_rotation_are_found_again(east, north, degrees):
    turn = np.radians(degrees)

    def moved(xy):
        return xy + [east, north] + turn * np.column_stack((-xy[:, 1], xy[:, 0]))

    new = survey(*STAR)
    old = replace(new, cracks=replace(new.cracks, points=moved(new.cracks.points)))
    options = RegistrationOptions()
    found = register(
        sample_lines(old.cracks, options.step_m), sample_lines(new.cracks, options.step_m), options
    )
    true = new.cracks.points
    back = moved(true) + found.shift_at(moved(true))
    assert np.abs(back - true).max() < 0.02


def test_surveys_too_far_apart_are_refused():
    new = survey(*STAR)
    old = replace(new, cracks=replace(new.cracks, points=new.cracks.points + np.array([0.6, 0])))
    with pytest.raises(InputError, match=r"0\.60 m apart.*more than 0\.5 m"):
        compare(old, new, CompareOptions())


def test_too_few_cracks_leave_the_survey_where_it_is():
    one = survey([(0, 0), (1, 0)])
    result = compare(one, survey([(0, 0.03), (1, 0.03)]), CompareOptions())
    assert set(result.registration.source) == {"none"}
    assert np.abs(result.registration.shift_m).max() < 1e-9


def test_surveys_without_common_ground_are_refused():
    with pytest.raises(InputError, match="no inspected ground in common"):
        compare(survey(*STAR), survey(*STAR, ground=shapely.box(90, 90, 99, 99)), CompareOptions())


@pytest.mark.parametrize("degrees", [0, 17, 34])
def test_the_side_that_two_blocks_share_is_no_border(degrees):
    west = shapely.Polygon([(0, 0), (10, 0), (10, 3), (8, 4), (10, 5), (10, 10), (0, 10)])
    east = shapely.Polygon([(10, 0), (20, 0), (20, 10), (10, 10), (10, 7), (12, 6.5), (10, 6)])
    here = shapely.affinity.rotate(shapely.MultiPolygon([west, east]), degrees, (0, 0))
    there = shapely.affinity.translate(here, 5e5, 5.8e6)
    seen = unite(np.array(shapely.get_parts(there)))
    assert seen.area == pytest.approx(200 - 2 - 1, abs=1e-3)
    holes = 2 + 2 * np.sqrt(5) + 1 + 2 * np.sqrt(4.25)
    assert shapely.length(seen) == pytest.approx(60 + holes, abs=1e-3)


def test_nothing_compared_with_nothing_is_empty():
    result = compare(survey(), survey(), CompareOptions())
    assert len(result.lines.kind) == len(result.areas.kind) == 0


def test_meters_before_and_after_add_up_to_the_surveys():
    drawn = second_epoch(7, street_m=120)
    lines = compare(drawn.old, drawn.new, CompareOptions()).lines
    for meters, own in ((lines.before_m, drawn.old), (lines.after_m, drawn.new)):
        gaps = 0.0
        for crack in np.concatenate(list(own.cracks.shapes())):
            parts = shapely.get_parts(crack)
            gaps += sum(
                np.hypot(*np.subtract(b.coords[0], a.coords[-1])) for a, b in pairwise(parts)
            )
        assert meters.sum() == pytest.approx(own.length_m + gaps, rel=1e-6)


def test_samples_of_a_line_add_up_to_its_length_and_gaps_follow_parts():
    line = shapely.MultiLineString([[(0, 0), (1.03, 0)], [(1.13, 0), (2, 0)]])
    samples = sample_lines(Lines.of(np.array([line, shapely.LineString()], object)), 0.1)
    assert samples.length_m.sum() == pytest.approx(line.length)
    assert samples.length_m.max() <= 0.1 + 1e-9
    assert samples.gap_m.sum() == pytest.approx(0.1)
    assert samples.gap_m[samples.part == 0][-1] == pytest.approx(0.1)


def test_a_stretch_lies_on_the_nearest_road_within_half_its_width_as_on_the_map():
    path, road = [(-40, 0), (40, 0)], [(-40, 6), (40, 6)]
    segments = Segments(
        ids=np.array(["path", "road"], object),
        names=np.array([None, None], object),
        lines=np.array([shapely.LineString(path), shapely.LineString(road)], object),
        width_m=np.array([3.0, 12.0]),
    )
    east = (-20, 20)
    lines = [[(x, y) for x in east] for y in (-5, -1, 1, 2, 8)]  # at 2 m the path is nearer
    found = gather(
        compare(survey(), survey(*lines, networks=[shapely.box(20, 2, 22, 2.4)]), CompareOptions()),
        segments,
    )
    assert found.after_m.tolist() == pytest.approx([80, 80])
    assert found.line_segment.tolist() == [-1, 0, 0, 1, 1]
    assert found.area_segment.tolist() == [1]
    assert found.network_after_m2[1] == pytest.approx(0.8)


def test_a_stretch_over_several_segments_is_shared_out_as_on_the_map():
    places = [shapely.LineString([(x, 0), (x + 10, 0)]) for x in (-10, 0, 10)]
    segments = Segments(
        ids=np.array(["1-000", "1-001", "1-002"], object),
        names=np.array([None] * 3, object),
        lines=np.array(places, object),
        width_m=np.full(3, 6.0),
    )
    crack = [(-4, 1), (18, 1)]
    network = shapely.box(2, -2, 14, -1.5)
    one, other = (survey(crack, widths=[mm], networks=[network]) for mm in (10.0, 30.0))
    found = gather(compare(one, other, CompareOptions()), segments)
    for meters in (found.before_m, found.after_m, found.meters["widened"]):
        assert meters.tolist() == pytest.approx([4, 10, 8], abs=0.5)
    assert found.width_change_mm.tolist() == pytest.approx([20] * 3)
    assert found.network_after_m2.tolist() == pytest.approx([0, 4, 2], abs=0.1)
    assert found.line_segment.tolist() == found.area_segment.tolist() == [1]


def test_a_drawn_street_comes_out_as_it_was_drawn():
    drawn = second_epoch(0, street_m=800)
    found = score(drawn, compare(drawn.old, drawn.new, CompareOptions()))
    assert found.right >= 0.90
    assert found.quiet >= 0.97
    assert abs(found.growth_bias) <= 0.2  # of some 40 m; see docs/compare.md for more of them


def test_a_report_says_how_many_segments_it_does_not_list():
    numbers = ("inspected_pct", "before_m", "after_m", "change_m", "change_sd_m")
    segments = [
        {"segment_id": f"1-{k:03d}", "name": "A"} | dict.fromkeys(numbers, -k) for k in range(12)
    ]
    assert _segment_table(segments[:10])[-1].startswith("| 1-009 ")
    assert _segment_table(segments)[-1] == "and 2 more, with less growth (layer change_segment)"


def nothing(change_m):
    """Figures of two surveys in which no crack was found, but for a length that came."""
    registration = {"shift_median_m": None, "neighborhoods": {}}
    survey = {"cracks": 0}
    values = {"old": survey, "new": survey, "before_m": 0.0, "after_m": 0.0, "meters": {"new": 0}}
    values |= {"growth_m": change_m, "growth_sd_m": 0.1, "registration": registration}
    return values | {"inspected_by_both_m2": 9.0}


def test_nothing_has_no_sign_of_less():
    told = summary(nothing(-0.04))
    assert (" 9 m2 " in told, " 9 m² " in summary(nothing(0.0), "m²")) == (True, True)
    assert told.endswith("less length lost: +0.0 m (standard deviation 0.1 m)")


def test_surveys_without_a_crack_are_told_without_an_empty_line():
    """The report makes a sentence of each line."""
    lines = summary(nothing(0.0)).splitlines()
    assert len(lines) == 3
    assert all(lines)

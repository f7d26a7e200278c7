"""Which window comes next, and the pace."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.label.answers import Answer
from jobs.label.order import MIN_GAP, Part, Standing, count_left, next_window
from jobs.page.pace import pace
from wpcrack.errors import ConfigError


def label_all(count, share, seed="", others=()):
    """Answer whatever comes next until nothing does; the choices in their order."""
    queue = [f"{k}.png" for k in range(count)]
    mine, choices = [], []
    while True:
        seen = {answer.file for answer in mine} | set(others)
        now = Standing(queue, seen, seen, mine, share, seed)
        choice = next_window(now)
        assert count_left(now) == 0 or choice is not None
        if choice is None:
            assert count_left(now) == 0
            return queue, choices
        choices.append((choice, count_left(now)))
        mine.append(Answer(choice.file, "road", float(len(mine)), choice.again))


@given(st.integers(1, 60), st.integers(0, 10).map(lambda k: k / 10))
def test_every_window_is_shown_once_and_the_share_a_second_time(count, share):
    queue, choices = label_all(count, share)
    assert [choice.file for choice, _ in choices if not choice.again] == queue
    again = [choice.file for choice, _ in choices if choice.again]
    assert len(again) == len(set(again)) == int(share * count + 1e-9)
    assert [rest for _, rest in choices] == list(range(len(choices), 0, -1))


def test_second_looks_are_strewn_in_and_far_from_the_first():
    _, choices = label_all(200, 0.1)
    files = [choice.file for choice, _ in choices]
    places = [k for k, (choice, _) in enumerate(choices) if choice.again]
    assert len([k for k in places if k < 200]) >= 15
    assert min(b - a for a, b in itertools.pairwise(places) if b < 200) >= 10
    for k in places:
        if k < 200:
            assert k - files.index(files[k]) > MIN_GAP


def test_the_sample_depends_on_the_seed_and_on_nothing_else():
    drawn = [
        [choice.file for choice, _ in label_all(100, 0.2, seed)[1] if choice.again]
        for seed in ("anna", "anna", "bob")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_second_person_is_shown_a_sample_of_the_first_ones_windows():
    queue = [f"{k}.png" for k in range(50)]
    _, choices = label_all(50, 0.1, "bob", others=queue)
    assert [choice.again for choice, _ in choices] == [True] * 5


@given(st.integers(0, 50), st.integers(1, 9))
def test_parts_hold_every_window_once(count, of):
    parts = [Part.parse(f"{number}/{of}").indices(count) for number in range(1, of + 1)]
    assert sorted(k for part in parts for k in part) == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["4/3", "0/3", "1", "1/0", "a/b", "-1/3", "1/3/5", ""])
def test_a_part_that_does_not_exist_is_refused(text):
    with pytest.raises(ConfigError, match=r"--part .* is not a part"):
        Part.parse(text)


def at(*times):
    return [float(time) for time in times]


def test_the_pace_is_that_of_the_last_answers_without_pauses():
    assert pace(at(0, 3, 6, 9, 12, 15)) == pytest.approx(20)
    assert pace(at(0, 3, 6, 9, 3600, 3603, 3606)) == pytest.approx(20)
    slow_then_fast = [30 * k for k in range(30)] + [870 + k for k in range(1, 21)]
    assert pace(at(*slow_then_fast)) == pytest.approx(60)
    assert pace(at(0, 3, 6)) is None
    assert pace(at(*[5] * 30)) is None

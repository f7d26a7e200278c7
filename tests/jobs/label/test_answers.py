"""The journal: nothing is lost, nothing is made up; and what journals add up to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.label.agreement import agreement, cohens_kappa, last_words, merge, second_looks
from jobs.label.answers import (
    Answer,
    find_journals,
    journal_name,
    open_journal,
    read_events,
)
from jobs.page.journal import Undo, replay
from wpcrack.errors import ConfigError, DataError

FILES = ("a.png", "b ü.png", "c.png")
answers = st.builds(
    Answer,
    st.sampled_from(FILES),
    st.sampled_from(["crack", "road", "unsure"]),
    st.integers(0, 2**31).map(float),
    st.booleans(),
)
events = st.lists(answers | st.builds(Undo, st.integers(0, 2**31).map(float)), max_size=12)


def said(file, verdict, **more):
    return Answer(file, verdict, 0.0, **more)


def write(root, *given, name=""):
    with open_journal(root, name) as journal:
        for event in given:
            journal.add(event)
        return journal.path


@given(events)
def test_a_journal_gives_back_what_was_added(tmp_path_factory, given):
    root = tmp_path_factory.mktemp("j")
    path = write(root, *given)
    assert read_events(path) == given
    with open_journal(root, "") as journal:
        assert journal.events == given


@given(st.lists(answers, min_size=1, max_size=4), st.integers(1, 400))
def test_a_kill_within_a_line_costs_that_answer_alone(tmp_path_factory, given, cut):
    root = tmp_path_factory.mktemp("j")
    path = write(root, *given)
    content = path.read_bytes()
    path.write_bytes(content[: -min(cut, len(content))])
    lines = path.read_bytes().split(b"\n")
    whole = len(lines) - 1 + lines[-1].endswith(b"}")
    assert read_events(path) == given[:whole]
    write(root, given[0])
    assert read_events(path) == [*given[:whole], given[0]]


def test_each_answer_is_on_disk_before_add_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda number: synced.append(number))
    with open_journal(tmp_path, "") as journal:
        before = len(synced)
        journal.add(said("a.png", "crack"))
        assert len(synced) == before + 1
        assert read_events(journal.path) == [said("a.png", "crack")]


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    def full(_number):
        raise OSError(28, "No space left on device")

    with open_journal(tmp_path, "") as journal:
        journal.add(said("a.png", "crack"))
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(DataError, match="No space left"):
            journal.add(said("b.png", "road"))
        assert journal.events == read_events(journal.path) == [said("a.png", "crack")]
        monkeypatch.undo()
        journal.add(said("b.png", "road"))
        assert len(read_events(journal.path)) == 2


@pytest.mark.parametrize("act", ["move the folder", "remove", "replace"])
def test_no_answer_is_written_where_nobody_reads_it(tmp_path, act):
    root = tmp_path / "windows"
    root.mkdir()
    with open_journal(root, "") as journal:
        journal.add(said("a.png", "crack"))
        if act == "move the folder":
            root.rename(tmp_path / "moved")
        elif act == "remove":
            journal.path.unlink()
        else:  # as editors and programs that keep folders alike do
            (root / "copy").write_bytes(journal.path.read_bytes())
            (root / "copy").replace(journal.path)
        with pytest.raises(DataError, match=r"labels\.jsonl was moved, removed or replaced"):
            journal.add(said("b.png", "road"))
        assert journal.events == [said("a.png", "crack")]


def test_a_line_in_the_middle_that_is_no_answer_is_named(tmp_path):
    path = write(tmp_path, said("a.png", "crack"))
    path.write_bytes(b'{"file": "a.png", "label": "pothole", "time": 1}\n' + path.read_bytes())
    with pytest.raises(DataError, match=r"labels\.jsonl line 1 is not an answer"):
        read_events(path)


def test_one_journal_has_one_writer(tmp_path):
    with (
        open_journal(tmp_path, "anna"),
        open_journal(tmp_path, "bob"),
        pytest.raises(DataError, match="--name"),
        open_journal(tmp_path, "anna"),
    ):
        pass


@pytest.mark.parametrize("name", ["a/b", "../x", ".", "-x", "a\nb", "a\\b", " "])
def test_a_name_that_is_no_part_of_a_file_name_is_refused(name):
    with pytest.raises(ConfigError, match="file name"):
        journal_name(name)


def test_journals_are_found_by_name_and_nothing_else_is(tmp_path):
    for name in (
        "labels-bob.jsonl",
        "labels.jsonl",
        "labels-é.jsonl",
        "labels-.jsonl",
        "labelsx.jsonl",
    ):
        (tmp_path / name).touch()
    assert list(find_journals(tmp_path)) == ["", "bob", "é"]


@given(events)
def test_undo_takes_back_the_last_answer_that_stands(given):
    standing = []
    for event in given:
        standing = [*standing, event] if isinstance(event, Answer) else standing[:-1]
    assert replay(given) == standing
    assert replay([*given, said("x", "road"), Undo(0)]) == standing


@given(st.dictionaries(st.sampled_from(["", "anna", "bob"]), events))
def test_the_merged_label_is_what_all_who_decided_agree_on(people):
    merged = merge(people)
    assert set(merged) == {e.file for own in people.values() for e in own if isinstance(e, Answer)}
    for file, label in merged.items():
        words = [last_words(replay(own)).get(file) for own in people.values()]
        decided = {word.verdict for word in words if word} - {"unsure"}
        assert label == (next(iter(decided)) if len(decided) == 1 else None)
    for order in itertools.permutations(people):
        assert merge({name: people[name] for name in order}) == merged


def test_a_label_from_before_comes_back_when_every_answer_is_taken_back():
    first = said("a.png", "crack", before="road")
    assert merge({"": [first]}) == {"a.png": "crack"}
    assert merge({"": [first, Undo(0)]}) == {"a.png": "road"}
    assert merge({"": [said("a.png", "crack"), Undo(0)]}) == {"a.png": None}


@given(st.lists(st.tuples(*[st.sampled_from(["crack", "road"])] * 2), min_size=1))
def test_kappa_is_that_of_the_table_of_counts(pairs):
    n = len(pairs)
    table = {cell: pairs.count(cell) / n for cell in itertools.product(["crack", "road"], repeat=2)}
    observed = table["crack", "crack"] + table["road", "road"]
    first = table["crack", "crack"] + table["crack", "road"]
    second = table["crack", "crack"] + table["road", "crack"]
    chance = first * second + (1 - first) * (1 - second)
    kappa = cohens_kappa(pairs)
    if kappa is None:
        assert len(set(pairs)) == 1
        assert chance == pytest.approx(1)
    else:
        assert kappa == pytest.approx((observed - chance) / (1 - chance), abs=1e-9)


def test_kappa_of_a_textbook():  # 20 yes yes, 5 yes no, 10 no yes, 15 no no
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohens_kappa(pairs) == pytest.approx(0.4)
    assert cohens_kappa([]) is None


def test_a_second_look_is_compared_with_the_answer_that_stood_then():
    own = [
        said("a", "crack"), said("b", "road"), said("b", "crack"), said("a", "road", again=True),
        said("b", "crack", again=True), said("c", "road", again=True),
    ]  # fmt: skip
    pairs = [(pair.file, pair.first, pair.second, pair.settled) for pair in second_looks(own)]
    assert pairs == [("a", "crack", "road", False), ("b", "crack", "crack", False)]
    settled = second_looks([*own, said("a", "crack")])
    assert settled[0].differs
    assert settled[0].settled


def test_agreement_counts_pairs_of_people_and_of_passes_and_leaves_the_unsure_out():
    people = {
        "anna": [said("a", "crack"), said("b", "road"), said("c", "unsure"), said("d", "crack")],
        "bob": [said("a", "road"), said("b", "road"), said("c", "road")],
        "eve": [said("d", "road"), said("d", "road", again=True)],
    }
    found = agreement(people)
    assert (found.pairs, found.same, found.unsure) == (4, 2, 1)
    assert found.open == ("a", "d")
    assert "2 of 4 second answers the same" in found.text()
    assert agreement({}).kappa is None

"""A folder that is labeled: manifest, several people, and what the page is told."""

from __future__ import annotations

import csv
import itertools
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from jobs.label.order import Part
from jobs.label.session import Who, open_session
from jobs.label.table import read_table
from wpcrack.data.images import write_png
from wpcrack.data.manifest import COLUMNS, read_manifest
from wpcrack.data.read import read_image_level
from wpcrack.errors import ConfigError, DataError


def rewrite(root, change, delimiter=","):
    """Save the manifest as a spreadsheet would, after a change of its rows."""
    with (root / "manifest.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = [change(k, row) for k, row in enumerate(csv.DictReader(file))]
    with (root / "manifest.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def answer_all(session, verdict_of):
    count = 0
    while views := session.choices():
        session.answer(views[0].index, verdict_of(views[0]), again=views[0].again)
        count += 1
    return count


def test_what_is_answered_is_what_a_training_reads(folder, labels_of):
    rewrite(folder, lambda _, row: {name: row[name] for name in COLUMNS})
    verdicts = {0: "crack", 1: "unsure", 2: "road", 6: "crack"}
    with open_session(folder, Who()) as session:
        assert answer_all(session, lambda view: verdicts.get(view.index, "road")) == 12
        assert (session.progress().crack, session.progress().road) == (2, 9)
    items = read_image_level(folder).items
    assert {item.path.name: item.has_crack for item in items} == {
        file: label == "crack" for file, label in labels_of(folder).items()
    }
    assert len(items) == 11


@pytest.mark.parametrize("extra", [{"comment": "naß"}, {"": ""}])
def test_every_other_cell_the_delimiter_and_the_mark_are_kept(folder, extra):
    rewrite(folder, lambda k, row: row | {"x": f"{k},5"} | extra, delimiter=";")
    before = read_table(folder)
    with open_session(folder, Who()) as session:
        session.answer(3, "crack")
    after = read_table(folder)
    place = before.columns.index("label")
    assert after.delimiter == ";"
    assert after.cells[3][place] == "crack"
    assert (folder / "manifest.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert [row.file for row in read_manifest(folder / "manifest.csv")] == [
        window.file for window in after.windows
    ]
    for old, new in zip(before.cells, after.cells, strict=True):
        assert (*old[:place], *old[place + 1 :]) == (*new[:place], *new[place + 1 :])


def test_labeling_goes_on_where_it_stopped_even_without_a_manifest_written(folder, labels_of):
    untouched = (folder / "manifest.csv").read_bytes()
    with open_session(folder, Who()) as session:
        session.answer(0, "crack")
    (folder / "manifest.csv").write_bytes(untouched)  # as after a kill
    with open_session(folder, Who()) as session:
        assert [view.index for view in session.choices()] == [1, 2, 3, 4]
        assert labels_of(folder) == {"a_r100_c80.png": "crack"}


def test_labels_by_hand_are_kept_and_come_back_after_an_undo(folder, labels_of):
    rewrite(folder, lambda k, row: row | {"label": "Road" if k == 1 else ""})
    with open_session(folder, Who()) as session:
        assert [view.index for view in session.choices()][:2] == [0, 2]
        session.answer(1, "crack")
        session.write_manifest()
        assert list(labels_of(folder).values()) == ["crack"]
    with open_session(folder, Who()) as session:  # the manifest's label is now one of ours
        assert session.undo() == 1
    assert list(labels_of(folder).values()) == ["road"]


def test_answers_on_windows_that_left_the_manifest_neither_count_nor_are_undone(folder):
    with open_session(folder, Who("anna")) as anna, open_session(folder, Who("bob")) as bob:
        bob.answer(1, "road")
        anna.answer(0, "crack")
        anna.answer(1, "crack")
    lines = (folder / "manifest.csv").read_text().splitlines(keepends=True)
    (folder / "manifest.csv").write_text("".join(lines[:2] + lines[3:]))
    with open_session(folder, Who("anna")) as anna:
        assert anna.undo() is None
        assert anna.balance() == {"crack": 1, "road": 0}
        assert anna.agreement().pairs == 0
    (folder / "manifest.csv").write_text("".join(lines))
    with open_session(folder, Who("anna")) as anna:
        assert anna.agreement().open == ("a_r100_c230.png",)
        assert anna.undo() == 1


def test_a_clock_that_is_set_back_does_not_turn_answers_around(folder, labels_of, monkeypatch):
    hours = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 2e9 - 3600 * next(hours))
    for verdict in ("crack", "road"):
        with open_session(folder, Who()) as session:
            session.answer(0, verdict)
            session.answer(1, "crack")
            assert session.undo() == 1
    assert labels_of(folder) == {"a_r100_c80.png": "road"}


def test_people_with_parts_share_a_folder_and_the_manifest_holds_all(folder, labels_of):
    parts = [Who(name, Part(k, 3)) for k, name in enumerate(("anna", "bob", "eve"), start=1)]
    with (
        open_session(folder, parts[0]) as anna,
        open_session(folder, parts[1]) as bob,
        open_session(folder, parts[2]) as eve,
    ):
        for session in (anna, bob, eve):
            assert answer_all(session, lambda view: "crack" if view.index < 6 else "road") == 4
    assert sorted(labels_of(folder).values()) == ["crack"] * 6 + ["road"] * 6


def test_people_without_parts_are_not_shown_what_the_other_has_answered(folder):
    with open_session(folder, Who("anna")) as anna, open_session(folder, Who("bob")) as bob:
        anna.answer(0, "crack")
        assert bob.choices()[0].index == 1


def test_a_dispute_stays_unlabeled_and_is_reported(folder, labels_of):
    with open_session(folder, Who("anna")) as anna:
        answer_all(anna, lambda _: "road")
    with open_session(folder, Who("bob", again=0.5)) as bob:
        assert all(view.again and view.verdict is None for view in bob.choices()[:1])
        assert answer_all(bob, lambda view: "crack" if view.index < 6 else "road") == 6
        found = bob.agreement()
        assert found.pairs == 6
        assert found.same == 6 - len(found.open)
        assert found.open
        assert found.kappa == pytest.approx(0)  # anna said the same throughout
    assert not set(found.open) & set(labels_of(folder))
    assert len(labels_of(folder)) == 12 - len(found.open)


def test_the_guess_is_told_only_after_ones_own_answer(folder):
    with open_session(folder, Who()) as session:
        assert all(view.probability is None for view in session.choices())
        assert session.look(0).probability is None
        session.answer(0, "road")
        assert session.look(0).probability == 0.9
        assert session.last().probability == 0.9
        session.undo()
        assert session.look(0).probability is None
        assert session.last() is None


def test_surroundings_lie_where_their_name_says_and_neighbors_where_they_were_cut(folder):
    def closer(_, row):
        return row | {"col": str(int(row["col"]) - 80) if row["source"] == "b" else row["col"]}

    rewrite(folder, closer)
    with open_session(folder, Who()) as session:
        (around,) = session.look(0).around
        assert (around.kind, around.row, around.col, around.height) == (
            "surroundings",
            -64,
            -64,
            192,
        )
        assert session.look(6).around == ()  # 150 px apart is beyond twice the side
    rewrite(folder, lambda k, row: row | {"col": str(64 * (k % 3)), "row": "0", "surroundings": ""})
    with open_session(folder, Who()) as session:
        left = {(picture.kind, picture.row, picture.col) for picture in session.look(7).around}
    assert {("window", 0, -64), ("window", 0, 64)} <= left


def test_only_pictures_of_the_folder_are_shown(folder, tmp_path):
    write_png(tmp_path / "outside.png", np.zeros((8, 8), np.uint8))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "text.txt").write_text("secret")
    names = ["../outside.png", str(tmp_path / "outside.png"), "link.png", "linked/outside.png"]
    names += ["text.txt", "manifest.csv", "gone.png", "a\0.png"]
    rewrite(folder, lambda k, row: row | {"surroundings": names[k] if k < len(names) else ""})
    with open_session(folder, Who()) as session:
        assert {session.path(k, "surroundings") for k in range(len(names))} == {None}
        assert session.path(0, "window") is not None
    files = [name for name in names[:7] if not name.startswith("/")]
    rewrite(folder, lambda k, row: row | {"file": files[k] if k < 6 else row["file"]})
    with open_session(folder, Who()) as session:
        assert set(session.left_out) == set(files)
        assert len(session.queue) == 6


def test_a_damaged_picture_can_be_answered_unsure(folder):
    rewrite(folder, lambda _, row: row | {"height": "", "width": ""})
    (folder / "a_r100_c80.png").write_bytes(b"no picture")
    with open_session(folder, Who()) as session:
        assert (session.choices()[0].height, session.choices()[1].height) == (1, 64)
        session.answer(0, "unsure")
        assert session.choices()[0].index == 1


def test_wrong_folders_are_named_in_one_sentence(folder, tmp_path, monkeypatch):
    def refusal(root, error=DataError, **who):
        with pytest.raises(error) as caught, open_session(root, Who(**who)):
            pass
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "is not a folder" in refusal(tmp_path / "nothing")
    assert "has no manifest.csv" in refusal(tmp_path)
    assert "part of a file name" in refusal(folder, ConfigError, name="a/b")
    with pytest.raises(ConfigError, match="not a share"):
        Who(again=1.5)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for path in copy.glob("*.png"):
        path.unlink()
    assert "none of the 12 windows" in refusal(copy)
    header = (folder / "manifest.csv").read_text().partition("\n")[0]
    (copy / "manifest.csv").write_text(header + "\n")
    assert "lists no window" in refusal(copy)
    (copy / "manifest.csv").write_text("file,label\na.png,pothole\n")
    assert "label is 'pothole'; use crack or road" in refusal(copy)
    (copy / "manifest.csv").write_text("file,probability\na.png,7\n")
    assert "probability is '7'" in refusal(copy)
    (copy / "manifest.csv").write_text(f"file,label\n{copy}/a.png,\n")
    assert "give its path relative to the manifest" in refusal(copy)
    (copy / "manifest.csv").write_text("file,split\na.png,test\n")
    assert "split is 'test'; use train or val" in refusal(copy)
    (copy / "manifest.csv").write_text("file\na.png\na.png\n")
    assert "lists files twice" in refusal(copy)
    (copy / "manifest.csv").write_text("file,Label\na.png,crack\n")
    assert "no column label, but one named 'Label'" in refusal(copy)
    (copy / "manifest.csv").write_text("file,row\na.png," + "9" * 5000 + "\n")
    assert "use a whole number of pixels" in refusal(copy)
    (copy / "manifest.csv").write_text("file\n" + "a" * 200_000 + "\n")
    assert "is not CSV" in refusal(copy)

    def denied(_fresh, _path):
        raise PermissionError(13, "Permission denied")

    rewrite(folder, lambda _, row: {"file": row["file"]})  # lacks the column label: is rewritten
    monkeypatch.setattr("os.replace", denied)
    assert "manifest.csv cannot be written (Permission denied)" in refusal(folder)
    (folder / "labels.jsonl").unlink()
    Path(folder / "labels.jsonl").mkdir()
    assert "labels.jsonl cannot be written" in refusal(folder)

"""Reading image-level sets: manifests, label folders, hand-filled tables, and their defects."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wpcrack.data.manifest import Row, origin, read_manifest, window_name, write_manifest
from wpcrack.data.read import read_image_level
from wpcrack.errors import DataError


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Ten sources with a crack window and a road window each; the last two are held out."""
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    rows = []
    for k, label in [(k, label) for label in ("crack", "road") for k in range(10)]:
        col = 0 if label == "crack" else 64
        file = f"{label}/{window_name(f'p{k}', 32, col)}"
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(root / file)
        rows.append(Row(file, label, f"p{k}", 32, col, 64, 64, "val" if k > 7 else "train"))
    write_manifest(root / "manifest.csv", rows)
    return root


def edit(root: Path, change: dict[str, str] | None = None, drop: tuple[str, ...] = ()) -> None:
    """Rewrite manifest.csv: set cells of every line, drop columns."""
    with (root / "manifest.csv").open() as file:
        rows = [row | (change or {}) for row in csv.DictReader(file)]
    rows = [{k: v for k, v in row.items() if k not in drop} for row in rows]
    with (root / "manifest.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


@given(st.text("ab_r1c", min_size=1), st.integers(0, 9999), st.integers(0, 9999))
def test_window_names_round_trip(source: str, row: int, col: int) -> None:
    assert origin(Path(window_name(source, row, col)).stem) == (source, row, col)


def test_items_carry_what_the_manifest_says(built: Path) -> None:
    data = read_image_level(built)
    assert len(data.train) == 16
    assert {i.source for i in data.val} == {"p8", "p9"}
    first = data.items[0]
    assert first.path == built / "crack" / "p0_r32_c0.png"
    assert (first.has_crack, first.row, first.col, first.height) == (True, 32, 0, 64)
    assert [i.path for i in data.items] == sorted(i.path for i in data.items)


def test_own_label_folders_are_grouped_by_stem_before_the_corner(built: Path) -> None:
    by_manifest = read_image_level(built, seed=3)
    (built / "manifest.csv").unlink()
    by_folder = read_image_level(built, val_fraction=0.3, seed=3)
    facts = [(i.path, i.has_crack, i.source, i.row, i.col, i.height) for i in by_folder.items]
    assert facts == [
        (i.path, i.has_crack, i.source, i.row, i.col, i.height) for i in by_manifest.items
    ]
    assert len({i.source for i in by_folder.val}) == 3
    assert {i.source for i in by_folder.val}.isdisjoint({i.source for i in by_folder.train})


def test_a_group_that_a_given_split_overrules_is_told(built: Path) -> None:
    (warning,) = set(read_image_level(built, group="^p").warnings) - set(
        read_image_level(built).warnings
    )
    assert "so the group '^p' changes nothing" in warning
    edit(built, drop=("split",))
    assert not any("'^p'" in text for text in read_image_level(built, group="^p[0-9]").warnings)


def test_label_column_filled_by_hand_is_accepted(built: Path) -> None:
    before = read_image_level(built)
    text = (built / "manifest.csv").read_text().replace(",source,", ",tile,")
    text = text.replace(",crack,", ", Crack,").replace(",", ";")
    (built / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_image_level(built).items == before.items


def test_items_without_a_label_are_left_out_with_a_warning(built: Path) -> None:
    before = read_image_level(built)
    text = (built / "manifest.csv").read_text().split("\n")
    text[1] = text[1].replace(",crack,", ",,")
    (built / "manifest.csv").write_text("\n".join(text))
    after = read_image_level(built)
    assert len(after.items) == len(before.items) - 1
    assert any("1 files of" in warning for warning in after.warnings)


def test_empty_label_column_gives_way_to_sorted_folders_or_says_what_to_do(built: Path) -> None:
    before = {(i.path, i.has_crack) for i in read_image_level(built).items}
    edit(built, {"label": ""})
    assert {(i.path, i.has_crack) for i in read_image_level(built).items} == before
    for label in ("crack", "road"):
        for path in (built / label).iterdir():
            path.rename(built / path.name)
        (built / label).rmdir()
    with pytest.raises(DataError, match=r"label column of .* is empty; fill in crack or road"):
        read_image_level(built)


def test_foreign_columns_and_the_empty_cells_of_a_spreadsheet_are_passed_over(built: Path) -> None:
    expected = read_image_level(built)
    path = built / "manifest.csv"
    header, *lines = path.read_text().replace(",", ";").splitlines()
    lines = [f"looks wet;{line};;;;" for line in (*lines, ";" * 7)]
    lines[-1] = lines[-1].removeprefix("looks wet")
    path.write_text("\r\n".join([f"comment;{header};;", *lines]))
    assert read_image_level(built) == expected


def test_a_word_of_its_own_is_no_misspelt_column(built: Path) -> None:
    edit(built, drop=("height", "width"))
    path = built / "manifest.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{header},weight", *(f"{line},1" for line in lines)]))
    assert len(read_image_level(built).items) == 20


def test_images_beside_the_manifest_are_not_skipped_silently(built: Path) -> None:
    shutil.copy(next((built / "crack").iterdir()), built / "crack" / "mine.png")
    assert any("mine.png" in warning for warning in read_image_level(built).warnings)


def test_manifest_without_split_column_is_split_by_source(built: Path) -> None:
    edit(built, drop=("split", "height", "width"))
    data = read_image_level(built, val_fraction=0.4)
    assert len({i.source for i in data.val}) == 4
    assert {(i.height, i.width) for i in data.items} == {(64, 64)}


def test_paths_that_say_the_same_place_are_the_same_file(built: Path) -> None:
    expected = read_image_level(built)
    path = built / "manifest.csv"
    path.write_text(path.read_text().replace("\ncrack/p", "\n./crack//p"))
    data = read_image_level(built)
    assert data == expected
    assert not any("not in" in warning for warning in data.warnings)
    path.write_text(path.read_text() + path.read_text().splitlines()[1].replace("//", "/") + "\n")
    with pytest.raises(DataError, match="lists files twice"):
        read_image_level(built)


def test_files_beside_the_folder_of_the_set_are_read_and_keep_their_side(built: Path) -> None:
    inner = built / "set"
    inner.mkdir()
    text = (built / "manifest.csv").read_text()
    text = text.replace("\ncrack/", "\n../crack/").replace("\nroad/", "\n../road/")
    (inner / "manifest.csv").write_text(text)
    data = read_image_level(inner)
    assert len(data.items) == 20
    assert data.sides["../crack/p0_r32_c0.png"] == "train"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("file,label,", "path,label,", "no column file; .*, and names col, height, label, path"),
        ("file,label,", "file,Label,", "no column label, but one named 'Label'; rename it to"),
        (",split\n", ",spilt\n", "no column split, but one named 'spilt'; rename it to split"),
        (",width,split", ",split,split", "has two columns split; remove one"),
        (",train\n", ",train,,seen\n", "line 2 has more cells than the header has columns"),
        (",crack,", ",pothole,", "line 2: label is 'pothole'; use crack or road"),
        (",train\n", ",test\n", "split is 'test'; use train or val"),
        ("crack/p", "crack/x", "lists .* files that do not exist: crack/x"),
        (
            "\ncrack/p",
            "\n/sets/crack/p",
            "line 2: file is '/sets/crack/p.*relative to the manifest",
        ),
        ("\ncrack/p", "\nC:\\sets\\p", "line 2: file is 'C:/sets/p.*relative to the manifest"),
        (",64,64,", ",64,wide,", "line 2: width is 'wide'; use a whole number"),
    ],
)
def test_defects_of_a_manifest_are_named(built: Path, old: str, new: str, sentence: str) -> None:
    path = built / "manifest.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=sentence):
        read_image_level(built)


def test_a_manifest_that_is_none_is_called_so(tmp_path: Path) -> None:
    """Its path was told twice, with the advice to save it as CSV."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match=r"is not a file; give a manifest\.csv"):
            read_manifest(path)


def test_manifest_with_repeated_files_torn_sources_or_nothing_is_refused(built: Path) -> None:
    path = built / "manifest.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1]]))
    with pytest.raises(DataError, match="lists files twice"):
        read_image_level(built)
    swapped = lines[1].replace(",train", ",?").replace(",val", ",train").replace(",?", ",val")
    path.write_text("".join([lines[0], swapped, *lines[2:]]))
    with pytest.raises(DataError, match="spreads sources over train and val"):
        read_image_level(built)
    path.write_text(lines[0])
    with pytest.raises(DataError, match="lists no file"):
        read_image_level(built)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="save it as CSV in UTF-8"):
        read_image_level(built)


def test_folders_that_are_no_set_say_what_is_missing(built: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        read_image_level(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"neither manifest\.csv nor crack/ and road/"):
        read_image_level(tmp_path / "empty")
    (built / "manifest.csv").unlink()
    shutil.rmtree(built / "road")
    with pytest.raises(DataError, match="nor road/"):
        read_image_level(built)
    (built / "road").mkdir()
    with pytest.raises(DataError, match="road holds no image"):
        read_image_level(built)
    (built / "road" / "bad.png").write_bytes(b"not an image")
    (built / "road" / "bad2.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"bad\.png cannot be read as an image"):
        read_image_level(built)


def test_split_without_a_class_is_refused(built: Path) -> None:
    edit(built, {"split": "train"})
    with pytest.raises(DataError, match="val split has no crack item; give frames of its manifest"):
        read_image_level(built)
    edit(built, {"split": "", "label": "crack"})
    with pytest.raises(DataError, match="has no road item; label pictures of both classes"):
        read_image_level(built)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.png,crack," + "9" * 5000, "row is '999"),
        ("x" * 300 + ".png,crack,0", "no disk can hold"),
        ("a\0.png,crack,0", "not CSV|no disk can hold"),
        ("a.png," + "y" * 200_000 + ",0", "not CSV"),
    ],
    ids=["digits", "name", "nul", "field"],
)
def test_a_manifest_with_monstrous_cells_is_refused_in_a_sentence(tmp_path, line, words):
    from wpcrack.data.manifest import read_manifest

    (tmp_path / "manifest.csv").write_text(f"file,label,row\n{line}\n")
    with pytest.raises(DataError, match=words) as caught:
        read_manifest(tmp_path / "manifest.csv")
    assert len(str(caught.value)) < 500

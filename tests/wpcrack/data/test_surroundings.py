"""Windows keep what lies around them, and it is found again."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from wpcrack.data.build import BuildOptions, build_image_level
from wpcrack.data.images import read_rgb, write_png
from wpcrack.data.manifest import Row, read_surroundings
from wpcrack.data.read import read_image_level
from wpcrack.data.surroundings import Surroundings, cut_surroundings, keep_surroundings

RNG = np.random.default_rng(0)


def test_a_window_lies_in_the_middle_of_its_surroundings() -> None:
    image = RNG.integers(0, 256, (100, 140, 3), np.uint8)
    seen = cut_surroundings(image, 32, 48, (32, 40))
    assert seen.shape == (64, 80, 3)
    assert np.array_equal(seen, image[16:80, 28:108])
    place = Surroundings(Path("x.jpg")).find((64, 80), (32, 40))
    assert place is not None
    assert np.array_equal(seen[place], image[32:64, 48:88])


def test_beyond_the_edge_of_an_image_it_is_mirrored() -> None:
    image = RNG.integers(0, 256, (40, 44, 3), np.uint8)
    seen = cut_surroundings(image, 0, 20, (16, 24))
    expected = np.pad(image, ((8, 8), (12, 12), (0, 0)), mode="reflect")[0:32, 20:68]
    assert np.array_equal(seen, expected)
    small = cut_surroundings(image[:1, :3], 0, 0, (1, 3))  # a margin of one line
    assert np.array_equal(small, np.pad(image[:1, :3], ((0, 0), (1, 1), (0, 0)), mode="reflect"))


@pytest.mark.parametrize(
    ("name", "row", "col", "found"),
    [
        ("around/a_around.jpg", 8, 8, (slice(8, 24), slice(16, 32))),
        ("around/a_r60_c40.jpg", 64, 48, (slice(4, 20), slice(8, 24))),
        ("around/a_r65_c40.jpg", 64, 48, None),
        ("around/a_r60_c0.jpg", 64, 48, None),
    ],
)
def test_the_corner_in_its_name_says_where_the_window_lies(
    name: str, row: int, col: int, found: object
) -> None:
    assert Surroundings.of(Path(name), row, col).find((32, 48), (16, 16)) == found


def test_roads_and_whole_images_keep_none(tmp_path: Path) -> None:
    image = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    rows = [
        Row("road/a_r0_c0.png", "road", "a", 0, 0, 32, 32, "train"),
        Row("crack/b_r0_c0.png", "crack", "b", 0, 0, 64, 64, "train"),
        Row("crack/c_r16_c16.png", "crack", "c", 16, 16, 32, 32, "train"),
    ]
    for row in rows:
        keep_surroundings(tmp_path, row, image)
    assert [path.name for path in (tmp_path / "around").iterdir()] == ["c_r16_c16_around.jpg"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs with a dark crack in their left half."""
    root = tmp_path_factory.mktemp("pictures")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for k in range(4):
        image = RNG.integers(120, 150, (160, 320, 3), np.uint8)
        mask = np.zeros((160, 320), np.uint8)
        mask[:, 60:64] = 255
        image[mask > 0] = 30
        write_png(root / "images" / f"place{k}x.png", image)
        write_png(root / "masks" / f"place{k}x.png", mask)
    return root


def build(pictures: Path, out: Path) -> Path:
    options = BuildOptions(window=64, val=0.5)
    build_image_level(pictures / "images", pictures / "masks", out, options=options)
    return out


def test_a_set_keeps_what_lies_around_its_crack_windows(pictures: Path, tmp_path: Path) -> None:
    root = build(pictures, tmp_path / "set")
    items = read_image_level(root).items
    assert {item.has_crack for item in items} == {True, False}
    for item in items:
        if not item.has_crack:
            assert item.surroundings is None
            continue
        assert item.surroundings is not None
        seen = read_rgb(item.surroundings.path)
        assert seen.shape == (128, 128, 3)
        place = item.surroundings.find((128, 128), (64, 64))
        assert place is not None
        assert np.abs(seen[place].astype(int) - read_rgb(item.path)).mean() < 8, "JPEG"
    build(pictures, root)  # its own files do not keep it from being built anew


def test_a_set_without_that_folder_has_none(pictures: Path, tmp_path: Path) -> None:
    root = build(pictures, tmp_path / "set")
    shutil.rmtree(root / "around")
    data = read_image_level(root)
    assert all(item.surroundings is None for item in data.items)
    assert not any("surroundings" in text for text in data.warnings)


def test_the_manifest_may_name_them_and_lost_ones_are_warned_of(
    pictures: Path, tmp_path: Path
) -> None:
    root = build(pictures, tmp_path / "set")
    path = root / "manifest.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first, second, *_ = [row for row in rows if row["label"] == "crack"]
    first["surroundings"], second["surroundings"] = "wide\\1.jpg", "wide/2.jpg"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]] if "surroundings" in rows[0] else [*first])
        writer.writeheader()
        writer.writerows(rows)
    (root / "wide").mkdir()
    shutil.copy(next((root / "around").iterdir()), root / "wide" / "1.jpg")
    assert read_surroundings(path) == {
        first["file"]: "wide/1.jpg",
        second["file"]: "wide/2.jpg",
    }
    data = read_image_level(root)
    found = {item.path.relative_to(root).as_posix(): item.surroundings for item in data.items}
    assert found[first["file"]] == Surroundings(root / "wide" / "1.jpg")
    assert found[second["file"]] is None
    assert any(f"surroundings of 1 windows of {root}" in text for text in data.warnings)

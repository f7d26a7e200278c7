"""Pictures of one place are one frame: by name, by equal pixels, by contents that overlap."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from wpcrack.data.frames import Content, find_frames
from wpcrack.data.images import read_rgb
from wpcrack.data.read import read_image_level

SIDE = 192


def ground(seed: int, side: int = 640) -> NDArray[np.uint8]:
    """Pavement-like texture, (side, side, 3)."""
    rng = np.random.default_rng(seed)
    coarse = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), 2)
    gray = 128 + 160 * coarse + rng.normal(0, 6, (side, side))
    return np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


GROUND = ground(0)


def cut(row: int, col: int, *, noise: int = 0) -> NDArray[np.uint8]:
    """A picture of the ground, as another shot sees it: brighter, with noise of its own."""
    part = GROUND[row : row + SIDE, col : col + SIDE].astype(np.float32)
    if noise:
        part = 1.1 * part - 6 + np.random.default_rng(noise).normal(0, 4, part.shape)
    return part.clip(0, 255).astype(np.uint8)


def frames_of(pictures: dict[str, NDArray[np.uint8]], group: str | None = None) -> dict[str, str]:
    found = find_frames({name: Content.of(image) for name, image in pictures.items()}, group)
    return dict(found.of)


OTHERS = {f"other{'xyz'[k]}": Content.of(ground(k + 1, SIDE)) for k in range(3)}


@settings(max_examples=50)
@given(st.integers(-120, 120), st.integers(-120, 120))
def test_pictures_that_share_half_of_their_content_are_one_frame(dy: int, dx: int) -> None:
    shares = (SIDE - abs(dy)) * (SIDE - abs(dx)) >= SIDE**2 / 2
    pictures = {"a": cut(220, 220), "b": cut(220 + dy, 220 + dx, noise=1)}
    of = find_frames({name: Content.of(image) for name, image in pictures.items()} | OTHERS).of
    assert not shares or of["a"] == of["b"] == "a"
    assert len(set(of.values())) in (4, 5)
    assert all(of[name] == name for name in OTHERS)


def test_pictures_that_share_nothing_are_frames_of_their_own() -> None:
    pictures = {f"p{k}": ground(k, SIDE) for k in range(12)}
    pictures |= {
        "flat": np.full((SIDE, SIDE, 3), 90, np.uint8),
        "dark": np.zeros((64, 64, 3), "u1"),
    }
    assert frames_of(pictures) == {name: name for name in pictures}


def test_a_stamp_in_the_corner_ties_no_pictures_together() -> None:
    pictures = {f"p{k}": ground(k, SIDE) for k in range(6)}
    for image in pictures.values():
        cv2.putText(image, "2024-05-01 12:00", (4, 12), cv2.FONT_HERSHEY_PLAIN, 0.6, (255,) * 3)
    assert len(set(frames_of(pictures).values())) == 6


def test_numbers_of_photographs_are_not_taken_for_parts_of_one() -> None:
    pictures = {f"2024_{k:03}": ground(k, SIDE) for k in range(8)}
    found = find_frames({name: Content.of(image) for name, image in pictures.items()})
    assert len(set(found.of.values())) == 8
    assert "--group" in found.warnings[0]


def test_parts_of_one_photograph_are_one_frame_however_many_there_are() -> None:
    parts = {f"street_r0_c{512 * k}": ground(k, SIDE) for k in range(6)}
    of = frames_of({**parts, "IMG_7-1_r0_c0": ground(7, SIDE), "IMG_7-2_r0_c0": ground(8, SIDE)})
    assert {of[name] for name in parts} == {"street"}
    assert of["IMG_7-2_r0_c0"] == of["IMG_7-1_r0_c0"]
    assert len(set(of.values())) == 2


def test_a_video_is_not_one_frame_and_the_user_is_told() -> None:
    pictures = {f"v{k:02}": cut(40 * k, 200) for k in range(10)}
    found = find_frames({name: Content.of(image) for name, image in pictures.items()})
    assert len(set(found.of.values())) == 10
    assert "pairs of pictures overlap" in found.warnings[0]


def test_a_regular_expression_names_the_frames() -> None:
    pictures = {
        f"{'xy'[a]}cam{b}-{k}": ground(4 * a + 2 * b + k, 64)
        for a in (0, 1)
        for b in (0, 1)
        for k in (0, 1)
    }
    assert len(set(frames_of(pictures, r"cam(\d)").values())) == 2
    assert len(set(frames_of(pictures, r"^.").values())) == 2
    assert frames_of({"a-1": ground(0, 64), "a-2": ground(1, 64)}, "zzz") == {
        "a-1": "a-1",
        "a-2": "a-2",
    }


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Twelve cracked and twelve sound pictures, in folders without a manifest."""
    for label, first in (("crack", 0), ("road", 100)):
        (tmp_path / label).mkdir()
        for k in range(12):
            Image.fromarray(ground(first + k, 96)).save(tmp_path / label / f"{label}{k}.png")
    return tmp_path


def test_pictures_added_later_change_no_side(folders: Path) -> None:
    first = read_image_level(folders, seed=1)
    for k in range(12, 40):
        Image.fromarray(ground(k, 96)).save(folders / "crack" / f"a{k}.png")
    held = first.val[0].path
    Image.fromarray(read_rgb(held)).save(folders / "crack" / "again.png")
    moved = read_image_level(folders, seed=1)
    assert any(moved.sides[name] != side for name, side in first.sides.items()), "no test"
    later = read_image_level(folders, seed=1, kept=first.sides)
    assert {name: later.sides[name] for name in first.sides} == first.sides
    added = later.sides.keys() - first.sides.keys()
    assert len(added) == 29
    assert [name for name in sorted(added) if later.sides[name] == "val"] == ["crack/again.png"]


def test_a_picture_whose_label_is_corrected_keeps_its_side(folders: Path) -> None:
    kept = read_image_level(folders).sides
    held = next(name for name, side in kept.items() if side == "val" and name.startswith("crack"))
    (folders / held).rename(folders / held.replace("crack/", "road/", 1))
    later = read_image_level(folders, kept=kept).sides
    assert later[held.replace("crack/", "road/", 1)] == "val"


def test_a_picture_that_ties_both_sides_together_is_left_out(folders: Path) -> None:
    kept = read_image_level(folders).sides
    train = next(name for name, side in kept.items() if side == "train")
    val = next(name for name, side in kept.items() if side == "val")
    both = np.hstack([read_rgb(folders / name) for name in (train, val)])
    Image.fromarray(both).save(folders / "crack" / "both.png")
    later = read_image_level(folders, kept=kept)
    assert later.sides == kept
    assert any("both.png" in warning for warning in later.warnings)


def test_an_image_in_both_classes_is_named(folders: Path) -> None:
    Image.fromarray(ground(0, 96)).save(folders / "road" / "zero.png")
    assert any("road/zero.png" in warning for warning in read_image_level(folders).warnings)


@pytest.mark.data
def test_the_300_pictures_of_deepcrack_are_101_frames(shared_data: Path) -> None:
    pictures = sorted((shared_data / "deepcrack" / "images").iterdir())
    blank = Content.of(np.zeros((64, 64, 3), np.uint8))
    contents = {
        path.stem: Content(str(k).encode(), blank.thumbnail, blank.points, blank.descriptors)
        for k, path in enumerate(pictures)
    }
    assert len(set(find_frames(contents).of.values())) == 101

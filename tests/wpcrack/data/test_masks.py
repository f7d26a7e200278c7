"""A mask is read as it is meant, or refused with what it holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wpcrack.data.images import Pair, left_out, list_images, read_rgb
from wpcrack.data.masks import ORIENTATION, check_masks, read_mask, read_pair
from wpcrack.errors import DataError

SIDE = 48
CRACK = np.zeros((SIDE, SIDE), bool)
CRACK[10:14, 4:40] = CRACK[10:40, 30:33] = True


def palette(crack: NDArray[np.bool_]) -> Image.Image:
    image = Image.fromarray(crack.astype(np.uint8) * 3).convert("P")
    image.putpalette([0, 0, 0] * 3 + [128, 0, 0] + [0, 0, 0] * 252)
    return image


def red(crack: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(np.where(crack[..., None], [255, 0, 0], 0).astype(np.uint8))


MISREAD: list[tuple[Callable[[NDArray[np.bool_]], Image.Image], str, int]] = [
    (lambda crack: Image.fromarray(crack.astype(np.uint8)), "values 0, 1", 1),
    (lambda crack: Image.fromarray(crack.astype(np.uint16) * 2), "values 0, 2", 2),
    (palette, "palette indices 0, 3", 3),
    (red, "values 0, 76", 76),
    (lambda crack: Image.fromarray(~crack), "inverted; it has values 0, 255", 0),
]


@pytest.mark.parametrize(("draw", "holds", "value"), MISREAD)
def test_a_mask_that_would_be_misread_is_refused_until_its_values_are_said(
    tmp_path: Path, draw: Callable[[NDArray[np.bool_]], Image.Image], holds: str, value: int
) -> None:
    path = tmp_path / "m.png"
    draw(CRACK).save(path)
    with pytest.raises(DataError, match=rf"m\.png .*{holds}.*--mask-values {value}"):
        read_mask(path, CRACK.shape)
    np.testing.assert_array_equal(read_mask(path, CRACK.shape, (value,)), CRACK)


def drawn_line(width: int, *, faded: bool = False) -> NDArray[np.uint8]:
    """A white line on black, 200 px on a side, with or without grey edges."""
    line = np.zeros((200, 200), np.uint8)
    cv2.line(line, (30, 10), (150, 190), 255, width, cv2.LINE_AA if faded else cv2.LINE_8)
    return line


def test_empty_masks_and_the_noise_of_lossy_ones_are_empty(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tmp_path / "a.png")
    assert not read_mask(tmp_path / "a.png", (SIDE, SIDE)).any()
    black = Image.new("RGB", (200, 160))
    for name in ("b.jpg", "c.webp"):
        for quality in (1, 5, 30, 50, 75, 95):
            black.save(tmp_path / name, quality=quality)
            assert not read_mask(tmp_path / name, (160, 200)).any()


@pytest.mark.parametrize("quality", [30, 50, 75, 90])
def test_a_part_of_a_lossy_mask_beside_its_crack_is_empty(tmp_path: Path, quality: int) -> None:
    whole, part = tmp_path / "whole.jpg", tmp_path / "part.jpg"
    line = np.zeros((200, 400), np.uint8)
    line[:, 195:203] = 255
    Image.fromarray(line).save(whole, quality=quality)
    Image.open(whole).crop((203, 0, 353, 200)).save(part, quality=quality)
    assert not read_mask(part, (200, 150)).any()


@pytest.mark.parametrize("quality", [75, 80, 95, 100])
@pytest.mark.parametrize("ending", [".jpg", ".webp"])
def test_a_lossy_mask_of_zeros_and_ones_is_no_empty_one(
    tmp_path: Path, quality: int, ending: str
) -> None:
    path = tmp_path / f"m{ending}"
    Image.fromarray(drawn_line(9) // 255).save(path, quality=quality)
    with pytest.raises(DataError, match=r"no pixel above 127, but values 0, 1.*--mask-values 1"):
        read_mask(path, (200, 200))


@pytest.mark.parametrize(
    "form", ["gray.png", "palette.png", "lossy.jpg", "was_lossy.png", "was_fine.png"]
)
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("faded", [False, True])
def test_white_on_black_is_read_however_its_edges_fade(
    tmp_path: Path, form: str, width: int, faded: bool
) -> None:
    path, line = tmp_path / form, drawn_line(width, faded=faded)
    picture = Image.fromarray(line)
    if form == "palette.png":
        picture.convert("P").save(path)
    elif form.startswith("was"):
        picture.save(tmp_path / "first.jpg", quality=100 if "fine" in form else 50)
        Image.open(tmp_path / "first.jpg").save(path)
    else:
        picture.save(path)
    read = read_mask(path, line.shape)
    assert np.count_nonzero(read ^ (line > 127)) <= 0.15 * np.count_nonzero(line)


def classes(first: tuple[int, int, int], second: tuple[int, int, int]) -> Image.Image:
    """A palette of which 1 is a crack, and 2 nine pixels beside it."""
    image = Image.fromarray((drawn_line(3) // 255).astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, *first, *second])
    image.paste(2, (100, 20, 103, 23))
    return image


@pytest.mark.parametrize("second", [(255, 255, 255), (0, 255, 0), (224, 224, 192)])
def test_a_bright_class_does_not_hide_a_dark_one(
    tmp_path: Path, second: tuple[int, int, int]
) -> None:
    path, line = tmp_path / "m.png", drawn_line(3) > 127
    classes((128, 0, 0), second).save(path)
    with pytest.raises(DataError, match=r"palette indices 0, 1, 2: .*--mask-values 1"):
        read_mask(path, line.shape)
    np.testing.assert_array_equal(read_mask(path, line.shape, (1,)), line)
    swapped = classes(second, (128, 0, 0))  # now the small class is the dark one
    swapped.save(path)
    with pytest.raises(DataError, match="palette indices 0, 1, 2"):
        read_mask(path, line.shape)
    numbers = np.asarray(classes((1, 1, 1), (255, 255, 255)).convert("L"))
    Image.fromarray(numbers).save(path)
    with pytest.raises(DataError, match="values 0, 1, 255"):
        read_mask(path, line.shape)
    few = np.asarray(classes((255, 255, 255), (1, 1, 1)).convert("L"))
    Image.fromarray(few).save(path)
    with pytest.raises(DataError, match=r"values 0, 1, 255: .*--mask-values 255"):
        read_mask(path, line.shape)


def test_a_transparent_color_of_a_palette_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    image = Image.fromarray(CRACK.astype(np.uint8)).convert("P")
    image.putpalette([128, 0, 0, 255, 255, 255])
    image.save(path, transparency=0)
    np.testing.assert_array_equal(read_mask(path, CRACK.shape), CRACK)


@pytest.mark.parametrize("name", ["m.png", "m.jpg"])
def test_no_remedy_makes_a_crack_of_a_whole_mask(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.new("L", (SIDE, SIDE), 255).save(path)
    with pytest.raises(DataError, match="all of it is white; draw it anew, or leave") as refused:
        read_mask(path, (SIDE, SIDE))
    assert "--mask-values 0," in str(refused.value)
    assert "--mask-values 255" not in str(refused.value)
    Image.new("L", (SIDE, SIDE), 60).save(tmp_path / "grey.png")
    with pytest.raises(DataError, match="all of it is equal; draw it anew") as refused:
        read_mask(tmp_path / "grey.png", (SIDE, SIDE))
    assert "--mask-values" not in str(refused.value)


def photograph(path: Path, orientation: int) -> Path:
    """A photograph with dark cracks, stored so that the tag turns it upright."""
    gray = np.random.default_rng(1).integers(100, 140, (SIDE, SIDE)).astype(np.uint8)
    gray[CRACK] = 50
    back = {3: lambda x: x[::-1, ::-1], 6: lambda x: np.rot90(x), 8: lambda x: np.rot90(x, -1)}
    picture = Image.fromarray(np.ascontiguousarray(back[orientation](gray)))
    exif = picture.getexif()
    exif[ORIENTATION] = orientation
    picture.save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_mask_drawn_before_its_photograph_was_turned_is_told(
    tmp_path: Path, orientation: int
) -> None:
    image = photograph(tmp_path / "a.png", orientation)
    upright = tmp_path / "upright.png"
    Image.fromarray(CRACK).save(upright)
    assert read_rgb(image)[CRACK].max() == 50
    np.testing.assert_array_equal(read_pair(Pair("a", image, upright))[1], CRACK)
    stored = tmp_path / "stored.png"
    raw = np.asarray(Image.open(image)) < 60
    Image.fromarray(raw).save(stored)
    with pytest.raises(DataError, match=r"a\.png is turned by its EXIF tag .*stored\.png"):
        read_pair(Pair("a", image, stored))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_16_bit_picture_of_fewer_bits_is_refused_instead_of_read_black(
    tmp_path: Path, bits: int, channels: int
) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (SIDE, SIDE, channels))
    cv2.imwrite(str(tmp_path / "a.png"), values.astype(np.uint16).squeeze())
    with pytest.raises(DataError, match=rf"nearly black.*-scale 0 {2**bits - 1}"):
        read_rgb(tmp_path / "a.png")


def test_photographs_and_masks_are_checked_before_work_that_takes_long(tmp_path: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(CRACK.astype(np.uint8)).save(tmp_path / "m.png")
    check_masks([Pair("a", tmp_path / "a.png", tmp_path / "m.png", (1,))])
    with pytest.raises(DataError, match="no pixel above 127"):
        check_masks([Pair("a", tmp_path / "a.png", tmp_path / "m.png")])
    stored = tmp_path / "stored.png"
    image = photograph(tmp_path / "b.png", 3)
    Image.fromarray(np.asarray(Image.open(image)) < 60).save(stored)
    with pytest.raises(DataError, match="is turned by its EXIF tag"):
        check_masks([Pair("b", image, stored)])
    Image.fromarray(CRACK).save(tmp_path / "white.png")
    cut = tmp_path / "cut.jpg"
    Image.open(image).save(cut, quality=95)
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"cut\.jpg cannot be read"):
        check_masks([Pair("cut", cut, tmp_path / "white.png")])


def test_pictures_that_are_passed_over_are_named(tmp_path: Path) -> None:
    packed = ("day3.tar.gz", "day4.ZIP", "day2.7z", "a.rar")  # the last two seem unpacked
    pictures = ("a.jfif", "IMG_1.HEIC", ".hidden.heic", "day2/b.jpg", "empty/notes.txt")
    for name in (*pictures, *packed):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(list_images(tmp_path)) == ["a"]
    odd, archives, deeper = left_out(tmp_path)
    assert "archives in" in archives
    assert {"day3.tar.gz", "day4.ZIP"} == set(re.findall(r"[\w.]+\.(?:gz|ZIP|7z|rar)", archives))
    assert odd.startswith("pictures of")
    assert "(IMG_1.HEIC)" in odd
    assert "(day2)" in deeper
    (tmp_path / "a.jfif").unlink()
    with pytest.raises(DataError, match=r"holds no image.*IMG_1\.HEIC.*day2"):
        list_images(tmp_path)

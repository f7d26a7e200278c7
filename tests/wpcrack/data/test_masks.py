"""A mask is read as it is meant, or refused with what it holds."""

from __future__ import annotations

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


def test_empty_masks_and_the_noise_of_lossy_ones_are_empty(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 8, (SIDE, SIDE)).astype(np.uint8)
    for name, values in (("a.png", noise * 0), ("b.jpg", noise)):
        Image.fromarray(values).save(tmp_path / name)
        assert not read_mask(tmp_path / name, CRACK.shape).any()


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


def test_masks_are_checked_before_work_that_takes_long(tmp_path: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(CRACK.astype(np.uint8)).save(tmp_path / "m.png")
    check_masks([Pair("a", tmp_path / "a.png", tmp_path / "m.png", (1,))])
    with pytest.raises(DataError, match="no pixel above 127"):
        check_masks([Pair("a", tmp_path / "a.png", tmp_path / "m.png")])


def test_pictures_that_are_passed_over_are_named(tmp_path: Path) -> None:
    for name in ("a.jfif", "IMG_1.HEIC", ".hidden.heic", "day2/b.jpg", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(list_images(tmp_path)) == ["a"]
    odd, deeper = left_out(tmp_path)
    assert odd.startswith("pictures of")
    assert "(IMG_1.HEIC)" in odd
    assert "(day2)" in deeper
    (tmp_path / "a.jfif").unlink()
    with pytest.raises(DataError, match=r"holds no image.*IMG_1\.HEIC.*day2"):
        list_images(tmp_path)

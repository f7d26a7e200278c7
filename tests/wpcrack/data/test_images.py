"""Reading photographs and masks: each mode gives the same pixels, each defect a sentence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from factories import write_tile
from PIL import Image

from wpcrack.data.images import list_images, pair, read_rgb, read_shape, write_png
from wpcrack.data.masks import read_mask
from wpcrack.errors import DataError, first_few

H, W = 24, 40


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)


@pytest.fixture
def crack() -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[5:9, 3:30] = True
    return mask


def smooth(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    texture = np.random.default_rng(1).normal(0, 12, (height, width))
    gray = np.clip(x + y / 2 + texture, 0, 255).astype(np.uint8)
    return np.dstack([gray, gray[::-1], gray[:, ::-1]])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
def test_lossless_formats_give_the_stored_pixels(
    tmp_path: Path, rgb: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(rgb).save(path)
    read = read_rgb(path)
    np.testing.assert_array_equal(read, rgb)
    assert read.dtype == np.uint8
    assert read.flags.writeable


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_keep_channel_order(tmp_path: Path, suffix: str) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = 200
    Image.fromarray(image).save(tmp_path / f"a{suffix}")
    assert np.abs(read_rgb(tmp_path / f"a{suffix}").astype(int) - image).max() < 12


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P"])
def test_gray_modes_become_three_equal_channels(tmp_path: Path, mode: str) -> None:
    gray = np.where(np.arange(H * W).reshape(H, W) % 3 == 0, 255, 0).astype(np.uint8)
    Image.fromarray(gray).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), np.dstack([gray] * 3))


def test_alpha_is_dropped(tmp_path: Path, rgb: np.ndarray) -> None:
    alpha = np.arange(H * W).reshape(H, W).astype(np.uint8)
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), rgb)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_keeps_the_high_byte(tmp_path: Path, suffix: str, channels: int) -> None:
    deep = np.random.default_rng(2).integers(0, 65536, (H, W, channels), np.uint16)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), deep)
    expected = np.broadcast_to((deep >> 8)[..., ::-1], (H, W, 3))
    np.testing.assert_array_equal(read_rgb(tmp_path / f"a{suffix}"), expected)


def test_eight_bit_values_in_a_sixteen_bit_file_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((H, W), 200, np.uint16))
    with pytest.raises(DataError, match=r"a\.png has 16-bit pixels of at most 200"):
        read_rgb(tmp_path / "a.png")


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((H, W), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"float32 pixels.*convert it to 8 or 16 bits"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("suffix", "options"), [(".png", {}), (".tif", {}), (".tif", {"compression": "tiff_lzw"})]
)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    tmp_path: Path, orientation: int, mode: str, suffix: str, options: dict[str, str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (H, W, 4), np.uint8)
    stored = Image.fromarray(pixels).convert(mode)
    rgb = np.asarray(stored.convert("RGB"))
    upright = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, -1),
        7: rgb[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(rgb, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    stored.save(path, exif=exif, **options)
    np.testing.assert_array_equal(read_rgb(path), upright)
    assert read_shape(path) == upright.shape[:2]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", {}),
        (".jpg", {"progressive": True}),
        (".png", {}),
        (".tif", {"compression": "tiff_lzw"}),
        (".tif", {}),
        (".bmp", {}),
        (".webp", {}),
    ],
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_files_are_refused_by_name(
    tmp_path: Path, suffix: str, options: dict[str, object], share: float
) -> None:
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(smooth()).save(path, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=rf"cut\{suffix} cannot be read.*copy it again"):
        read_rgb(path)


def test_missing_empty_foreign_and_folder_have_their_own_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "phone.HEIC").write_text("not an image")
    (tmp_path / "folder.jpg").mkdir()
    for name, sentence in [
        ("gone.jpg", "does not exist"),
        ("empty.jpg", r"is an empty file \(0 bytes\)"),
        ("text.jpg", "cannot be read as an image"),
        ("phone.HEIC", r"has a format that is not read \(\.HEIC\); save it as JPEG or PNG"),
        ("folder.jpg", "is a folder"),
    ]:
        with pytest.raises(DataError, match=rf"{name} .*{sentence}"):
            read_rgb(tmp_path / name)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is HEIC, .*; save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "is HEIC"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "is a raw file"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "is a video, .*; cut pictures out of it"),
        (b"\xff\x0a\xfa\x1f", "is JPEG XL"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b"PK\x03\x04\x14\0", "is a ZIP archive"),
        (
            b"\xef\xbb\xbf\r\n<!DOCTYPE html><html>",
            "is a web page, .*; download the picture itself",
        ),
        (b"<?xml version='1.0'?><svg>", "is a drawing or text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    ],
)
def test_other_formats_are_named_whatever_the_name_says(
    tmp_path: Path, head: bytes, sentence: str
) -> None:
    for name in ("IMG_0001.jpg", "IMG_0001.png", "IMG_0001"):
        (tmp_path / name).write_bytes(head + bytes(range(1, 200)))
        for read in (read_rgb, read_shape):
            with pytest.raises(DataError, match=rf"{name} .*{sentence}") as caught:
                read(tmp_path / name)
            assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(("bands", "kind"), [(5, np.uint8), (3, np.uint16)])
def test_a_whole_tiff_of_unusual_bands_is_not_called_damaged_alone(
    tmp_path: Path, bands: int, kind: type[np.generic]
) -> None:
    write_tile(tmp_path / "a.tif", np.zeros((H, W, bands), kind), photometric="MINISBLACK")
    for read in (read_rgb, read_shape):
        with pytest.raises(DataError, match=r"a damaged TIFF, or one of an unusual number"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_mask_is_the_same_in_every_mode(tmp_path: Path, crack: np.ndarray, mode: str) -> None:
    Image.fromarray(crack.astype(np.uint8) * 255).convert(mode).save(tmp_path / "m.png")
    read = read_mask(tmp_path / "m.png", (H, W))
    np.testing.assert_array_equal(read, crack)
    assert read.dtype == np.bool_


def test_mask_level_lies_between_127_and_128(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (1, 4)).tolist() == [[False, False, True, True]]


def test_palette_masks_are_read_by_color_not_by_index(tmp_path: Path, crack: np.ndarray) -> None:
    image = Image.new("P", (W, H))
    image.putpalette([0] * 3 + [255] * 3 + [0] * 762)
    image.putdata(np.where(crack, 1, 200).ravel().tolist())
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (H, W)), crack)


@pytest.mark.parametrize("high", [255, 65535])
def test_sixteen_bit_masks_keep_their_meaning(tmp_path: Path, crack: np.ndarray, high: int) -> None:
    cv2.imwrite(str(tmp_path / "m.png"), crack.astype(np.uint16) * high)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (H, W)), crack)


def test_transparent_pixels_of_a_mask_are_no_crack(tmp_path: Path, crack: np.ndarray) -> None:
    white = np.full((H, W, 3), 255, np.uint8)
    Image.fromarray(np.dstack([white, crack.astype(np.uint8) * 255])).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (H, W)), crack)


def test_mask_of_another_size_names_both_sizes(tmp_path: Path, crack: np.ndarray) -> None:
    Image.fromarray(crack).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png has 40 x 24 pixels, its image has 24 x 40"):
        read_mask(tmp_path / "m.png", (40, 24))


def test_written_png_reads_back_and_leaves_no_part(tmp_path: Path, rgb: np.ndarray) -> None:
    write_png(tmp_path / "a.png", rgb)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), rgb)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_failed_write_leaves_nothing(tmp_path: Path, rgb: np.ndarray) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*a\.png"):
        write_png(tmp_path / "a.png", rgb)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_pairs_match_by_stem_with_or_without_suffix(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "b.JPG", "a.png", "notes.txt", ".hidden.png", "c_mask.png")
    masks = touch(tmp_path / "m", "a.png", "b_mask.png", "c_mask.tif", "Thumbs.db")
    found = [(p.stem, p.image.name, p.mask.name) for p in pair(images, masks)]
    assert found == [
        ("a", "a.png", "a.png"),
        ("b", "b.JPG", "b_mask.png"),
        ("c_mask", "c_mask.png", "c_mask.tif"),
    ]


def test_unpaired_files_are_one_error_that_lists_and_counts(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "both.jpg", *(f"i{k}.jpg" for k in range(7)))
    masks = touch(tmp_path / "m", "both.png", "lone.png")
    sentence = r"i0\.jpg, i1\.jpg, i2\.jpg, i3\.jpg, i4\.jpg and 2 more; .*image: lone\.png"
    with pytest.raises(DataError, match=sentence):
        pair(images, masks)


def test_images_known_to_be_free_of_cracks_need_no_mask(tmp_path: Path) -> None:
    images, masks = touch(tmp_path / "i", "a.jpg", "road.jpg"), touch(tmp_path / "m", "a.png")
    assert [p.stem for p in pair(images, masks, unmasked={"road"})] == ["a"]


def test_two_images_or_two_masks_of_equal_stem_are_refused(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg has two masks .*a\.png and a_mask\.png"):
        pair(images, touch(tmp_path / "m", "a.png", "a_mask.png"))
    with pytest.raises(DataError, match=r"equal stem \(a\.jpg and a\.png\)"):
        list_images(touch(images, "a.png"))


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "a.jpg")
    with pytest.raises(DataError, match="m holds no image"):
        pair(images, touch(tmp_path / "m", "readme.txt"))
    with pytest.raises(DataError, match="gone does not exist"):
        pair(images, tmp_path / "gone")
    with pytest.raises(DataError, match="images and masks are both"):
        pair(images, images)


def test_naming_lists_five_and_counts_the_rest() -> None:
    assert first_few(["b", "a"]) == "a, b"
    assert first_few(str(k) for k in range(8)) == "0, 1, 2, 3, 4 and 3 more"

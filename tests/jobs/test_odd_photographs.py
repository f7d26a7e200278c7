"""Odd photographs through every command: the same street gives the same result in any file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from jobs.evaluate.run import EvaluateOptions, run_evaluate
from jobs.predict import overlay, run_predict
from jobs.runtime import memory
from jobs.runtime.memory import Memory
from jobs.windows.cut import WindowsOptions
from jobs.windows.run import run_windows
from wpcrack.data.build import BuildOptions, build_image_level
from wpcrack.data.images import read_rgb
from wpcrack.data.read import read_image_level
from wpcrack.errors import ConfigError, DataError

H, W = 96, 128


def darkness(windows: np.ndarray) -> np.ndarray:
    return (1 - windows.mean(axis=-1) / 255).astype(np.float32)


def street(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Gray pavement with a dark crack, and its mask; both (H, W)."""
    gray = np.random.default_rng(k).integers(150, 220, (H, W), np.uint8)
    mask = np.zeros((H, W), bool)
    mask[:, 10 + k : 14 + k] = True
    gray[mask] = 20
    return gray, mask


def as_gray(path: Path, gray: np.ndarray) -> Path:
    Image.fromarray(gray).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def as_rgba(path: Path, gray: np.ndarray) -> Path:
    alpha = np.full_like(gray, 200)
    Image.fromarray(np.dstack([gray] * 3 + [alpha])).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def as_palette(path: Path, gray: np.ndarray) -> Path:
    Image.fromarray(gray).convert("P").save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def as_16_bit(path: Path, gray: np.ndarray) -> Path:
    cv2.imwrite(str(path.with_suffix(".tif")), gray.astype(np.uint16) * 257)
    return path.with_suffix(".tif")


def as_16_bit_rgb(path: Path, gray: np.ndarray) -> Path:
    cv2.imwrite(str(path.with_suffix(".png")), np.dstack([gray] * 3).astype(np.uint16) * 257)
    return path.with_suffix(".png")


def as_rotated(path: Path, gray: np.ndarray) -> Path:
    """Store the picture lying on its side, as a phone does, with the turn in EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(gray, 1)).save(path.with_suffix(".png"), exif=exif)
    return path.with_suffix(".png")


def as_rotated_tiff(path: Path, gray: np.ndarray) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(gray, 1)).save(path.with_suffix(".tif"), exif=exif)
    return path.with_suffix(".tif")


KINDS = [
    as_gray,
    as_rgba,
    as_palette,
    as_16_bit,
    as_16_bit_rgb,
    as_rotated,
    as_rotated_tiff,
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Six streets in one odd kind of file, with plain masks."""
    save: Callable[[Path, np.ndarray], Path] = request.param
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for k in range(6):
        gray, mask = street(k)
        save(tmp_path / "images" / f"p{k}", gray)
        Image.fromarray(mask).save(tmp_path / "masks" / f"p{k}.png")
    return tmp_path


def test_any_kind_of_file_gives_the_same_pixels(odd: Path) -> None:
    for k, path in enumerate(sorted((odd / "images").iterdir())):
        np.testing.assert_array_equal(read_rgb(path), np.dstack([street(k)[0]] * 3))


def test_any_kind_of_file_gives_the_same_windows(odd: Path) -> None:
    options = BuildOptions(window=32)
    build_image_level(odd / "images", odd / "masks", odd / "set", options=options)
    items = read_image_level(odd / "set").items
    assert len(items) > 10
    for item in items:
        gray = street(int(item.source[1:]))[0][item.row : item.row + 32, item.col : item.col + 32]
        np.testing.assert_array_equal(read_rgb(item.path), np.dstack([gray] * 3))


def test_any_kind_of_file_is_scored_and_predicted_upright(odd: Path) -> None:
    options = EvaluateOptions(model=odd, images=odd / "images", masks=odd / "masks")
    assert run_evaluate(options, darkness).scores.native.iou == 1
    photo = sorted((odd / "images").iterdir())[2]
    _, mask, _ = run_predict(odd, odd / "out", [photo], predictor=darkness).written
    np.testing.assert_array_equal(np.asarray(Image.open(mask)) > 0, street(2)[1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (20, 33), (31, 7)])
def test_photographs_smaller_than_any_window_are_predicted(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    gray = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    Image.fromarray(gray).save(tmp_path / "tiny.png")
    found = run_predict(tmp_path, tmp_path / "out", [tmp_path / "tiny.png"], predictor=darkness)
    np.testing.assert_array_equal(np.asarray(Image.open(found.written[0])), 255 - gray)


def test_photographs_smaller_than_the_window_are_refused_in_a_sentence(odd: Path) -> None:
    with pytest.raises(DataError, match="every image is smaller than the window of 128 px"):
        build_image_level(odd / "images", odd / "masks", odd / "set")


def test_windows_of_photographs_that_cannot_be_read_are_refused_with_their_reason(
    tmp_path: Path,
) -> None:
    dark = np.full((64, 64), 200, np.uint16)
    cv2.imwrite(str(tmp_path / "twelve_bits.png"), dark)
    with pytest.raises(DataError, match=r"no photograph can be used.*16-bit pixels of at most"):
        run_windows(tmp_path, tmp_path / "set", WindowsOptions(2, 32, ordered=False))


def test_small_label_images_are_read_with_their_own_sizes(tmp_path: Path) -> None:
    for k in range(6):
        for label in ("crack", "road"):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new("L", (10 + k, 20)).save(tmp_path / label / f"{label}{k}.png")
    sizes = {(item.height, item.width) for item in read_image_level(tmp_path).items}
    assert sizes == {(20, 10 + k) for k in range(6)}


# -- large ones --------------------------------------------------------------------------------


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray, mask = street(0)
    for folder, pixels in (("own", gray), ("masks", mask.astype(np.uint8) * 255)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    small, large = tmp_path / "small.png", tmp_path / "own" / "a.png"
    Image.fromarray(gray[:32, :32]).save(small)
    room = 600_000_000 + 20 * H * W - 1
    monkeypatch.setattr(memory, "usable_memory", lambda: Memory(2 * room, room))
    report = run_predict(None, tmp_path / "out", [small, large], predictor=darkness)
    assert (report.exit_code, len(report.written)) == (3, 3)
    assert f"{large} with {W} x {H} pixels needs" in report.failures[0]
    options = EvaluateOptions(model=None, images=tmp_path / "own", masks=tmp_path / "masks")
    with pytest.raises(ConfigError, match=r"needs about .* cut it"):
        run_evaluate(options, predictor=lambda windows: pytest.fail("was predicted"))


def test_a_header_that_claims_too_many_pixels_is_refused_with_a_way_to_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    Image.new("L", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[18:26] = np.array([20_000, 20_000], "<i4").tobytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"more than the 178 million pixels .* gdal_retile"):
        read_rgb(path)


def test_the_overlay_mixes_the_color_of_cracks_with_each_marked_pixel() -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (9, 7, 3), np.uint8), rng.random((9, 7)) < 0.5
    wanted = image.copy()
    for place in zip(*np.nonzero(mask), strict=True):
        wanted[place] = np.round(0.35 * image[place] + 0.65 * np.array((213, 94, 0)))
    assert (overlay(image, mask) == wanted).all()

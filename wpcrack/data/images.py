"""Photographs: reading them with every defect named, writing, and pairing by stem."""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from wpcrack.errors import DataError, first_few
from wpcrack.files import whole_file

DARK = 2**14
"""16-bit pictures without a value from here on hold 8 to 14 bits, or a night."""

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""File name endings that count as images (any case); other files in a folder are not images."""

MOST_PX = 2 * int(Image.MAX_IMAGE_PIXELS or 0)
"""Pillow opens no picture with more: a few bytes can claim any size."""

PART_PX = 8192
"""Side of the parts into which a message proposes to cut a larger one."""

SAVE_AS = "save it as JPEG or PNG"

LONGEST_STEM = 220
"""Bytes of a name without its ending: what is made of a photograph, such as a window or a mask, is
called `<stem>_r123_c456.png`, and a name has 255 bytes at most, also while the file is written."""

UNREAD = (".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".gif", ".jp2")
"""Endings of pictures that are not read, but named, so that none is missed unsaid."""

ARCHIVES = (
    *(".zip", ".7z", ".rar", ".tar", ".tgz"),
    *(".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"),
)
"""Endings of what may hold pictures; named, unless a file or folder of the same name is there."""

HEAD_BYTES = 64
"""So much of the beginning of a file tells its format."""

# What a file is that Pillow does not know, whatever its name says, by how it begins (any case).
_BEGINNINGS: tuple[tuple[str, str, str], ...] = (
    (r".{4}ftyp.*avi[fs]", "AVIF", SAVE_AS),
    (r".{4}ftyp.*(hei[cxms]|hev[cx]|mif1|msf1)", "HEIC, as phones save it", SAVE_AS),
    (r".{4}ftypcrx", "a raw file of a camera (CR3)", SAVE_AS),
    (r".{4}(ftyp|moov|mdat)|RIFF.{4}AVI |\x1aE\xdf\xa3", "a video", "cut pictures out of it"),
    (r"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL", SAVE_AS),
    (r"%PDF", "a PDF", SAVE_AS),
    (r"PK\x03\x04", "a ZIP archive", "unpack it"),
    (
        r"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|!--)",
        "a web page",
        "download the picture itself",
    ),
    (r"\s*<(\?xml|svg)", "a drawing or text in XML", SAVE_AS),
    (r"version https://git-lfs", "a pointer of Git LFS", "fetch it: git lfs pull"),
)

# What Pillow raises for damaged files, by format: OSError (JPEG, PNG, BMP, WebP, TIFF), SyntaxError
# (PNG chunks), the rest from broken headers and tags.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)

JPEG_QUALITY = 85
"""Of pictures that nothing is measured on."""

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """An image and its mask; `stem` is the image's file name without its ending."""

    stem: str
    image: Path
    mask: Path
    mask_values: tuple[int, ...] = ()
    """What in the mask is crack; nothing: what is white."""


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read a photograph (JPEG, PNG, TIFF, BMP, WebP) as it is meant to be seen.

    Gray becomes three equal channels, a palette its colors, CMYK is converted, an alpha channel is
    dropped (what lies under it counts). 16 bit becomes 8 bit by keeping the high byte, without
    stretching. The EXIF orientation is applied.

    Args:
        path: image file.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: missing, empty, unreadable or truncated file, or a pixel type without a defined
            range (32-bit integers, floats).
    """
    return decode(path, _to_rgb)


def is_named_too_long(path: Path) -> bool:
    """Return whether files that are made of a photograph cannot be named after it."""
    return len(os.fsencode(path.stem)) > LONGEST_STEM


def read_shape(path: Path) -> tuple[int, int]:
    """Return (H, W) of an image after EXIF rotation from its header alone.

    Raises:
        DataError: missing, empty or not an image.
    """
    return decode(path, _oriented_shape)


def write_png(path: Path, array: NDArray[np.uint8]) -> None:
    """Write (H, W) or (H, W, 3) uint8 as PNG; the file appears whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    _write(path, array, format="PNG", compress_level=3)


def write_jpeg(path: Path, array: NDArray[np.uint8]) -> None:
    """Write (H, W) or (H, W, 3) uint8 as JPEG; see `write_png`."""
    _write(path, array, format="JPEG", quality=JPEG_QUALITY)


def _write(path: Path, array: NDArray[np.uint8], **how: Any) -> None:
    try:
        with whole_file(path) as part:
            Image.fromarray(array).save(part, **how)
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error.strerror or error}); check space and permissions"
        ) from error


def list_images(folder: Path) -> dict[str, Path]:
    """List the images that lie directly in a folder, keyed by stem, in byte order of the stems.

    Hidden files and files with other endings than `SUFFIXES` are not images.

    Raises:
        DataError: no such folder, no image in it, or two images of equal stem.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}; give a folder of images")
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in _entries(folder):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            by_stem[path.stem].append(path)
    if not by_stem:
        others = "".join(f"; {sentence}" for sentence in left_out(folder))
        raise DataError(
            f"{folder} holds no image; expected files ending in {', '.join(SUFFIXES)}{others}"
        )
    twice = [" and ".join(sorted(p.name for p in ps)) for ps in by_stem.values() if len(ps) > 1]
    if twice:
        raise DataError(
            f"{folder} has images of equal stem ({first_few(twice)}); rename or remove one"
        )
    return {stem: by_stem[stem][0] for stem in sorted(by_stem, key=os.fsencode)}


def left_out(folder: Path) -> list[str]:
    """Say what of a folder `list_images` passes over: other formats, archives, folders below it."""
    entries = [p for p in _entries(folder, files=False) if not p.name.startswith(".")]
    odd = [p.name for p in entries if p.suffix.lower() in UNREAD]
    there = {p.stem for p in entries if not p.name.lower().endswith(ARCHIVES)}
    packed = [p.name for p in entries if p.name.lower().endswith(ARCHIVES)]
    packed = [name for name in packed if name.partition(".")[0] not in there]
    deeper = [p.name for p in entries if p.is_dir() and any(map(_is_picture, p.rglob("*")))]
    sentences = []
    if odd:
        sentences.append(
            f"pictures of {folder} are left out, as their format is not read ({first_few(odd)}); "
            "save them as JPEG or PNG"
        )
    if packed:
        sentences.append(
            f"archives in {folder} are left out ({first_few(packed)}); unpack those with pictures"
        )
    if deeper:
        sentences.append(
            f"pictures in folders below {folder} are left out ({first_few(deeper)}); move them up"
        )
    return sentences


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in (*SUFFIXES, *UNREAD)


def pair(
    images_dir: Path,
    masks_dir: Path,
    *,
    unmasked: Collection[str] = (),
    mask_values: tuple[int, ...] = (),
) -> list[Pair]:
    """Pair each image with the mask of its stem, with or without a `_mask` suffix.

    Args:
        images_dir: folder of photographs.
        masks_dir: folder of masks.
        unmasked: stems of images that need no mask because they are known to show no crack; they
            get no pair unless they have a mask.
        mask_values: what in the masks is crack; see `wpcrack.data.masks.read_mask`.

    Returns:
        The pairs in byte order of their stems.

    Raises:
        DataError: an empty or missing folder, equal stems, or files without their counterpart.
    """
    if images_dir.resolve() == masks_dir.resolve():
        raise DataError(
            f"images and masks are both {images_dir}; put the masks into their own folder"
        )
    images, masks = list_images(images_dir), list_images(masks_dir)
    pairs, lonely_images, used = [], [], set()
    for stem, image in images.items():
        candidates = [name for name in (stem, f"{stem}_mask") if name in masks]
        if len(candidates) == 2:
            both = " and ".join(masks[name].name for name in candidates)
            raise DataError(f"{image.name} has two masks in {masks_dir} ({both}); remove one")
        if candidates:
            used.add(candidates[0])
            pairs.append(Pair(stem, image, masks[candidates[0]], mask_values))
        elif stem not in unmasked:
            lonely_images.append(image.name)
    lonely_masks = [path.name for stem, path in masks.items() if stem not in used]
    if lonely_images or lonely_masks:
        parts = [f"images without a mask: {first_few(lonely_images)}"] if lonely_images else []
        parts += [f"masks without an image: {first_few(lonely_masks)}"] if lonely_masks else []
        raise DataError(
            f"{images_dir} and {masks_dir} do not pair up by stem ({'; '.join(parts)}); "
            "add or remove these files (a mask is named STEM or STEM_mask)"
        )
    return pairs


def decode(path: Path, convert: Callable[[Image.Image, Path], T]) -> T:
    """Open an image and return what a function makes of it.

    Raises:
        DataError: missing, empty, unreadable or truncated file.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; give an image file")
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read; check its permissions")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is an empty file (0 bytes); copy it again or remove it")
    try:
        with warnings.catch_warnings():
            # Pillow warns about damaged tags; whether the pixels are whole is decided below.
            warnings.simplefilter("ignore")
            # Given a name, Pillow maps a TIFF into memory and garbles one that its EXIF tag turns.
            with path.open("rb") as file, Image.open(file) as image:
                return convert(image, path)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} has more than the {MOST_PX // 10**6} million pixels that are read as one "
            f"picture; cut it: gdal_retile.py -ps {PART_PX} {PART_PX} -targetDir parts {path.name}"
        ) from error
    except _DECODE_ERRORS as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            _refuse_other_formats(path)
            reason = "of no known format"
        raise DataError(
            f"{path} cannot be read as an image ({reason}); it is damaged or truncated: "
            "copy it again or remove it"
        ) from error


def _refuse_other_formats(path: Path) -> None:
    """Raise DataError about a file that is whole, but no picture that is read."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    for beginning, kind, do in _BEGINNINGS:
        if re.match(beginning.encode(), head, re.DOTALL | re.IGNORECASE):
            raise DataError(f"{path} is {kind}, which is not read; {do}")
    if path.suffix.lower() in UNREAD:
        raise DataError(f"{path} has a format that is not read ({path.suffix}); {SAVE_AS}")
    if head.startswith((b"II*\0", b"MM\0*")):
        raise DataError(
            f"{path} cannot be read as an image (a damaged TIFF, or one of an unusual number or "
            f"kind of bands); copy it again, or {SAVE_AS}"
        )


def _oriented_shape(image: Image.Image, path: Path) -> tuple[int, int]:
    width, height = image.size
    if isinstance(image, TiffImageFile):  # Pillow from 11.0 on swaps its size itself
        width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientations that swap the axes
    return (width, height) if turned else (height, width)


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    tiles = getattr(image, "tile", ())  # says how the file stores its pixels
    is_deep = any(";16" in str(tile[3]) for tile in tiles)  # Pillow keeps the high byte
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        gray = high_byte(np.asarray(upright), path)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")
    colors = np.array(upright.convert("RGB"))
    if is_deep:
        _require_bright(256 * int(colors.max()) + 255, path)
    return colors


def _require_bright(largest: int, path: Path) -> None:
    """Refuse 16-bit pixels that use 14 bits or fewer: their high byte is nearly black."""
    if 0 < largest < DARK:
        raise DataError(
            f"{path} has 16-bit pixels of at most {largest} and would turn nearly black at 8 bits; "
            f"save it with 8 bits or stretch it to the full range, for all pictures alike: "
            f"gdal_translate -ot Byte -scale 0 {2 ** largest.bit_length() - 1} 0 255 in out"
        )


def high_byte(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    """Bring 16-bit values to 8 bits.

    Raises:
        DataError: their range says nothing about brightness, or they would turn nearly black.
    """
    if values.dtype.kind == "f" or not is_within(values, 65535):
        raise DataError(
            f"{path} has {values.dtype} pixels beyond 16 bits, a range that says nothing about "
            "brightness; convert it to 8 or 16 bits"
        )
    _require_bright(int(values.max()), path)
    return (values.astype(np.uint32) >> 8).astype(np.uint8)


def is_within(values: NDArray[np.generic], largest: int) -> bool:
    """Return whether values are whole numbers from 0 to the largest."""
    if values.dtype.kind == "f":
        return False
    return bool(values.min() >= 0) and bool(values.max() <= largest)


def _entries(folder: Path, *, files: bool = True) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not (files and path.is_dir())]
    except OSError as error:
        raise DataError(
            f"cannot list {folder} ({error.strerror}); check its permissions"
        ) from error

"""Photographs and masks: reading them with every defect named, writing, and pairing by stem."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wpcrack.errors import DataError, first_few
from wpcrack.files import whole_file

MASK_LEVEL = 127
"""A mask pixel is crack if its grey value exceeds this (the masks of Crack500 are anti-aliased)."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""File name endings that count as images (any case); other files in a folder are not images."""

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
    Image.DecompressionBombError,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """An image and its mask; `stem` is the image's file name without its ending."""

    stem: str
    image: Path
    mask: Path


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read a photograph (JPEG, PNG, TIFF, BMP, WebP) as it is meant to be seen.

    Grey becomes three equal channels, a palette its colors, CMYK is converted, an alpha channel is
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
    return _decode(path, _to_rgb)


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a crack mask: grey value > 127, whatever the file's mode (1, L, P, RGB, RGBA, 16 bit).

    Transparent pixels count as black: nothing was drawn there.

    Args:
        path: mask file.
        shape: (H, W) of the image that the mask belongs to, in pixels.

    Returns:
        (H, W) bool, True on cracks.

    Raises:
        DataError: as `read_rgb`, or the mask has another size than the image.
    """
    mask = _decode(path, _to_gray) > MASK_LEVEL
    if mask.shape != tuple(shape):
        raise DataError(
            f"mask {path} has {mask.shape[1]} x {mask.shape[0]} pixels, its image has "
            f"{shape[1]} x {shape[0]} (width x height, after EXIF rotation); "
            "export the mask at the image's size"
        )
    return mask


def read_shape(path: Path) -> tuple[int, int]:
    """Return (H, W) of an image after EXIF rotation from its header alone.

    Raises:
        DataError: missing, empty or not an image.
    """
    return _decode(path, _oriented_shape)


def write_png(path: Path, array: NDArray[np.uint8]) -> None:
    """Write (H, W) or (H, W, 3) uint8 as PNG; the file appears whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        with whole_file(path) as part:
            Image.fromarray(array).save(part, format="PNG", compress_level=3)
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
        raise DataError(f"{folder} holds no image; expected files ending in {', '.join(SUFFIXES)}")
    twice = [" and ".join(sorted(p.name for p in ps)) for ps in by_stem.values() if len(ps) > 1]
    if twice:
        raise DataError(
            f"{folder} has images of equal stem ({first_few(twice)}); rename or remove one"
        )
    return {stem: by_stem[stem][0] for stem in sorted(by_stem, key=os.fsencode)}


def pair(images_dir: Path, masks_dir: Path, *, unmasked: Collection[str] = ()) -> list[Pair]:
    """Pair each image with the mask of its stem, with or without a `_mask` suffix.

    Args:
        images_dir: folder of photographs.
        masks_dir: folder of masks.
        unmasked: stems of images that need no mask because they are known to show no crack; they
            get no pair unless they have a mask.

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
            pairs.append(Pair(stem, image, masks[candidates[0]]))
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


def _decode(path: Path, convert: Callable[[Image.Image, Path], T]) -> T:
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
            with Image.open(path) as image:
                return convert(image, path)
    except DataError:
        raise
    except _DECODE_ERRORS as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise DataError(
            f"{path} cannot be read as an image ({reason}); it is damaged or truncated: "
            "copy it again or remove it"
        ) from error


def _oriented_shape(image: Image.Image, path: Path) -> tuple[int, int]:
    turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5-8 swap the axes
    return (image.width, image.height) if turned else (image.height, image.width)


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        gray = _high_byte(np.asarray(upright), path)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return np.array(upright.convert("RGB"))


def _to_gray(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        values = np.asarray(upright)
        # Masks of label tools keep 0/255 in 16-bit files; the full range means 0/65535.
        return values.astype(np.uint8) if _within(values, 255) else _high_byte(values, path)
    if "A" in upright.getbands() or "transparency" in upright.info:
        drawn = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", drawn.size, (0, 0, 0, 255)), drawn)
    return np.array(upright.convert("RGB").convert("L"))


def _high_byte(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    if values.dtype.kind == "f" or not _within(values, 65535):
        raise DataError(
            f"{path} has {values.dtype} pixels beyond 16 bits, a range that says nothing about "
            "brightness; convert it to 8 or 16 bits"
        )
    if 0 < int(values.max()) < 256:
        raise DataError(
            f"{path} has 16-bit pixels of at most {int(values.max())} and would turn black at "
            "8 bits; save it with 8 bits or stretch it to the full range"
        )
    return (values.astype(np.uint32) >> 8).astype(np.uint8)


def _within(values: NDArray[np.generic], largest: int) -> bool:
    if values.dtype.kind == "f":
        return False
    return bool(values.min() >= 0) and bool(values.max() <= largest)


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.is_dir()]
    except OSError as error:
        raise DataError(
            f"cannot list {folder} ({error.strerror}); check its permissions"
        ) from error

"""Photographs and masks as arrays: reading with every defect named, and writing."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wpcrack.errors import DataError

MASK_LEVEL = 127
"""A mask pixel is crack if its grey value exceeds this (the masks of Crack500 are anti-aliased)."""

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
    """Write (H, W) or (H, W, 3) uint8 as PNG; the name appears only when the file is complete.

    Raises:
        DataError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(array).save(part, format="PNG", compress_level=3)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"cannot write {path} ({error.strerror or error}); check space and permissions"
        ) from error


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

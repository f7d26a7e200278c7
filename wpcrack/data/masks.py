"""Crack masks: what in them is crack, and what cannot be one.

A mask that is misread trains on nonsense and scores nothing, so what does not look like white
cracks on black is refused with the values that it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wpcrack.data.images import Pair, decode, high_byte, is_within, read_rgb
from wpcrack.errors import DataError

MASK_LEVEL = 127
"""A mask pixel is crack if its gray value exceeds this (the masks of Crack500 are anti-aliased)."""

LOSSY = (".jpg", ".jpeg", ".jfif", ".webp")
LOSSY_NOISE = 16
"""Gray values up to this may be noise around white, of a lossy file or one that was lossy once."""

LOSSY_REACH = 20
"""Pixels from the edge in which noise of cracks beyond it may lie, and that of WebP's first block.
Further in, a lossy file without white is of one value: measured at qualities 1 to 100."""

LEAST_WHITE = 0.05
"""A smaller share of what is drawn is no crack that fades out: .21 or more in masks of Crack500,
the most anti-aliased, and in one-pixel lines as JPEG of the lowest quality."""

MOST_CRACK = 0.5
"""A mask of which more is crack is taken for an inverted one."""

NAMED_VALUES = 6
"""Values that a message names."""

TURN_CONTRAST = 4.0
"""Gray levels by which cracks must be darker under a mask that is turned, to call it unturned."""

REMEDY = "say which values are crack: --mask-values {0}, in a training data.mask_values=[{0}]"
DRAW_ANEW = "draw it anew, or leave it out with its photograph"

ORIENTATION = 0x0112
"""EXIF tag: how a camera was held."""


def read_mask(path: Path, shape: tuple[int, int], values: Sequence[int] = ()) -> NDArray[np.bool_]:
    """Read a crack mask: gray value > 127, whatever the file's mode (1, L, P, RGB, RGBA, 16 bit).

    Transparent pixels count as black: nothing was drawn there.

    Args:
        path: mask file.
        shape: (H, W) of the image that the mask belongs to, in pixels.
        values: pixels of these values are crack, and no others; palettes by index.

    Returns:
        (H, W) bool, True on cracks.

    Raises:
        DataError: as `read_rgb`; the mask has another size than the image; without values, nothing
            in it is above 127 although something is drawn, most of it is crack, or it holds classes
            of which only some are above 127.
    """
    if values:
        mask = np.isin(decode(path, _read_values), values)
    else:
        gray = decode(path, _to_gray)
        mask = gray > MASK_LEVEL
        if not mask.any() and _is_drawn(gray, is_lossy=path.suffix.lower() in LOSSY):
            raise DataError(
                f"mask {path} has no pixel above {MASK_LEVEL}, but {_holds(path)}; "
                + _remedy(gray, _commonest(path))
            )
        if mask.mean() > MOST_CRACK:
            raise DataError(
                f"{mask.mean():.0%} of mask {path} is crack (above {MASK_LEVEL}): it seems to be "
                f"inverted; it has {_holds(path)}: " + _remedy(gray, _lowest(path))
            )
        if mask.any() and (_has_classes(gray) or decode(path, _has_dark_colors)):
            raise DataError(
                f"mask {path} holds more than white on black: drawn pixels that are not above "
                f"{MASK_LEVEL} would be lost; it has {_holds(path)}: "
                + REMEDY.format(_commonest(path))
            )
    if mask.shape != tuple(shape):
        raise DataError(
            f"mask {path} has {mask.shape[1]} x {mask.shape[0]} pixels, its image has "
            f"{shape[1]} x {shape[0]} (width x height, after EXIF rotation); "
            "export the mask at the image's size"
        )
    return mask


def read_pair(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read a photograph (H, W, 3) and its mask (H, W).

    Raises:
        DataError: as `read_rgb` and `read_mask`, or the mask was drawn before the photograph was
            turned as its EXIF tag says.
    """
    image = read_rgb(pair.image)
    mask = read_mask(pair.mask, image.shape[:2], pair.mask_values)
    _require_same_turn(pair, image, mask)
    return image, mask


def check_masks(pairs: Iterable[Pair]) -> None:
    """Read all photographs and masks, one pair in memory at a time, before work that takes long.

    Raises:
        DataError: see `read_pair`; or something is drawn in the masks, but none of the values that
            are said to be crack.
    """
    known = list(pairs)
    is_cracked = [bool(read_pair(each)[1].any()) for each in known]
    if not any(is_cracked):
        _require_values(known)


def _require_values(pairs: Sequence[Pair]) -> None:
    """Refuse masks that show anything but the values that are said to be crack."""
    for mask, values in ((pair.mask, pair.mask_values) for pair in pairs if pair.mask_values):
        if len(_counts(mask)[0]) > 1:
            raise DataError(
                f"no mask in {mask.parent} has a pixel of the values that are said to be crack "
                f"({', '.join(map(str, values))}); {mask.name} has {_holds(mask)}: correct "
                "--mask-values, in a training data.mask_values"
            )


def _is_drawn(gray: NDArray[np.uint8], *, is_lossy: bool) -> bool:
    """Return whether a mask without white shows anything: class numbers, a dark color."""
    if not is_lossy or gray.max(initial=0) > LOSSY_NOISE:
        return bool(gray.any())
    inside = gray[LOSSY_REACH:-LOSSY_REACH, LOSSY_REACH:-LOSSY_REACH]
    return bool(inside.size) and bool(np.ptp(inside))


def _has_classes(gray: NDArray[np.uint8]) -> bool:
    """Return whether the dark part of a mask is more than the edges of its white part."""
    n_white = np.count_nonzero(gray > MASK_LEVEL)
    if n_white < LEAST_WHITE * np.count_nonzero(gray > LOSSY_NOISE):
        return True
    dark = gray[(gray > 0) & (gray <= MASK_LEVEL)]
    if not len(dark) or np.ptp(dark):
        return False  # edges that fade are of many values
    if len(dark) > n_white:
        return True
    away = cv2.distanceTransform((gray <= MASK_LEVEL).astype(np.uint8), cv2.DIST_L2, 3)
    return bool(away[gray == dark[0]].max() > LOSSY_REACH)


def _has_dark_colors(image: Image.Image, path: Path) -> bool:
    """Return whether a palette's used colors are more than grays and bright ones."""
    if image.mode != "P":
        return False
    used = _on_black(image).getcolors(maxcolors=256) or []
    colors = np.array([color for _, color in used], np.uint8)  # (N, 3)
    gray = np.asarray(Image.fromarray(colors[None]).convert("L"))[0]
    return bool(((gray <= MASK_LEVEL) & (np.ptp(colors, axis=1) > LOSSY_NOISE)).any())


def _require_same_turn(pair: Pair, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    """Refuse a mask that fits the picture as stored, where a tag turns the picture.

    Sizes tell it for most; a square picture, or one turned upside down, keeps its size. There the
    cracks, which are dark, tell it.
    """
    turn, own = (decode(path, _orientation) for path in (pair.image, pair.mask))
    if turn == 1 or own == turn or not mask.any():
        return
    turned = _turn(mask, turn)
    if turned.shape != mask.shape:
        return
    gray = image.mean(axis=2)
    better = _contrast(gray, turned) - _contrast(gray, mask)
    if better > TURN_CONTRAST:
        raise DataError(
            f"{pair.image} is turned by its EXIF tag ({turn}), but mask {pair.mask} was drawn on "
            f"the picture as stored: turned, its cracks are {better:.0f} gray levels darker; turn "
            "the mask, or remove the tag"
        )


def _contrast(gray: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    return float(gray[~mask].mean() - gray[mask].mean()) if not mask.all() else 0.0


def _turn(mask: NDArray[np.bool_], orientation: int) -> NDArray[np.bool_]:
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(picture)) > 0


def _orientation(image: Image.Image, path: Path) -> int:
    return int(image.getexif().get(ORIENTATION, 1))


def _to_gray(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        values = np.asarray(upright)
        # Masks of label tools keep 0/255 in 16-bit files; the full range means 0/65535.
        return values.astype(np.uint8) if is_within(values, 255) else high_byte(values, path)
    return np.array(_on_black(upright).convert("L"))


def _on_black(image: Image.Image) -> Image.Image:
    """Return what is drawn in RGB; transparent pixels become black."""
    if "A" in image.getbands() or "transparency" in image.info:
        drawn = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", drawn.size, (0, 0, 0, 255)), drawn)
    return image.convert("RGB")


def _read_values(image: Image.Image, path: Path) -> NDArray[np.int64]:
    """Return what the file holds: indices of a palette, whole numbers, else gray values."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("P", "L") or upright.mode.startswith("I"):
        return np.asarray(upright).astype(np.int64)
    return _to_gray(image, path).astype(np.int64)


def _counts(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    values, counts = np.unique(decode(path, _read_values), return_counts=True)
    return values, counts


def _holds(path: Path) -> str:
    """Name the values of a mask, for a message."""
    values, _ = _counts(path)
    dots = ", ..." if len(values) > NAMED_VALUES else ""
    kind = "palette indices" if decode(path, lambda image, _: image.mode) == "P" else "values"
    return f"{kind} {', '.join(map(str, values[:NAMED_VALUES].tolist()))}{dots}"


def _remedy(gray: NDArray[np.uint8], value: int) -> str:
    """Say what to do about a mask of which a value may be crack, but no value that fills it."""
    if np.ptp(gray) > (LOSSY_NOISE if gray.min() > MASK_LEVEL else 0):
        return REMEDY.format(value)
    if gray.min() <= MASK_LEVEL:
        return f"all of it is equal; {DRAW_ANEW}"
    return f"all of it is white; {DRAW_ANEW}; if black is crack in these masks, {REMEDY.format(0)}"


def _commonest(path: Path) -> int:
    """Return the commonest value but the background's, which is the commonest of all."""
    values, counts = _counts(path)
    return int(values[np.argsort(counts)[-2:][0]])


def _lowest(path: Path) -> int:
    return int(_counts(path)[0][0])

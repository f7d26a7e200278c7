"""Folders of images and of masks: listing by stem, pairing, and naming what does not fit."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from wpcrack.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""File name endings that count as images (any case); other files in a folder are not images."""

NAMED_AT_MOST = 5
"""How many file names an error lists before it only counts."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask; `stem` is the image's file name without its ending."""

    stem: str
    image: Path
    mask: Path


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
        raise DataError(f"{folder} has images of equal stem ({named(twice)}); rename or remove one")
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
        parts = [f"images without a mask: {named(lonely_images)}"] if lonely_images else []
        parts += [f"masks without an image: {named(lonely_masks)}"] if lonely_masks else []
        raise DataError(
            f"{images_dir} and {masks_dir} do not pair up by stem ({'; '.join(parts)}); "
            "add or remove these files (a mask is named STEM or STEM_mask)"
        )
    return pairs


def named(names: Iterable[str]) -> str:
    """Join the first names for an error message and count the rest: `a, b and 3 more`."""
    listed = sorted(names)
    shown = ", ".join(listed[:NAMED_AT_MOST])
    rest = len(listed) - NAMED_AT_MOST
    return f"{shown} and {rest} more" if rest > 0 else shown


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.is_dir()]
    except OSError as error:
        raise DataError(
            f"cannot list {folder} ({error.strerror}); check its permissions"
        ) from error

"""What each source image of a set can give: candidate items by class, seen through its mask."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wpcrack.errors import DataError
from wpcrack.holdout import Label
from wpcrack.image_folders import list_images, named, pair
from wpcrack.images import read_mask, read_rgb
from wpcrack.manifest import Row, window_name
from wpcrack.window_labels import label_windows


@dataclass(frozen=True)
class Cut:
    """Side and stride of windows in pixels, and whether crack items are whole images."""

    side: int
    stride: int
    whole_cracks: bool


@dataclass(frozen=True)
class Source:
    """An image; without a mask it is crack-free by the user's word."""

    stem: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Survey:
    """A source after its mask was seen: candidate items, and a digest of its pixels."""

    source: Source
    items: tuple[Row, ...]
    digest: bytes
    too_small: bool


def list_sources(images: Path, masks: Path, road: Path | None) -> list[Source]:
    """List paired images, then those of the road folder.

    Raises:
        DataError: a folder or file that does not fit, or a stem that stands in both.
    """
    sources = [Source(pair_.stem, pair_.image, pair_.mask) for pair_ in pair(images, masks)]
    if road is not None:
        extra = list_images(road)
        clash = extra.keys() & {source.stem for source in sources}
        if clash:
            raise DataError(
                f"{road} has stems that {images} has too ({named(clash)}); rename one of each"
            )
        sources += [Source(stem, path, None) for stem, path in extra.items()]
    return sources


def survey(source: Source, cut: Cut) -> Survey:
    """Read a source and list all items it can give.

    With `whole_cracks` the image is one crack item if its mask shows any crack; otherwise both
    classes are windows.

    Raises:
        DataError: an unreadable image or mask, or a mask of another size.
    """
    image = read_rgb(source.image)
    height, width = image.shape[:2]
    if source.mask is None:
        mask = np.zeros((height, width), bool)
    else:
        mask = read_mask(source.mask, (height, width))
    windows = label_windows(mask, cut.side, cut.stride)
    size = (cut.side, cut.side)
    items = [_item(source.stem, "road", r, c, size) for r, c in windows.road.tolist()]
    if not cut.whole_cracks:
        items += [_item(source.stem, "crack", r, c, size) for r, c in windows.crack.tolist()]
    elif mask.any():
        items.append(_item(source.stem, "crack", 0, 0, (height, width)))
    return Survey(source, tuple(items), digest(image), min(height, width) < cut.side)


def _item(source: str, label: Label, row: int, col: int, size: tuple[int, int]) -> Row:
    file = f"{label}/{window_name(source, row, col)}"
    return Row(file, label, source, row, col, *size, None)


def digest(image: NDArray[np.uint8]) -> bytes:
    """Hash pixels and shape: equal digests are equal images, whatever their files."""
    head = repr(image.shape).encode()
    return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).digest()

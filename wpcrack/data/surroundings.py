"""What lies around a window of a set: a larger picture in the folder `around/` beside it.

People who label see where they are, and the model that a training starts from sees enough of a
crack to know it: of windows alone it finds half (docs/experiments.md).

Shape letters: H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from wpcrack.data.images import write_jpeg
from wpcrack.data.manifest import CORNER, NAME, Row, read_surroundings

AROUND = "around"
"""Folder of these pictures in a set."""

MARGIN_SHARE = 2
"""A picture shows this part of the window's side beyond each edge: half of it. With more, the
shipped model finds no more in windows of 128 pixels, and .12 more of what whole pictures show in
those of 96."""


@dataclass(frozen=True)
class Surroundings:
    """A picture in which a window lies.

    Attributes:
        path: Of the picture.
        row: Of the window's upper edge in it, pixels; None: the window is in its middle.
        col: Of its left edge likewise.
    """

    path: Path
    row: int | None = None
    col: int | None = None

    @classmethod
    def of(cls, path: Path, row: int, col: int) -> Surroundings:
        """Place a window that was cut at pixel (row, col) of its source in a picture of a set.

        The corner at the end of the picture's name, `_r<row>_c<col>`, is counted likewise.
        """
        corner = CORNER.search(path.stem)
        if corner is None:
            return cls(path)
        return cls(path, row - int(corner[1]), col - int(corner[2]))

    def find(self, shape: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice] | None:
        """Return where a window of `size` lies in a picture of `shape`; None: not inside it."""
        corner = (self.row, self.col)
        found = []
        for length, side, start in zip(shape, size, corner, strict=True):
            first = (length - side) // 2 if start is None else start
            if not 0 <= first <= length - side:
                return None
            found.append(slice(first, first + side))
        return found[0], found[1]


def surroundings_name(window: str) -> str:
    """Name the picture around a window of a set, by the window's file.

    >>> surroundings_name("crack/street_r64_c0.png")
    'around/street_r64_c0_around.jpg'
    """
    return f"{AROUND}/{PurePosixPath(window).stem}_{AROUND}.jpg"


def cut_surroundings(
    image: NDArray[np.uint8], row: int, col: int, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Cut a window with its margin out of an image (H, W, 3), which is mirrored at its edges."""
    places, beyond = list[slice](), [(0, 0)]
    for first, side, length in zip((row, col), size, image.shape[:2], strict=True):
        start, end = first - side // MARGIN_SHARE, first + side + side // MARGIN_SHARE
        places.append(slice(max(start, 0), min(end, length)))
        beyond.insert(-1, (max(-start, 0), max(end - length, 0)))
    return np.pad(image[places[0], places[1]], beyond, mode="reflect")


def write_surroundings(folder: Path, file: str, picture: NDArray[np.uint8]) -> None:
    """Write the picture (H, W, 3) around a file of a set, which lies in its middle."""
    (folder / AROUND).mkdir(exist_ok=True)
    write_jpeg(folder / surroundings_name(file), picture)


def keep_surroundings(folder: Path, row: Row, image: NDArray[np.uint8]) -> None:
    """Write what lies around a crack window into its set; a whole image has no surroundings.

    Args:
        folder: Of the set.
        row: The window.
        image: (H, W, 3) that it was cut from.
    """
    size = row.height, row.width
    if row.label == "crack" and size != image.shape[:2]:
        write_surroundings(folder, row.file, cut_surroundings(image, row.row, row.col, size))


def find_surroundings(root: Path, files: Iterable[str]) -> tuple[dict[str, Path], list[str]]:
    """Return the pictures around files of a set, and the files whose picture is lost.

    The manifest's column `surroundings` names them; where it does not, they are looked for as
    `keep_surroundings` writes them.

    Raises:
        DataError: The manifest cannot be read.
    """
    path, kept = root / NAME, root / AROUND
    named = read_surroundings(path) if path.exists() else {}
    there = {f"{AROUND}/{name}" for name in os.listdir(kept)} if kept.is_dir() else set()
    found, lost = dict[str, Path](), list[str]()
    for file in files:
        if name := named.get(file):
            if (root / name).is_file():
                found[file] = root / name
            else:
                lost.append(file)
        elif surroundings_name(file) in there:
            found[file] = root / surroundings_name(file)
    return found, lost

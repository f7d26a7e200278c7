"""The picture of a large map, of small ones that are made where the pixels of blocks are read.

A pixel of the picture belongs to the block that holds its middle, and is the mean of what the block
knows of its ground. Where the picture is not reduced it is that of `geo.imagery.overview.reduce`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geo.grid import Grid, Window
from geo.imagery.overview import Overview, reduced_grid, turn_upright

_PLACE = struct.Struct("<2q")
"""Row and column in the picture, before the PNG; a thumbnail of no pixel has nothing behind it."""


@dataclass(frozen=True)
class PictureGrid:
    """The picture in the pixels of a mosaic.

    Attributes:
        grid: of the mosaic.
        longest_px: longer side of the picture, at most.
    """

    grid: Grid
    longest_px: int

    @property
    def small(self) -> Grid:
        """Grid of the picture."""
        return reduced_grid(self.grid, self.longest_px)

    def thumbnail(self, image: NDArray[np.uint8], valid: NDArray[np.bool_], part: Window) -> str:
        """Reduce the pixels of a block.

        Args:
            image: (H, W, 3).
            valid: (H, W), where there is imagery.
            part: of the mosaic, that of the image.

        Returns:
            What `compose` takes, as text.
        """
        full, small = self.grid.shape, self.small.shape
        rows = _edges(part.row_off, part.row_end, full[0], small[0])
        cols = _edges(part.col_off, part.col_end, full[1], small[1])
        place = _PLACE.pack(rows.first, cols.first)
        if not (rows.count and cols.count):
            return base64.b64encode(place).decode("ascii")
        count = _sums(valid[..., None], rows, cols)
        light = _sums(np.where(valid[..., None], image, np.uint8(0)), rows, cols)
        mean = (light + count // 2) // np.maximum(count, 1)
        alpha = np.where(2 * count >= np.outer(rows.sizes, cols.sizes)[..., None], 255, 0)
        picture = np.concatenate((mean[..., ::-1], alpha), axis=2).astype(np.uint8)
        picture[alpha[..., 0] == 0] = 0
        _, png = cv2.imencode(".png", picture)
        return base64.b64encode(place + png.tobytes()).decode("ascii")

    def compose(self, thumbnails: Iterable[str]) -> Overview | None:
        """Put the thumbnails of all blocks with imagery together.

        Returns:
            The picture; None if one is missing (""), or damaged.
        """
        small = self.small
        image, valid = np.zeros((*small.shape, 3), np.uint8), np.zeros(small.shape, bool)
        for text in thumbnails:
            try:
                data = base64.b64decode(text, validate=True)
                row, col = _PLACE.unpack_from(data)
            except (ValueError, struct.error):
                return None
            if len(data) == _PLACE.size:
                continue
            picture = cv2.imdecode(
                np.frombuffer(data, np.uint8, offset=_PLACE.size), cv2.IMREAD_UNCHANGED
            )
            if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
                return None
            here = Window(row, col, *picture.shape[:2])
            if here.intersection(small.window) != here:
                return None
            at, seen = here.slices_in(small.window), picture[..., 3] > 0
            image[at][seen] = picture[seen][:, 2::-1]
            valid[at] |= seen
        return turn_upright(Overview(image, valid, small))


@dataclass(frozen=True, eq=False)
class _Edges:
    """Pixels of the picture along one side of a part of the mosaic.

    Attributes:
        first: of them.
        starts: (N,) where each begins, in pixels from the start of the part.
        end: where the last one ends.
    """

    first: int
    starts: NDArray[np.int64]
    end: int

    @property
    def count(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.starts, append=self.end)


def _edges(start: int, end: int, full: int, small: int) -> _Edges:
    """Return the pixels of the picture whose middle, rounded down, lies in a range of the mosaic.

    Args:
        start: of the range.
        end: of the range.
        full: pixels of the mosaic.
        small: pixels of the picture, at most as many.
    """
    first, beyond = (max(0, side * small // full - 1) for side in (start, end))
    numbers = np.arange(first, beyond + 3)
    middles = (2 * numbers + 1) * full // (2 * small)
    numbers = numbers[(middles >= start) & (middles < end)]
    if not len(numbers):
        return _Edges(first, numbers, 0)
    between = (2 * np.append(numbers, numbers[-1] + 1) * full + small) // (2 * small)
    clipped = np.clip(between, start, end) - start
    return _Edges(int(numbers[0]), clipped[:-1], int(clipped[-1]))


def _sums(values: NDArray[np.generic], rows: _Edges, cols: _Edges) -> NDArray[np.int64]:
    """Sum (H, W, C) values over the pixels of the picture."""
    down = np.add.reduceat(values[: rows.end], rows.starts, axis=0, dtype=np.int64)
    return np.asarray(np.add.reduceat(down[:, : cols.end], cols.starts, axis=1), np.int64)

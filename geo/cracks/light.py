"""Gray values of the imagery around cracks: a window of it, or strips along pieces at seams.

The width of a crack comes from the light beside it (`geo.cracks.width`). A piece at a seam is
measured when the map is assembled, without the imagery, so a strip of it is kept with the piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from geo.arrays import Float32, IntArray
from geo.grid import Window

Gray = NDArray[np.uint8]

NOT_SEEN = 0
"""Gray value where there is no imagery; black pixels of imagery are 1."""

TILE_PX = 32
"""Side of the tiles of a `Patchwork`, about the width of a strip."""

_LIGHT = np.where(np.arange(256) == NOT_SEEN, np.nan, np.arange(256)).astype(np.float32)
"""Of each gray value."""


class Pixels(Protocol):
    """Imagery that can be asked for the light at pixels of the mosaic."""

    def at(self, rows: IntArray, cols: IntArray) -> Float32:
        """Return gray values of pixels of any shape; nan where there is none."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Gray values of a window of the mosaic.

    Attributes:
        gray: (H, W), in proportion to the light; NOT_SEEN where there is no imagery.
        window: of the mosaic.
    """

    gray: Gray
    window: Window

    @classmethod
    def of_bands(cls, image: Gray, valid: NDArray[np.bool_], window: Window) -> Picture:
        """Make gray values of an image.

        Args:
            image: (H, W) or (H, W, bands).
            valid: (H, W), where there is imagery.
            window: of the mosaic.
        """
        bands = image if image.ndim == 3 else image[..., None]
        count = bands.shape[2]
        total = bands[..., 0].astype(np.uint16)
        for band in range(1, count):  # a sum over the last axis is slow
            total += bands[..., band]
        means = (np.arange(255 * count + 1) + count // 2) // count
        gray = np.maximum(means, NOT_SEEN + 1).astype(np.uint8)[total]
        return cls(np.where(valid, gray, np.uint8(NOT_SEEN)), window)

    @classmethod
    def none(cls, window: Window) -> Picture:
        """Make a window of which nothing was seen."""
        return cls(np.full((window.height, window.width), NOT_SEEN, np.uint8), window)

    def at(self, rows: IntArray, cols: IntArray) -> Float32:
        """See `Pixels`."""
        height, width = self.gray.shape
        row, col = rows - self.window.row_off, cols - self.window.col_off
        known = (row >= 0) & (row < height) & (col >= 0) & (col < width)
        if known.all():
            return np.asarray(_LIGHT[self.gray.ravel()[row * width + col]])
        place = np.clip(row, 0, height - 1) * width + np.clip(col, 0, width - 1)
        return np.asarray(_LIGHT[np.where(known, self.gray.ravel()[place], NOT_SEEN)])

    def near(self, pixels: IntArray, reach_px: int) -> Picture:
        """Cut out what lies near pixels (N, 2) row, col; the rest of the window is not seen."""
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        whole = Window(*low.tolist(), *(high - low + 1).tolist()).pad(reach_px)
        mask = np.zeros((whole.height, whole.width), np.uint8)
        mask[tuple((pixels - low + reach_px).T)] = 1
        window = whole.intersection(self.window)
        assert window is not None, "the pixels lie in the picture"
        near = widen(mask, reach_px)[window.slices_in(whole)]
        return Picture(np.where(near, self.gray[window.slices_in(self.window)], NOT_SEEN), window)


def widen(mask: Gray, reach_px: int) -> NDArray[np.bool_]:
    """Return (H, W) bool: the pixels at most so many rows and columns away from one that is set."""
    side = 2 * reach_px + 1
    return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), np.bool_)


class Patchwork:
    """Several pictures, which may overlap, as one: square tiles of those places that were seen.

    Strips along cracks fill a small part of the window around them all, so the tiles need little
    more than a byte per pixel of the strips.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        """Sort the tiles; where pictures overlap they are equal."""
        self._left = min((p.window.col_off // TILE_PX for p in pictures), default=0)
        self._right = max((-(-p.window.col_end // TILE_PX) for p in pictures), default=1)
        found = [_tiles(picture) for picture in pictures]
        keys = [self._keys(rows, cols) for rows, cols, _ in found]
        self._known = np.unique(np.concatenate([np.empty(0, np.int64), *keys]))
        tiles = np.full((len(self._known) + 1, TILE_PX, TILE_PX), NOT_SEEN, np.uint8)
        for key, (_, _, shown) in zip(keys, found, strict=True):
            index = np.searchsorted(self._known, key)
            tiles[index] = np.maximum(tiles[index], shown)
        self._gray = tiles.ravel()

    def at(self, rows: IntArray, cols: IntArray) -> Float32:
        """See `Pixels`."""
        row, down = np.divmod(rows, TILE_PX)
        col, across = np.divmod(cols, TILE_PX)
        keys = self._keys(row, col)
        index = np.searchsorted(self._known, keys)
        there = np.append(self._known, np.iinfo(np.int64).max)[index] == keys
        there &= (col >= self._left) & (col < self._right)
        index[~there] = len(self._known)
        return np.asarray(_LIGHT[self._gray[(index * TILE_PX + down) * TILE_PX + across]])

    def _keys(self, rows: IntArray, cols: IntArray) -> IntArray:
        keys: IntArray = rows * (self._right - self._left) + cols - self._left
        return keys


def _tiles(picture: Picture) -> tuple[IntArray, IntArray, Gray]:
    """Return row and column (T,) of the tiles of the mosaic with pixels of a picture, and them."""
    here = picture.window
    top, left = here.row_off // TILE_PX, here.col_off // TILE_PX
    height, width = -(-here.row_end // TILE_PX) - top, -(-here.col_end // TILE_PX) - left
    whole = Window(top * TILE_PX, left * TILE_PX, height * TILE_PX, width * TILE_PX)
    canvas = np.full((whole.height, whole.width), NOT_SEEN, np.uint8)
    canvas[here.slices_in(whole)] = picture.gray
    tiles = canvas.reshape(height, TILE_PX, width, TILE_PX).swapaxes(1, 2)
    rows, cols = np.nonzero(tiles.any(axis=(2, 3)))
    return rows + top, cols + left, tiles[rows, cols]

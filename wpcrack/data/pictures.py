"""The pictures of a training set, decoded and cut to one size.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wpcrack.data.images import read_rgb
from wpcrack.data.read import Item
from wpcrack.errors import DataError

SIDE_MULTIPLE = 16
"""Image sides are padded to a multiple of this: encoder stride 8, decoder stride 2 and a down."""
SMALLEST_SIDE = 32
CACHE_BYTES = 2 * 2**30
"""Decoded images kept in memory, per worker."""
MOST_OFTEN_MISSED = 4.0
"""Pictures of more than so many windows: most cuts miss the crack that one of them shows."""


class Images:
    """Decoded images, cut to one size, by item number; small sets stay in memory.

    The size is the usual one of that class whose images are smaller, so that whole photographs with
    a crack and windows without one are seen alike, and at most `window_px` on each side. Larger
    images are cut at random: a cut that misses the crack keeps its label, which pooling over the
    CAM and pseudo labels from it bear.
    """

    def __init__(self, items: Sequence[Item], window_px: int | None = None) -> None:
        self.items = tuple(items)
        smallest = min(min(i.height, i.width) for i in self.items)
        if smallest < SMALLEST_SIDE:
            raise DataError(
                f"an image is only {smallest} pixels wide, at least {SMALLEST_SIDE} are needed; "
                "leave it out or cut larger windows"
            )
        height, width = common_size(self.items)
        self.size = (min(height, window_px or height), min(width, window_px or width))
        self._kept: dict[int, NDArray[np.uint8]] = {}
        decoded = sum(i.height * i.width * 3 for i in self.items)
        self.kept_bytes = decoded if decoded <= CACHE_BYTES else 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say that cuts out of large crack images mostly miss the crack."""
        height, width = self.size
        sizes = [(i.height, i.width) for i in self.items if i.has_crack]
        large = [s for s in sizes if s[0] * s[1] > MOST_OFTEN_MISSED * height * width]
        if 2 * len(large) <= len(sizes):
            return ()
        rows, cols = max(large)
        return (
            f"windows of {width} x {height} px are cut at random out of crack images of up to "
            f"{cols} x {rows} px, and most of them will not show the crack; the model learns "
            "better from pictures cut to about that size and then sorted",
        )

    def __len__(self) -> int:
        """Count the images."""
        return len(self.items)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Read a whole image, uint8, at least (H, W, 3): smaller ones are reflected at an edge."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        image = reflect_to(read_rgb(self.items[index].path), self.size)
        if self.kept_bytes:
            self._kept[index] = image
        return image

    def cut(
        self, index: int, rng: np.random.Generator, beside: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Cut a random (H, W, 3) out of a larger image; the generator serves only those.

        Args:
            index: of the image.
            rng: draws the place.
            beside: (h, w) of the image as it is in its file, which becomes a fourth channel.
        """
        image = self[index]
        if beside is not None:
            image = np.dstack((image, reflect_to(beside[..., None], self.size)))
        for axis, side in enumerate(self.size):
            if image.shape[axis] > side:
                start = int(rng.integers(image.shape[axis] - side + 1))
                image = image.take(range(start, start + side), axis)
        return image

    def still(self, index: int, beside: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Cut (H, W, 3) out of a larger image, the same each time: for validation; see `cut`."""
        return self.cut(index, np.random.default_rng(index), beside)


def common_size(items: Sequence[Item]) -> tuple[int, int]:
    """Return (H, W): the median sides of the class with smaller images, up to a multiple of 16."""
    classes = [[i for i in items if i.has_crack == c] for c in (True, False)]
    members = [side for side in classes if side]
    height = min(np.median([i.height for i in side]) for side in members)
    width = min(np.median([i.width for i in side]) for side in members)
    return up_to_multiple(int(height)), up_to_multiple(int(width))


def up_to_multiple(side: int) -> int:
    """Round a side up to a multiple of SIDE_MULTIPLE.

    >>> up_to_multiple(96), up_to_multiple(100)
    (96, 112)
    """
    return -(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE


def reflect_to(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Continue an image by reflection at its lower and right edge up to (H, W)."""
    down, right = size[0] - image.shape[0], size[1] - image.shape[1]
    if down <= 0 and right <= 0:
        return image
    return np.pad(image, ((0, max(down, 0)), (0, max(right, 0)), (0, 0)), mode="reflect")

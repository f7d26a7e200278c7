"""Photographs of any size, side by side on one plane, so that they are sampled as tiles are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geo.errors import count_of
from geo.grid import Window
from wpcrack.data.images import read_rgb, read_shape
from wpcrack.errors import DataError, first_few


@dataclass(frozen=True, eq=False)
class Seen:
    """Pixels of a window: image (H, W, 3), and where there is one (H, W)."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]


class Photographs:
    """A `geo.imagery.samples.Ground` of photographs, read one after the other."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        """Lay photographs side by side; those that cannot be read or are too small stay out.

        Args:
            paths: of the photographs.
            side: of the windows in pixels; between two photographs lies more than their
                surroundings.

        Raises:
            DataError: no photograph holds a window.
        """
        self.failures: dict[Path, str] = {}
        shapes: dict[Path, tuple[int, int]] = {}
        for path in paths:
            try:
                shapes[path] = read_shape(path)
            except DataError as error:
                self.failures[path] = str(error)
        self.small = [path for path, shape in shapes.items() if min(shape) < side]
        self.paths = [path for path in shapes if path not in set(self.small)]
        if not self.paths:
            raise DataError(
                f"no photograph holds a window of {side} pixels ({self.left_out}); give larger "
                "ones, or choose smaller windows"
            )
        widths = [shapes[path][1] + 4 * side for path in self.paths]
        starts = [0, *accumulate(widths)][:-1]
        self.windows = tuple(
            Window(0, start, *shapes[path]) for start, path in zip(starts, self.paths, strict=True)
        )
        self._starts = [start - 2 * side for start in starts]
        self._last: tuple[int, NDArray[np.uint8] | None] = (-1, None)

    @property
    def left_out(self) -> str:
        """Say which photographs are left out, and why; empty if none is."""
        found = [first_few(self.failures.values())] if self.failures else []
        if self.small:
            names = first_few(path.name for path in self.small)
            found.append(
                f"{count_of(len(self.small), 'photograph')} smaller than a window: {names}"
            )
        return "; ".join(found)

    def read(self, window: Window) -> Seen:
        """Read a window; beyond the photograph, and if it is damaged, nothing is valid."""
        number = bisect_right(self._starts, window.col_off + window.width // 2) - 1
        image = self._photograph(number)
        pixels = np.zeros((window.height, window.width, 3), np.uint8)
        valid = np.zeros(pixels.shape[:2], bool)
        place = self.windows[number]
        common = window.intersection(place)
        if image is not None and common is not None:
            here = common.slices_in(window)
            pixels[here], valid[here] = image[common.slices_in(place)], True
        return Seen(pixels, valid)

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """Return which pixels (H, W) may be taken: all."""
        return np.ones((window.height, window.width), bool)

    def _photograph(self, number: int) -> NDArray[np.uint8] | None:
        """Decode a photograph; the last one is kept."""
        if self._last[0] != number:
            path, image = self.paths[number], None
            if path not in self.failures:
                try:
                    image = read_rgb(path)
                except DataError as error:
                    self.failures[path] = str(error)
            self._last = number, image
        return self._last[1]

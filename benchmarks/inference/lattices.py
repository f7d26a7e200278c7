"""Compare lattices of windows: what they cost, and what the borders of their windows change.

Run from the repository root:
    python -m benchmarks.inference.lattices [--seeds 100 103] [--gsd-mm 5]

A part of the drawn city of each seed is mapped with the shipped model on one thread, once for each
lattice. The measure is a lattice of windows of 1024 pixels of which the inner half counts: the
share of pixels that are crack there or here but not in both, of all that are crack there. What a
window costs depends on how many pixels are predicted for each pixel of a whole block.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from geo.grid import Window
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import DEFAULT_THRESHOLD, WindowPredictor, predict_block
from wpcrack.synthetic import CityConfig, draw_city

BEFORE = Lattice(window=512, overlap=64, blend=32), 8
"""The default of the versions before, and the strides of its blocks."""

CHOICES = (
    BEFORE,
    (Lattice(window=512, overlap=64, blend=0), 8),
    (Lattice(window=512, overlap=32, blend=0), 8),
    (Lattice(window=640, overlap=64, blend=0), 6),
    (Lattice(window=768, overlap=64, blend=0), 5),
    (Lattice(window=768, overlap=32, blend=0), 5),
    (Lattice(window=768, overlap=96, blend=0), 5),
)
"""Lattices, and strides that make blocks of some 3500 pixels."""

MEASURE = Lattice(window=1024, overlap=256, blend=0)

SIDE_PX = 2000


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels that windows are read from.

    Attributes:
        image: (H, W, 3) RGB.
        valid: (H, W).
    """

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]

    def read(self, row: int, col: int, height: int, width: int) -> Picture:
        """Return a rectangle that may reach beyond the picture."""
        found = Picture(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool))
        rows, cols = self.valid.shape
        top, left, bottom, right = (
            *(max(row, 0), max(col, 0), min(row + height, rows), min(col + width, cols)),
        )
        there = np.s_[top - row : bottom - row, left - col : right - col]
        found.image[there] = self.image[top:bottom, left:right]
        found.valid[there] = self.valid[top:bottom, left:right]
        return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 103])
    parser.add_argument("--gsd-mm", type=float, default=5.0, help="chooses the model's scales")
    options = parser.parse_args()
    predictor = load_predictor(None, threads=1, gsd_mm=options.gsd_mm)
    head = "".join(f"{f'changed, {seed}':>16}{'s':>8}" for seed in options.seeds)
    print(f"{machine(1)}\n{'window, overlap, blend':24}{'pixels':>8}{'ratio':>8}{head}")
    pictures = [part_of_city(seed) for seed in options.seeds]
    wanted = [mask_of(picture, predictor, MEASURE)[0] for picture in pictures]
    for lattice, strides in CHOICES:
        text = f"{lattice.window}, {lattice.overlap}, {lattice.blend}"
        cost = pixels_per_pixel(lattice, strides)
        row = f"{text:24}{cost:8.2f}{pixels_per_pixel(*BEFORE) / cost:8.2f}"
        for picture, mask in zip(pictures, wanted, strict=True):
            found, seconds = mask_of(picture, predictor, lattice)
            row += f"{(found != mask).sum() / max(1, mask.sum()):16.4f}{seconds:8.1f}"
        print(row, flush=True)


def part_of_city(seed: int) -> Picture:
    """Return the square of a drawn city with most imagery around its first junction."""
    child = np.random.SeedSequence(seed).spawn(2)[1]
    city = draw_city(CityConfig(), int(child.generate_state(1)[0]))
    side = city.config.tile_px
    image = np.zeros((*city.shape, 3), np.uint8)
    for tile in city.tiles():
        image[tile.row_off : tile.row_off + side, tile.col_off : tile.col_off + side] = tile.image
    valid = image.max(axis=2) > 0
    sums = np.pad(valid.astype(np.int32).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    step, reach = side // 8, SIDE_PX
    inside = sums[reach:, reach:] - sums[:-reach, reach:] - sums[reach:, :-reach]
    inside = (inside + sums[:-reach, :-reach])[::step, ::step]
    row, col = (step * int(k) for k in np.unravel_index(inside.argmax(), inside.shape))
    here = np.s_[row : row + reach, col : col + reach]
    return Picture(image[here], valid[here])


def mask_of(
    picture: Picture, predictor: WindowPredictor, lattice: Lattice
) -> tuple[NDArray[np.bool_], float]:
    """Return what is crack, and CPU seconds."""
    started = time.process_time()
    block = Window(0, 0, *picture.valid.shape)
    found = predict_block(picture.read, predictor, block, lattice, batch=4)
    return found >= DEFAULT_THRESHOLD * 255, time.process_time() - started


def pixels_per_pixel(lattice: Lattice, strides: int) -> float:
    """Return how many pixels are predicted for each pixel of a whole block inside a mosaic."""
    side = strides * lattice.stride
    along = len(lattice.spans(side, 2 * side)) * lattice.window
    return (along / side) ** 2


if __name__ == "__main__":
    main()

"""What a worker sees of one block: read once, cut for the network, remembered for the map."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import astuple
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo import grid
from geo.mosaic import TileProblem
from jobs.infer_reading import BlockReader
from wpcrack.lattice import Window


class BlockView:
    """Reads what is wanted of a block once, then waits for the model; remembers what it saw."""

    def __init__(
        self, pixels: BlockReader, block: grid.Window, turn: ExitStack, model: threading.Lock
    ) -> None:
        self.pixels = pixels
        self.block = block
        self.turn = turn
        self.model = model
        self.waited_s = 0.0
        self.ring = np.zeros((block.height + 2, block.width + 2), bool)
        self.failures: tuple[TileProblem, ...] = ()
        self.gsd_m = pixels.mosaic.grid.gsd_m
        self.sizes_m: NDArray[np.float64] | None = None

    def read(self, window: Window) -> Pixels:
        """Pixels of a window; one pixel more on each side is read to know all their neighbors."""
        asked = grid.Window(*astuple(window))
        outer = asked.pad(1)
        raster = self.pixels.read(outer)
        self.ring = with_ring(raster.valid, self.block, outer)
        self.failures = raster.failures
        self.gsd_m = raster.gsd_m
        if raster.sizes_m is not None:
            self.sizes_m = np.zeros((self.block.height, self.block.width))
            seen = self.block.intersection(outer)
            assert seen is not None, "what is read of a block meets it"
            self.sizes_m[seen.slices_in(self.block)] = raster.sizes_m[seen.slices_in(outer)]
        start = time.monotonic()
        self.turn.enter_context(self.model)
        self.waited_s = time.monotonic() - start
        here = asked.slices_in(outer)
        return Pixels(raster.image[here], raster.valid[here])


class Pixels(NamedTuple):
    """What the network is shown: (H, W, 3) uint8, and (H, W) bool where there is imagery."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]


def with_ring(
    valid: NDArray[np.bool_], block: grid.Window, outer: grid.Window
) -> NDArray[np.bool_]:
    """Where there is imagery in a block and one pixel around it.

    Args:
        valid: (outer.height, outer.width) bool.
        block: the block.
        outer: what was read, which meets the block.

    Returns:
        (block.height + 2, block.width + 2) bool; False where nothing was read.
    """
    around = block.pad(1)
    ring = np.zeros((around.height, around.width), bool)
    common = around.intersection(outer)
    assert common is not None, "what is read of a block meets it"
    ring[common.slices_in(around)] = valid[common.slices_in(outer)]
    return ring

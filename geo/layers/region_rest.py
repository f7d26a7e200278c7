"""What crosses the sides of regions and of the windows over them: the last of a map of regions.

These pieces lie around the places where both kinds of sides meet. Those farther from each other
than the halo have nothing to do with each other, so they are worked on batch by batch, in bounded
memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from geo.arrays import BoolArray, IntArray
from geo.cracks.pixel_set import graph_components, ramps
from geo.cracks.regions import BOX, MEASURED, WHOLE, RegionFiles, boxes
from geo.files import write_text
from geo.grid import Window
from geo.layers.part_of_map import part_of_map
from geo.layers.region_map import RegionMap, RegionSteps, cracks_of, once_each, write_rows
from geo.layers.totals import MapTotals

PIECES_AT_ONCE = 16
"""Least pieces of a batch, but for the last. All that lies within the halo of them, which is some
30 m, comes on top and is much more."""


@dataclass(frozen=True, eq=False)
class _Left:
    """Pieces that no window has decided: of which window (N,), and their boxes (N, 4)."""

    window: IntArray
    sides: IntArray


def decide_rest(steps: RegionSteps) -> list[RegionFiles]:
    """Find the cracks that cross the sides of both lattices.

    A batch that an earlier try has finished is not done again.

    Returns:
        The files of each batch: rows of all layers, the sums of the roads, `totals.json`.

    Raises:
        InputError: a file cannot be read.
        OSError: a file cannot be written.
    """
    left = _find_left(steps)
    found = []
    for number, batch in enumerate(_batches(left, steps.at.halo_px)):
        files = steps.rest(number)
        if not files.path("totals.json").exists():
            _decide(batch, left, files, steps)
        found.append(files)
    return found


def _find_left(steps: RegionSteps) -> _Left:
    tables = [steps.decision_files(window).table("open", BOX) for window in steps.windows]
    counts = [len(table) for table in tables]
    return _Left(np.repeat(np.arange(len(counts)), counts), boxes(pa.concat_tables(tables)))


def _batches(left: _Left, halo_px: int) -> Iterator[BoolArray]:
    """Yield which pieces (N,) are decided together: whole groups, in the order of the windows."""
    if not len(left.sides):
        return
    group = _groups(left.sides, halo_px)
    sizes = np.bincount(group)  # groups count by their first piece
    batch = (np.cumsum(sizes) - sizes) // PIECES_AT_ONCE
    for number in np.unique(batch):
        yield batch[group] == number


def _groups(sides: IntArray, halo_px: int) -> IntArray:
    """Return (N,) groups of boxes; those of two groups lie farther apart than twice the halo.

    Boxes that are grown by the halo and touch the same cell of a finer lattice go together.
    """
    cell = max(1, halo_px // 4)
    low, high = (sides[:, :2] - halo_px) // cell, (sides[:, 2:] + halo_px) // cell
    spans = high - low + 1
    piece, step = ramps(spans.prod(axis=1))
    x, y = low[piece, 0] + step % spans[piece, 0], low[piece, 1] + step // spans[piece, 0]
    _, place = np.unique((y - y.min()) * (np.ptp(x) + 1) + x - x.min(), return_inverse=True)
    count = len(sides)
    group = graph_components(piece, count + place, count + int(place.max()) + 1)
    return np.asarray(group[:count], np.int64)


def _decide(batch: BoolArray, left: _Left, out: RegionFiles, steps: RegionSteps) -> None:
    """Write the rows of the pieces of a batch."""
    own, contexts = [], []
    for number, window in enumerate(steps.windows):
        files, mine = steps.decision_files(window), batch[left.window == number]
        if mine.any():
            own.append(files.table("open", WHOLE).filter(pa.array(mine)))
        if _comes_near(window.window.pad(steps.at.halo_px), left.sides[batch]):
            contexts.append(files.table("context", MEASURED))
    pieces = pa.concat_tables(own)
    everything = cracks_of(once_each([pieces, *contexts], steps.at.grid), steps.at)
    chosen = part_of_map(everything, everything.branches.piece < len(pieces))
    write_rows(RegionMap(chosen, [pieces]), out, steps.at)
    write_text(out.path("totals.json"), json.dumps(MapTotals.of(chosen).values()))


def _comes_near(window: Window, sides: IntArray) -> bool:
    """Return whether any box touches a window."""
    west, north, east, south = sides.T
    beside = (west <= window.col_end) & (east >= window.col_off)
    return bool((beside & (north <= window.row_end) & (south >= window.row_off)).any())

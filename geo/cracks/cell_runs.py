"""A set of cells as runs along its rows: a large area costs what its border costs.

A field of alligator cracking of a hectare has 25 million cells, and runs of hundreds of cells.
Everything that cells away from the border would say is known from the runs alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from geo.arrays import BoolArray, IntArray
from geo.cracks.pixel_set import (
    NE,
    NW,
    SE,
    SW,
    E,
    N,
    Owner,
    PixelSet,
    S,
    W,
    graph_components,
    ramps,
)

MARGIN = 1
"""Free cells around the set, so that no cell neighbors another row."""


@dataclass(frozen=True, eq=False)
class Spans:
    """R runs of keys, ascending, without overlap; ``end`` is behind the last key of each."""

    begin: IntArray
    end: IntArray

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def lengths(self) -> IntArray:
        """(R,) keys of each."""
        return self.end - self.begin

    @property
    def keys(self) -> IntArray:
        """All keys, ascending."""
        run, within = ramps(self.lengths)
        return self.begin[run] + within

    def move(self, step: int) -> Spans:
        """Return all keys and a step."""
        return Spans(self.begin + step, self.end + step)

    def shrunk(self) -> Spans:
        """Return the runs without their first and last keys."""
        kept = self.lengths > 2
        return Spans(self.begin[kept] + 1, self.end[kept] - 1)

    def meeting(self, other: Spans, reach: int = 0) -> tuple[IntArray, IntArray]:
        """Return pairs of own and other runs with a key in common, or at most ``reach`` apart."""
        low = np.searchsorted(other.end, self.begin - reach, "right")
        high = np.searchsorted(other.begin, self.end + reach)
        index, within = ramps(np.maximum(high - low, 0))
        return index, low[index] + within

    def common(self, other: Spans) -> Spans:
        """Return keys in both."""
        one, two = self.meeting(other)
        return Spans(
            np.maximum(self.begin[one], other.begin[two]), np.minimum(self.end[one], other.end[two])
        )

    def without(self, inner: Spans) -> Spans:
        """Return keys that are not in ``inner``, all of whose runs lie within own ones."""
        begin = np.sort(np.append(self.begin, inner.end))
        end = np.sort(np.append(self.end, inner.begin))
        there = end > begin
        return Spans(begin[there], end[there])

    def run_of(self, keys: IntArray) -> IntArray:
        """Return (K,) run in which each key lies; -1 for none."""
        run = np.searchsorted(self.begin, keys, "right") - 1
        inside = (run >= 0) & (keys < np.append(self.end, 0)[run])
        return np.where(inside, run, -1)

    def around(self, keys: IntArray) -> tuple[BoolArray, BoolArray, BoolArray]:
        """Return whether the key before each (K,), the key itself, and the one behind it are there.

        Runs do not touch: the last one that begins up to the key behind tells all three, but for
        one that ends right before it.
        """
        last = np.searchsorted(self.begin, keys + 1, "right") - 1
        nothing = np.iinfo(np.int64)
        begins, ends = np.append(self.begin, nothing.max), np.append(self.end, nothing.min)
        begin, end = begins[last], ends[last]
        before = (begin < keys) & (keys <= end)
        before |= (begin == keys + 1) & (ends[last - 1] == keys)
        return before, (begin <= keys) & (keys < end), (begin <= keys + 1) & (keys + 1 < end)


@dataclass(frozen=True, eq=False)
class CellRuns:
    """Cells in raster order as R runs.

    Attributes:
        spans: the key of cell (row, col) is row * stride + col, counted from the offsets.
        stride: more than the width, so that no run reaches the next row.
        row_off, col_off: place of the cell with key 0.
    """

    spans: Spans
    stride: int
    row_off: int
    col_off: int

    @classmethod
    def of_runs(cls, runs: IntArray) -> CellRuns:
        """Take runs (R, 3), at least one: row, first column, column behind the last.

        They come in any order and do not overlap; those that touch in a row become one.
        """
        rows, begins, ends = runs.T
        row_off, col_off = int(rows.min()) - MARGIN, int(begins.min()) - MARGIN
        stride = int(ends.max()) - col_off + MARGIN
        start = (rows - row_off) * stride - col_off
        order = np.argsort(start + begins)
        begin, end = (start + begins)[order], (start + ends)[order]
        first = np.append(True, begin[1:] != end[:-1])
        last = np.append(first[1:], True)
        return cls(Spans(begin[first], end[last]), stride, row_off, col_off)

    def __len__(self) -> int:
        """Return the number of cells."""
        return int(self.spans.lengths.sum())

    @cached_property
    def components(self) -> Owner:
        """(R,) 8-connected component of each run, by first cell."""
        return self._regions(1)

    @cached_property
    def parts(self) -> Owner:
        """(R,) 4-connected component of each run, by first cell."""
        return self._regions(0)

    def _regions(self, reach: int) -> Owner:
        one, other = self.spans.move(self.stride).meeting(self.spans, reach)
        return graph_components(one, other, len(self.spans))

    @property
    def sizes(self) -> IntArray:
        """(C,) cells of each component."""
        return np.bincount(self.components, self.spans.lengths).astype(np.int64)

    def component_at(self, x: IntArray, y: IntArray) -> IntArray:
        """Return (K,) component of cells; -1 for none."""
        col, row = x - self.col_off, y - self.row_off
        run = self.spans.run_of(row * self.stride + col)
        inside = (col >= 0) & (col < self.stride) & (run >= 0)
        return np.where(inside, np.append(self.components, -1)[run], -1)

    def take(self, components: NDArray[np.bool_]) -> CellRuns:
        """Return the cells of some components (C,), with the same keys."""
        kept = components[self.components]
        spans = Spans(self.spans.begin[kept], self.spans.end[kept])
        return CellRuns(spans, self.stride, self.row_off, self.col_off)

    @cached_property
    def border(self) -> PixelSet:
        """Cells that have a neighbor outside, but with neighbors and components of the whole set.

        Outlines run along them, so those of the border are those of the set.
        """
        inner = self.spans.shrunk()
        inside = inner.common(inner.move(self.stride)).common(inner.move(-self.stride))
        keys = self.spans.without(inside).keys
        pixels = PixelSet(keys, self.stride, self.row_off, self.col_off)
        run = self.spans.run_of(keys)
        codes = (keys + 1 < self.spans.end[run]).astype(np.uint8) << np.uint8(E)
        codes |= (keys > self.spans.begin[run]).astype(np.uint8) << np.uint8(W)
        for side, row in (((NW, N, NE), -self.stride), ((SW, S, SE), self.stride)):
            for number, there in zip(side, self.spans.around(keys + row), strict=True):
                codes |= there.astype(np.uint8) << np.uint8(number)
        return pixels.with_codes(codes, self.parts[run], self.components[run])


def runs_of_mask(mask: NDArray[np.generic]) -> IntArray:
    """Return (R, 3) runs of true cells of a raster: row, first column, column behind the last."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    rows, begins = np.nonzero(steps == 1)
    return np.column_stack((rows, begins, np.nonzero(steps == -1)[1]))

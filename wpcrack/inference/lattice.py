"""The global lattice of windows: where they lie and how neighbors are blended.

Along each axis, with S = window - overlap, m = (overlap - blend) / 2 and b = blend, window k serves
the cell [k S, (k + 1) S) and reads the pixels from k S - b - m on::

    read    [k S - b - m ........................................ (k + 1) S + m)
    weight      0 (m)   rises over b    one          falls over b     0 (m)
                     [k S - b, k S)             [(k + 1) S - b, (k + 1) S)

The weights of all windows add up to one on each pixel. They depend on the pixel's place in the
job's grid alone, so a probability does not depend on how an area is cut into blocks. A block of n
whole strides needs n windows along an axis, and n + 1 where they are blended (b > 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wpcrack.config_block import Block


class Window(Protocol):
    """Any record of a rectangle of pixels in the job's grid; offsets may be negative."""

    @property
    def row_off(self) -> int:
        """First row."""

    @property
    def col_off(self) -> int:
        """First column."""

    @property
    def height(self) -> int:
        """Number of rows."""

    @property
    def width(self) -> int:
        """Number of columns."""


@dataclass(frozen=True)
class Span:
    """One axis of a window: its first pixel and the blending weight of each of its pixels."""

    start: int
    weights: NDArray[np.float32]
    """(length,), in [0, 1]."""

    @property
    def stop(self) -> int:
        """First pixel behind the span."""
        return self.start + len(self.weights)

    @property
    def support(self) -> slice:
        """The pixels that have a weight."""
        first, last = np.flatnonzero(self.weights)[[0, -1]]
        return slice(self.start + int(first), self.start + int(last) + 1)


class Lattice(Block):
    """Windows of equal size whose cells tile the plane from pixel (0, 0).

    The defaults are the cheapest of those that change least against windows with much context
    (`benchmarks/inference/lattices.py`).
    """

    window: Annotated[int, Field(ge=32, multiple_of=32)] = 768
    """Side of the network's input in pixels, a multiple of 32."""
    overlap: Annotated[int, Field(ge=0)] = 64
    """Pixels that neighboring windows share; the stride is window - overlap."""
    blend: Annotated[int, Field(ge=0)] = 0
    """Pixels over which one window fades into the next; the rest of the overlap is context. A block
    needs one row and column of windows less without it."""

    @model_validator(mode="after")
    def _fits(self) -> Lattice:
        if self.blend > self.overlap or (self.overlap - self.blend) % 2:
            raise ValueError(
                f"blend is {self.blend} with overlap {self.overlap}; choose a blend that is at "
                "most the overlap and differs from it by an even number"
            )
        if self.overlap > self.window // 2:
            raise ValueError(
                f"overlap is {self.overlap} with window {self.window}; choose at most half a window"
            )
        return self

    @property
    def stride(self) -> int:
        """Distance of neighboring windows, and side of a cell, in pixels."""
        return self.window - self.overlap

    @property
    def margin(self) -> int:
        """Pixels at each side of a window that are context only."""
        return (self.overlap - self.blend) // 2

    def weights(self) -> NDArray[np.float32]:
        """Return the blending weights along an axis of a window, (window,); they sum to one."""
        rising = (np.arange(self.blend, dtype=np.float32) + np.float32(0.5)) / np.float32(
            max(self.blend, 1)
        )
        weights = np.ones(self.window, np.float32)
        inner = weights[self.margin : self.window - self.margin]
        inner[: self.blend] = rising
        inner[len(inner) - self.blend :] = 1 - rising
        weights[: self.margin] = weights[self.window - self.margin :] = 0
        return weights

    def spans(self, start: int, stop: int) -> list[Span]:
        """Return the windows along one axis with weight on pixels start <= i < stop, in order."""
        weights = self.weights()
        first, last = start // self.stride, -(-(stop + self.blend) // self.stride)
        lead = self.blend + self.margin
        return [Span(k * self.stride - lead, weights) for k in range(first, last)]

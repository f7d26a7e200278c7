"""Skeletons of cracks as pixel graphs, one per component.

The thinning is that of Lee, Kashyap and Chu (1994), chosen as that of Zhang and Suen (1984) eats
diagonal cracks of an even number of pixels from their ends, in the worst case wholly. It runs once
over all components: it looks at 3 x 3 pixels only, and those of one 8-connected component never
see another. So a component has the same skeleton in any company, which is what makes measures
independent of the cut into blocks.

Each pass takes the border pixels of one side that may go and, in raster order, removes those that
may still go. A pixel's turn depends on those before it only through its own neighbors, so all
pixels whose fate does not hang on an undecided neighbor are decided together: the result is that
of the sequential algorithm, for the cost of its border pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from geo.arrays import IntArray
from geo.cracks.pixel_set import NE, NW, SE, SW, E, N, PixelSet, S, W

_SIDES: Final = (N, S, E, W)
"""Sides in the order of scikit-image, whose skeletons these are, pixel for pixel."""

_LATER, _EARLIER = (E, SE, S, SW), (W, NW, N, NE)
"""Neighbors after and before a pixel in raster order."""

_STAYS, _GOES, _OPEN = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The pixel graph of one component.

    Attributes:
        pixels: (K, 2) row, col of the skeleton in the mosaic, in raster order.
        edges: (E, 2) indices of neighboring skeleton pixels. Corners count as neighbors only
            where no side leads around them, so that a staircase is a path and not a chain of
            triangles.
        border: (B, 2) row, col of the background pixels beside the component, in raster order.
    """

    pixels: IntArray
    edges: IntArray
    border: IntArray

    @property
    def corner(self) -> IntArray:
        """(2,) smallest row and column, from which the component's arithmetic counts."""
        least: IntArray = self.pixels.min(axis=0)
        return least


@dataclass(frozen=True, eq=False)
class Skeletons:
    """The skeletons of all components of a set, one run after the other, by number.

    Attributes:
        names: (N,) number of each component.
        pixels: (K, 2) row, col; those of component n are ``pixels[starts[n]:starts[n + 1]]``.
        edges: (E, 2) indices into ``pixels``.
        border: (B, 2) row, col of the background pixels beside the components.
        pixel_starts, edge_starts, border_starts: (N + 1,) where each component's run begins.
    """

    names: IntArray
    pixels: IntArray
    edges: IntArray
    border: IntArray
    pixel_starts: IntArray
    edge_starts: IntArray
    border_starts: IntArray

    def skeleton(self, index: int) -> Skeleton:
        """Return the skeleton of one component."""
        first = self.pixel_starts[index]
        return Skeleton(
            self.pixels[first : self.pixel_starts[index + 1]],
            self.edges[self.edge_starts[index] : self.edge_starts[index + 1]] - first,
            self.border[self.border_starts[index] : self.border_starts[index + 1]],
        )


def thin_components(pixels: PixelSet, owner: NDArray[np.integer]) -> Skeletons:
    """Thin each component of a set of pixels.

    Args:
        pixels: of 8-connected components.
        owner: (N,) number of each pixel's component.
    """
    left = thin(pixels)
    left = left[np.argsort(owner[left], kind="stable")]
    number = np.full(len(pixels) + 1, -1, np.int32)
    number[left] = np.arange(len(left), dtype=np.int32)
    edges = _edges(left, number, pixels.neighbors)
    border, border_owner = _border(pixels, owner)
    names = owner[left][np.flatnonzero(np.diff(owner[left], prepend=-1))]  # they ascend
    return Skeletons(
        names.astype(np.int64),
        np.column_stack(pixels.places(pixels.keys[left])),
        edges,
        np.column_stack(pixels.places(border)),
        _starts(owner[left], names),
        _starts(owner[left][edges[:, 0]], names),
        _starts(border_owner, names),
    )


def _starts(owner: NDArray[np.integer], names: NDArray[np.integer]) -> IntArray:
    """Return (N + 1,) where the run of each name begins in its sorted owners."""
    starts: IntArray = np.append(np.searchsorted(owner, names), len(owner))
    return starts


def _edges(left: IntArray, number: NDArray[np.int32], beside: NDArray[np.int32]) -> IntArray:
    """Return the pairs of neighboring skeleton pixels, ordered by the first of each."""
    pairs = []
    for step, around in ((E, ()), (S, ()), (SE, (E, S)), (SW, (W, S))):
        joined = number[beside[step][left]] >= 0
        for side in around:
            joined &= number[beside[side][left]] < 0
        here = left[joined]
        pairs.append(np.column_stack((number[here], number[beside[step][here]])))
    edges = np.concatenate(pairs).astype(np.int64)
    return edges[np.lexsort((edges[:, 1], edges[:, 0]))]


def _border(pixels: PixelSet, owner: NDArray[np.integer]) -> tuple[IntArray, IntArray]:
    """Return the keys of pixels beside components, and their component, in raster order of each.

    Sides suffice: the background pixel nearest to a crack pixel always has one toward it.
    """
    found, owners = [], []
    for step in (N, W, E, S):
        outside = pixels.neighbors[step] == len(pixels)
        found.append(pixels.keys[outside] + pixels.steps[step])
        owners.append(owner[outside])
    keys = np.concatenate(found)
    span = int(keys.max()) + 1 if len(keys) else 1
    pairs = np.concatenate(owners).astype(np.int64) * span + keys
    pairs.sort()  # np.unique hashes, which takes ten times as long where most are different
    new = np.ones(len(pairs), bool)
    new[1:] = pairs[1:] != pairs[:-1]
    border_owner, border = np.divmod(pairs[new], span)
    return border, border_owner


def thin(pixels: PixelSet) -> IntArray:
    """Return the indices of the pixels that form the skeleton, one wide, ends and loops kept."""
    return _Thinning(pixels).run()


class _Thinning:
    """Pixels on their way to the skeleton; index ``len(pixels)`` stands for any other pixel."""

    def __init__(self, pixels: PixelSet) -> None:
        self._beside = pixels.neighbors
        self._codes = np.append(pixels.codes, np.uint8(0))
        self._gone = np.zeros(len(pixels), bool)
        self._waits = np.zeros(len(pixels) + 1, np.uint8)

    def run(self) -> IntArray:
        """Pass over the sides until none changes anything."""
        left = np.arange(len(self._gone))
        changed = True
        while changed:
            changed = False
            for side in _SIDES:
                candidates = left[_CANDIDATES[side][self._codes[left]]]
                changed |= self._peel(candidates)
                left = left[~self._gone[left]]
        return left

    def _peel(self, waiting: IntArray) -> bool:
        """Remove the candidates of one pass, as if one by one; whether any went."""
        self._waits[waiting] = 1
        removed = [waiting[:0]]
        while len(waiting):
            undecided = np.zeros(len(waiting), np.uint8)
            for bit, step in enumerate(_EARLIER):
                undecided |= self._waits[self._beside[step][waiting]] << np.uint8(bit)
            verdict = _VERDICTS[self._codes[waiting], undecided]
            going = waiting[verdict == _GOES]
            removed.append(going)
            self._waits[waiting[verdict != _OPEN]] = 0
            self._forget(going, _LATER)
            waiting = waiting[verdict == _OPEN]
        every = np.concatenate(removed)
        self._forget(every, _EARLIER)  # only now: they were looked at before these went
        self._gone[every] = True
        self._codes[every] = 0
        return len(every) > 0

    def _forget(self, gone: IntArray, steps: tuple[int, ...]) -> None:
        """Take removed pixels out of the codes of their neighbors on some sides."""
        for step in steps:
            self._codes[self._beside[step][gone]] &= np.uint8(255 - (1 << (step ^ 4)))


def _crossings() -> NDArray[np.int64]:
    """Return the crossing number (256,) of each neighbor code (Hilditch 1969).

    It is the number of 8-connected components that the neighbors form, or 0 if all four sides
    are in (then they form one, too) or none is.
    """
    code = np.arange(256)
    is_in = [(code >> step) & 1 for step in range(8)]
    turns = [(1 - is_in[k]) & (is_in[k + 1] | is_in[(k + 2) % 8]) for k in (E, S, W, N)]
    return np.asarray(sum(turns))


def _verdicts() -> NDArray[np.uint8]:
    """Return the fate (256, 16) of a pixel by its code and its undecided earlier neighbors.

    A candidate goes if its neighbors hang together without it.
    """
    code, undecided = np.arange(256)[:, None], np.arange(16)
    goes = _CROSSINGS <= 1
    fates = np.array([goes[code & ~((undecided & taken) << 4)] for taken in range(16)])
    verdict = np.where(fates.all(axis=0), _GOES, np.where(fates.any(axis=0), _OPEN, _STAYS))
    return verdict.astype(np.uint8)


_CODES = np.arange(256)

_CROSSINGS = _crossings()

_VERDICTS = _verdicts()

_CANDIDATES: Final = {
    side: (_CROSSINGS == 1) & (_CODES & (_CODES - 1) > 0) & ((_CODES >> side) & 1 == 0)
    for side in _SIDES
}
"""Codes of pixels with an open side that are no end and whose neighbors hang together."""

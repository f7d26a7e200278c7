"""Thinning of a set of pixels after Lee, Kashyap and Chu (1994), all borders of a side at once.

Each pass takes the border pixels of one side that may go and, in raster order, removes those that
may still go. A pixel's turn depends on those before it only through its own neighbors, so all
pixels whose fate does not hang on an undecided neighbor are decided together: the result is that
of the sequential algorithm, for the cost of its border pixels.

Lee's thinning was chosen as that of Zhang and Suen (1984) eats diagonal cracks of an even number
of pixels from their ends, in the worst case wholly.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from geo.pixel_set import NE, NW, SE, SW, E, IntArray, N, PixelSet, S, W

_SIDES: Final = (N, S, E, W)
"""Sides in the order of scikit-image, whose skeletons these are, pixel for pixel."""

_LATER, _EARLIER = (E, SE, S, SW), (W, NW, N, NE)
"""Neighbors after and before a pixel in raster order."""

_STAYS, _GOES, _OPEN = 0, 1, 2


def _crossings() -> NDArray[np.int64]:
    """(256,) crossing number by neighbor code (Hilditch 1969).

    It is the number of 8-connected components that the neighbors form, or 0 if all four sides
    are in (then they form one, too) or none is.
    """
    code = np.arange(256)
    is_in = [(code >> step) & 1 for step in range(8)]
    turns = [(1 - is_in[k]) & (is_in[k + 1] | is_in[(k + 2) % 8]) for k in (E, S, W, N)]
    return np.asarray(sum(turns))


def _verdicts() -> NDArray[np.uint8]:
    """(256, 16) fate of a pixel by its code and which of its earlier neighbors are undecided.

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


def thin(pixels: PixelSet) -> IntArray:
    """Indices of the pixels that form the skeleton, one pixel wide, ends and loops kept."""
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

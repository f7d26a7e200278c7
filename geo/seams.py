"""Pieces of different blocks -> whole cracks.

Pieces belong together if a pixel of one and a pixel of the other are neighbors (side or corner).
That is decided on pixel indices, never on geometries: cracks that only come close stay apart, and
what was one 8-connected component before the cut is one again after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from geo.grid import Grid
from geo.measure import measure_components
from geo.outlines import outlines
from geo.pixel_set import PixelSet
from geo.polygon_pixels import pixels_of_each
from geo.polygonize import Piece

_NEIGHBORS = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Half of the eight neighbors (row, col): the other half is seen from the other pixel."""

AT_ONCE_PX = 4_000_000
"""Pixels of joined cracks that are traced and measured at once: 0.5 GB."""


def join(pieces: Sequence[Piece], grid: Grid) -> list[Piece]:
    """Join the pieces that touch across seams; the others are returned as they are.

    Args:
        pieces: pieces of any blocks of one mosaic, in any order.
        grid: of the mosaic.

    Returns:
        Cracks by topmost, then leftmost pixel, without seam pixels, measured as a whole; equal
        whatever the cut.
    """
    whole = [piece for piece in pieces if not piece.touches_seam]
    cut = [piece for piece in pieces if piece.touches_seam]
    groups: dict[int, list[Piece]] = {}
    for root, piece in zip(_roots(cut), cut, strict=True):
        groups.setdefault(root, []).append(piece)
    for batch in _batches(groups.values()):
        whole += _united(batch, grid)
    return sorted(whole, key=lambda piece: (piece.top, piece.left))


def _roots(pieces: list[Piece]) -> list[int]:
    """Number of the group of each piece."""
    parent = list(range(len(pieces)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for one, other in _contacts(pieces):
        parent[root(one)] = root(other)
    return [root(item) for item in range(len(pieces))]


def _contacts(pieces: list[Piece]) -> list[tuple[int, int]]:
    """Pairs of different pieces with neighboring seam pixels."""
    if not pieces:
        return []
    pixels = np.concatenate([piece.seam_pixels for piece in pieces])
    owner = np.repeat(np.arange(len(pieces)), [len(piece.seam_pixels) for piece in pieces])
    stride = int(pixels[:, 1].max()) + 3  # room for a neighbor beyond either end of a row
    keys = pixels[:, 0] * stride + pixels[:, 1] + 1
    order = np.argsort(keys)
    keys, owner = keys[order], owner[order]
    pairs = np.concatenate([_matches(keys, owner, r * stride + c) for r, c in _NEIGHBORS])
    return [(int(one), int(other)) for one, other in np.unique(pairs, axis=0)]


def _matches(keys: NDArray[np.int64], owner: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """(N, 2) owners of the sorted pixel keys that lie ``step`` apart, where they differ."""
    at = np.searchsorted(keys, keys + step)
    at[at == len(keys)] = 0
    hit = (keys[at] == keys + step) & (owner[at] != owner)
    return np.column_stack((owner[hit], owner[at[hit]]))


def _batches(groups: Iterable[list[Piece]]) -> Iterator[list[list[Piece]]]:
    """Groups in batches of at most AT_ONCE_PX pixels, or of a single group."""
    batch: list[list[Piece]] = []
    size = 0
    for group in groups:
        n_pixels = sum(piece.n_pixels for piece in group)
        if batch and size + n_pixels > AT_ONCE_PX:
            yield batch
            batch, size = [], 0
        batch.append(group)
        size += n_pixels
    if batch:
        yield batch


def _united(groups: list[list[Piece]], grid: Grid) -> Iterator[Piece]:
    """Whole cracks, traced and measured anew from the pixels of their pieces."""
    outlines_of = [piece.geometry for group in groups for piece in group]
    found = pixels_of_each(np.array(outlines_of, dtype=object))
    pixels = PixelSet.of_places(found.rows, found.cols)
    traced = outlines(pixels)
    geometry = traced.polygons()
    assert len(geometry) == len(groups), "a group is one component"
    measures = measure_components(pixels, traced, np.ones(len(groups), bool), grid)
    for group in groups:
        top, left = min((piece.top, piece.left) for piece in group)
        first = pixels.keys_of(np.array(top), np.array(left))
        number = int(pixels.components[np.searchsorted(pixels.keys, first)])
        known = [piece.touches_nodata for piece in group if piece.touches_nodata is not None]
        yield Piece(
            geometry=geometry[number],
            n_pixels=sum(piece.n_pixels for piece in group),
            probability_sum=sum(piece.probability_sum for piece in group),
            top=top,
            left=left,
            seam_pixels=np.empty((0, 2), np.int64),
            touches_nodata=any(known) if known else None,
            measures=measures[number],
            gsd_m=max((p.gsd_m for p in group if p.gsd_m is not None), default=None),
        )

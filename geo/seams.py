"""Pieces of different blocks -> whole cracks.

Pieces belong together if a pixel of one and a pixel of the other are neighbors (side or corner).
That is decided on pixel indices, never on geometries: cracks that only come close stay apart, and
what was one 8-connected component before the cut is one again after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geo.grid import Grid
from geo.measure import measure_components
from geo.outlines import outlines
from geo.pixel_set import IntArray, Owner, PixelSet, graph_components
from geo.polygon_pixels import pixels_of_each
from geo.polygonize import Piece

_NEIGHBORS = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Half of the eight neighbors (row, col): the other half is seen from the other pixel."""


def crack_of_each(pixels: IntArray, counts: IntArray) -> Owner:
    """Which pieces belong together.

    Args:
        pixels: (P, 2) row, col of the seam pixels of all pieces, piece by piece.
        counts: (N,) how many of them each piece has.

    Returns:
        (N,) number of each piece's crack; cracks are numbered by their first piece.
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    if not len(pixels):
        return np.arange(len(counts), dtype=np.int32)
    stride = int(pixels[:, 1].max()) + 3  # room for a neighbor beyond either end of a row
    keys = pixels[:, 0] * stride + pixels[:, 1] + 1
    order = np.argsort(keys)
    keys, owner = keys[order], owner[order]
    pairs = np.concatenate([_matches(keys, owner, r * stride + c) for r, c in _NEIGHBORS])
    return graph_components(pairs[:, 0], pairs[:, 1], len(counts))


def _matches(keys: NDArray[np.int64], owner: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """(N, 2) owners of the sorted pixel keys that lie ``step`` apart, where they differ."""
    at = np.searchsorted(keys, keys + step)
    at[at == len(keys)] = 0
    hit = (keys[at] == keys + step) & (owner[at] != owner)
    return np.column_stack((owner[hit], owner[at[hit]]))


def join(pieces: Sequence[Piece], grid: Grid) -> list[Piece]:
    """Join the pieces that touch across seams; the others are returned as they are.

    For what fits into memory; `geo.joining` takes parts one after the other.

    Args:
        pieces: pieces of any blocks of one mosaic, in any order.
        grid: of the mosaic.

    Returns:
        Cracks by topmost, then leftmost pixel, without seam pixels, measured as a whole; equal
        whatever the cut.
    """
    whole = [piece for piece in pieces if not piece.touches_seam]
    cut = [piece for piece in pieces if piece.touches_seam]
    if cut:
        counts = np.array([len(piece.seam_pixels) for piece in cut])
        crack = crack_of_each(np.concatenate([piece.seam_pixels for piece in cut]), counts)
        groups: list[list[Piece]] = [[] for _ in range(int(crack.max()) + 1)]
        for number, piece in zip(crack, cut, strict=True):
            groups[number].append(piece)
        whole += united(groups, grid)
    return sorted(whole, key=lambda piece: (piece.top, piece.left))


def united(groups: Sequence[Sequence[Piece]], grid: Grid) -> list[Piece]:
    """Whole cracks, traced and measured anew from the pixels of their pieces.

    Args:
        groups: the pieces of each crack; needs some 130 bytes per pixel of them all.
        grid: of the mosaic.
    """
    outlines_of = [piece.geometry for group in groups for piece in group]
    found = pixels_of_each(np.array(outlines_of, dtype=object))
    pixels = PixelSet.of_places(found.rows, found.cols)
    traced = outlines(pixels)
    geometry = traced.polygons()
    assert len(geometry) == len(groups), "a group is one component"
    measures = measure_components(pixels, traced, np.ones(len(groups), bool), grid)
    cracks = []
    for group in groups:
        top, left = min((piece.top, piece.left) for piece in group)
        first = pixels.keys_of(np.array(top), np.array(left))
        number = int(pixels.components[np.searchsorted(pixels.keys, first)])
        known = [piece.touches_nodata for piece in group if piece.touches_nodata is not None]
        crack = Piece(
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
        cracks.append(crack)
    return cracks

"""Crack pixels of one block -> pieces: exact polygons with additive sums.

A piece is an 8-connected component of the block's mask. Its polygon follows the pixel borders
(area in pixels = number of pixels) in whole mosaic pixel corner coordinates; pixels that touch
only diagonally become parts of one MultiPolygon, which keeps every geometry valid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from shapely.geometry import MultiPolygon
from skimage.measure import label

from geo.grid import Grid, Window
from geo.measure import measure_components
from geo.measures import Measures


@dataclass(frozen=True, eq=False)
class Piece:
    """A crack, or the part of one that lies in a block.

    Attributes:
        geometry: canonical polygon in mosaic pixel corner coordinates (x = col, y = row).
        n_pixels: number of pixels.
        probability_sum: sum of the 8-bit probabilities of these pixels.
        top, left: row and column of the topmost, then leftmost pixel.
        seam_pixels: (N, 2) row, col of the pixels on block sides with mosaic beyond them; empty if
            the piece is a whole crack.
        touches_nodata: whether a pixel beside it has no imagery; None if that was not asked.
        measures: of a whole crack; None for a piece, which is measured when it is joined.
    """

    geometry: MultiPolygon
    n_pixels: int
    probability_sum: int
    top: int
    left: int
    seam_pixels: NDArray[np.int64]
    touches_nodata: bool | None = None
    measures: Measures | None = None

    @property
    def touches_seam(self) -> bool:
        """Whether the crack may go on in another block."""
        return len(self.seam_pixels) > 0


def pieces(
    mask: NDArray[np.bool_],
    probability: NDArray[np.uint8],
    window: Window,
    grid: Grid,
    valid: NDArray[np.bool_] | None = None,
) -> list[Piece]:
    """Cut a block's mask into its 8-connected pieces, by topmost, then leftmost pixel.

    Args:
        mask: (H, W) bool, the crack pixels of the block.
        probability: (H, W) uint8, 255 = certain.
        window: the block, inside the grid; its shape is that of the arrays.
        grid: the mosaic's grid, whose own borders are no seams.
        valid: (H + 2, W + 2) bool, where there is imagery, in the block and one pixel around it;
            None leaves touches_nodata open.
    """
    if mask.shape != (window.height, window.width) or probability.shape != mask.shape:
        raise ValueError(f"{mask.shape}, {probability.shape} do not fit {window}")
    if not mask.any():
        return []
    labels = label(mask, connectivity=2).astype(np.int32)  # type: ignore[no-untyped-call]
    flat = np.flatnonzero(mask)
    owner = labels.ravel()[flat]
    n_pixels = np.bincount(owner)
    sums = np.bincount(owner, weights=probability.ravel()[flat])  # exact below 2**53
    found, first = np.unique(owner, return_index=True)
    tops, lefts = np.divmod(flat[first], window.width)
    polygons = _polygons(labels, mask, window)
    seams = _seam_pixels(labels, window, grid)
    seam = np.isin(labels, list(seams)) if seams else None
    whole = labels if seam is None else np.where(seam, 0, labels)
    measures = measure_components(whole, polygons, n_pixels, window, grid)
    ragged = None if valid is None else set(np.unique(labels[_beside_nodata(valid)]).tolist())
    none = np.empty((0, 2), np.int64)
    cut = [
        Piece(
            geometry=polygons[number],
            n_pixels=int(n_pixels[number]),
            probability_sum=int(sums[number]),
            top=int(top) + window.row_off,
            left=int(left) + window.col_off,
            seam_pixels=seams.get(number, none),
            touches_nodata=None if ragged is None else number in ragged,
            measures=measures.get(number),
        )
        for number, top, left in zip(found.tolist(), tops, lefts, strict=True)
    ]
    return sorted(cut, key=lambda piece: (piece.top, piece.left))


def _beside_nodata(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) bool: pixels with one of their eight neighbors without imagery."""
    every = valid[:-2] & valid[1:-1] & valid[2:]
    return ~(every[:, :-2] & every[:, 1:-1] & every[:, 2:])


def canonical(geometry: shapely.Geometry) -> MultiPolygon:
    """Return the one representation of a pixel-shaped area: no needless vertex, fixed order.

    Two unions of the same pixels become equal byte by byte, whatever they were united from.
    """
    lean = shapely.simplify(shapely.normalize(geometry), 0, preserve_topology=True)
    ordered = shapely.normalize(lean)
    parts = [part for part in shapely.get_parts(ordered) if part.geom_type == "Polygon"]
    return MultiPolygon(parts)


def _polygons(
    labels: NDArray[np.int32], mask: NDArray[np.bool_], window: Window
) -> dict[int, MultiPolygon]:
    """Polygon of each label; 4-connected tracing, as 8-connected rings touch themselves."""
    shift = Affine.translation(window.col_off, window.row_off)
    traced = list(shapes(labels, mask=mask, connectivity=4, transform=shift))
    numbers = np.array([number for _, number in traced], dtype=np.int64)
    order = np.argsort(numbers, kind="stable")
    found, group = np.unique(numbers[order], return_inverse=True)
    outlines = _outlines([outline["coordinates"] for outline, _ in traced])[order]
    # traced rings have no needless vertex, so normalizing makes them canonical (see the tests)
    whole = shapely.normalize(shapely.multipolygons(outlines, indices=group))
    return dict(zip(found.tolist(), whole, strict=True))


def _outlines(traced: list[list[list[tuple[float, float]]]]) -> NDArray[np.object_]:
    """Polygons of traced rings (the shell first, then its holes), built all at once."""
    rings = [ring for outline in traced for ring in outline]
    vertices = np.array([vertex for ring in rings for vertex in ring])
    lengths, counts = [len(ring) for ring in rings], [len(outline) for outline in traced]
    linear = shapely.linearrings(vertices, indices=np.repeat(np.arange(len(rings)), lengths))
    owner = np.repeat(np.arange(len(traced)), counts)
    outlines: NDArray[np.object_] = shapely.polygons(linear, indices=owner)
    return outlines


def _seam_pixels(
    labels: NDArray[np.int32], window: Window, grid: Grid
) -> dict[int, NDArray[np.int64]]:
    """Mosaic pixels (N, 2) row, col of each label on the sides with mosaic beyond them."""
    side = np.zeros(labels.shape, bool)
    side[0] |= window.row_off > 0
    side[-1] |= window.row_end < grid.shape[0]
    side[:, 0] |= window.col_off > 0
    side[:, -1] |= window.col_end < grid.shape[1]
    rows, cols = np.nonzero(side & (labels > 0))
    owner = labels[rows, cols]
    pixels = np.column_stack((rows + window.row_off, cols + window.col_off)).astype(np.int64)
    return {int(number): pixels[owner == number] for number in np.unique(owner)}
